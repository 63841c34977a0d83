//! The charts' life on a node of its own: webhook down, upgrade, uninstall.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, Scene, release, workload};
use e2e::{Cluster, Tier, wait_for, wait_for_all};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

const SENDER: &str = r#"while true; do
  python3 -c '
import smtplib
with smtplib.SMTP("localhost", 25, timeout=60) as s:
    s.sendmail("noreply@contoso.com", ["ada@contoso.com"], "From: noreply@contoso.com\r\nSubject: tick\r\n\r\ntick\r\n")
'
  sleep 3
done"#;

#[tokio::test(flavor = "multi_thread")]
async fn webhook_down_upgrade_and_uninstall_leave_the_mail_flowing() -> Result<()> {
    let cluster = Cluster::start(Tier::Node).await?;
    release::ensure_installed(&cluster).await?;
    let scene = Scene::on(cluster, "lifecycle").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.apply::<Pod>(&workload::pod("running", "notifications", &workload::pod_spec(SENDER))).await?;
    scene.microsoft.wait_for_messages(1).await?;

    upgrade_has_no_conflict(&scene).await?;
    webhook_down_refuses_labelled_pods_only(&scene).await?;
    uninstall_leaves_no_webhook_and_pods_keep_sending(&scene).await?;
    scene.finish()
}

/// The operator has written `caBundle` since the install; Helm's server-side apply must not fight it.
async fn upgrade_has_no_conflict(scene: &Scene) -> Result<()> {
    release::upgrade(&scene.cluster, &["--set", "logLevel=debug"]).await?;
    let job = workload::job(
        "after-upgrade",
        "notifications",
        &workload::pod_spec(&workload::send_with_smtplib("upgraded")),
    );
    scene.apply::<Job>(&job).await?;
    scene.job_completes("after-upgrade").await?;
    Ok(())
}

async fn webhook_down_refuses_labelled_pods_only(scene: &Scene) -> Result<()> {
    scale_operator(scene, 0).await?;
    let labelled = workload::pod("labelled", "notifications", &workload::pod_spec("true"));
    let refused =
        scene.apply::<Pod>(&labelled).await.expect_err("a labelled pod must not start without its sidecar");
    ensure!(
        format!("{refused:#}").contains("inject.mailroute.dev"),
        "the refusal names the webhook: {refused:#}"
    );

    let mut plain = workload::pod("plain", "notifications", &workload::pod_spec("true"));
    plain["metadata"]["labels"] = json!({"app": "plain"});
    scene.apply::<Pod>(&plain).await?;
    let ended = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
    wait_for(scene.api::<Pod>(), "plain", ended, PATIENCE).await?;
    scale_operator(scene, 2).await
}

async fn scale_operator(scene: &Scene, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(scene.client(), release::NAMESPACE);
    let patch = json!({"spec": {"replicas": replicas}});
    deployments.patch(release::NAME, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let scaled = move |d: &Deployment| {
        d.status
            .as_ref()
            .is_some_and(|s| s.ready_replicas.unwrap_or(0) == replicas && s.replicas.unwrap_or(0) == replicas)
    };
    wait_for(deployments, release::NAME, scaled, PATIENCE).await?;
    let pods: Api<Pod> = Api::namespaced(scene.client(), release::NAMESPACE);
    let count = usize::try_from(replicas)?;
    wait_for_all(pods, "app.kubernetes.io/name=mailroute", |all| all.len() == count, PATIENCE).await?;
    Ok(())
}

/// Without an operator a pod sends in turns, which begin after about three minutes.
async fn keeps_sending(scene: &Scene, messages: usize) -> Result<()> {
    for _ in 0..2 {
        if scene.microsoft.wait_for_messages(messages).await.is_ok() {
            return Ok(());
        }
    }
    scene.microsoft.wait_for_messages(messages).await.context("the running pod keeps sending")
}

async fn uninstall_leaves_no_webhook_and_pods_keep_sending(scene: &Scene) -> Result<()> {
    release::uninstall(&scene.cluster).await?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(scene.client());
    let left = webhooks.list(&ListParams::default()).await?.items;
    ensure!(left.is_empty(), "left behind: {left:?}");

    let before = scene.microsoft.messages().await?.len();
    keeps_sending(scene, before + 2).await?;

    // The definition stays, so that routes survive a reinstallation.
    let listed = scene.cluster.kubectl(&["get", "mailroutes", "--all-namespaces"]).await?;
    ensure!(listed.contains("notifications"), "{listed}");
    Ok(())
}
