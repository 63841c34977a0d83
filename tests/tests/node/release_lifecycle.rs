//! The charts' life on a node of its own: webhook down, upgrade, uninstall.

use anyhow::{Context, Result, ensure};
use e2e::scene::admissions::Admissions;
use e2e::scene::{PATIENCE, Scene, release, workload};
use e2e::{Cluster, Tier, wait_for, wait_for_all, wait_gone};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

/// Whom the release's own test names, and sends nothing.
const NOBODY: &str = "nobody@contoso.com";

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

    upgrade_has_no_conflict_and_drops_no_admission(&scene).await?;
    the_release_passes_its_own_tests(&scene).await?;
    webhook_down_refuses_labelled_pods_only(&scene).await?;
    let left = scene.beside("left").await?;
    left.route(&workload::route("notifications", scene.namespace.name())).await?;
    left.waiting_pod("left").await?;
    uninstall_leaves_nothing_of_its_own(&scene).await?;
    let before = scene.microsoft.messages().await?.len();
    tokio::try_join!(keeps_sending(&scene, before + 2), a_namespace_can_go(left))?;
    definitions_stay_until_they_are_removed_as_documented(&scene).await?;
    scene.finish()
}

/// The operator has written `caBundle` since the install; Helm's server-side apply must not fight it. Every replica is replaced,
/// and somebody answers all the time.
async fn upgrade_has_no_conflict_and_drops_no_admission(scene: &Scene) -> Result<()> {
    let load = Admissions::begin(scene, "notifications").await?;
    let tested = format!(
        "test.route=notifications,test.namespace={},test.from={},test.to={NOBODY}",
        scene.namespace.name(),
        workload::MAILBOX
    );
    release::upgrade(&scene.cluster, &["--set", "logLevel=debug", "--set", &tested]).await?;
    let admitted = load.end().await.context("while the operator was replaced")?;
    ensure!(admitted > 20, "{admitted} admissions are no load");
    let job = workload::job(
        "after-upgrade",
        "notifications",
        &workload::pod_spec(&workload::send_with_smtplib("upgraded")),
    );
    scene.apply::<Job>(&job).await?;
    scene.job_completes("after-upgrade").await?;
    Ok(())
}

/// Over the network as it is, and without a message.
async fn the_release_passes_its_own_tests(scene: &Scene) -> Result<()> {
    scene.cluster.helm(&["test", release::NAME, "--namespace", release::NAMESPACE]).await?;
    let messages = scene.microsoft.messages().await?;
    let sent = messages.iter().filter(|message| message.recipients.iter().any(|to| to.address == NOBODY));
    ensure!(sent.count() == 0, "a test sent a message");
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

/// What is not in the release's namespace, and would hold up pods of others.
async fn uninstall_leaves_nothing_of_its_own(scene: &Scene) -> Result<()> {
    release::uninstall(&scene.cluster).await?;
    let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,clusterroles,clusterrolebindings";
    let label = format!("app.kubernetes.io/instance={}", release::NAME);
    let left = scene.cluster.kubectl(&["get", kinds, "--selector", &label, "--output", "name"]).await?;
    ensure!(left.is_empty(), "left behind: {left}");
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(scene.client());
    let left = webhooks.list(&ListParams::default()).await?.items;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Nothing in it waits for the operator that is gone.
async fn a_namespace_can_go(scene: Scene) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(scene.client());
    let name = scene.namespace.name().to_owned();
    namespaces.delete(&name, &DeleteParams::default()).await?;
    wait_gone(namespaces, &name, PATIENCE).await?;
    scene.finish()
}

/// The commands of the page that begin with this.
fn documented(begin: &str) -> Result<Vec<Vec<String>>> {
    let page = std::fs::read_to_string(release::repository().join("docs/guides/uninstall.md"))?;
    let lines = page.lines().map(str::trim).filter(|line| line.starts_with(begin));
    let commands: Vec<Vec<_>> =
        lines.map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect()).collect();
    ensure!(!commands.is_empty(), "the page has no command {begin:?}");
    Ok(commands)
}

async fn definitions_stay_until_they_are_removed_as_documented(scene: &Scene) -> Result<()> {
    for command in documented("helm uninstall mailroute-crds")? {
        scene.cluster.helm(&command).await?;
    }
    // So that routes survive a reinstallation.
    let listed = scene.cluster.kubectl(&["get", "mailroutes", "--all-namespaces"]).await?;
    ensure!(listed.contains("notifications"), "{listed}");
    for command in documented("kubectl delete customresourcedefinition")? {
        scene.cluster.kubectl(&command).await?;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(scene.client());
    wait_gone(definitions, "mailroutes.mailroute.dev", PATIENCE).await?;
    // What was rendered goes with the routes.
    let rendered = |maps: &[ConfigMap]| !maps.iter().any(|map| map.name_any().starts_with("mailroute-"));
    wait_for_all(scene.api::<ConfigMap>(), "", rendered, PATIENCE).await.map(drop)
}
