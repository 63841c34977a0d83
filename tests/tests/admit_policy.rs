//! The net under the webhook, on a real API server: a labelled pod that comes out of admission without its sidecar is refused,
//! unless it says that it may.
//!
//! No operator runs here: first the webhook cannot be reached, then its configuration is gone.

use anyhow::{Context, Result, ensure};
use e2e::replica::until;
use e2e::scene::{release, workload};
use e2e::{Cluster, Tier};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

/// The namespace that the chart is told to leave out.
const EXCLUDED: &str = "legacy";

/// Asks whether a pod would be made.
async fn ask(cluster: &Cluster, namespace: &str, pod: &Value) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &serde_json::from_value(pod.clone())?).await?;
    Ok(())
}

async fn is_refused(cluster: &Cluster, namespace: &str, pod: &Value, by: &str) -> Result<String> {
    match ask(cluster, namespace, pod).await {
        Ok(()) => anyhow::bail!("{namespace}: accepted: {pod}"),
        Err(error) => {
            let told = format!("{error:#}");
            ensure!(told.contains(by), "{namespace}: refused, and not by {by}: {told}");
            Ok(told)
        }
    }
}

fn labelled() -> Value {
    workload::pod("web", "notifications", &workload::pod_spec("true"))
}

fn annotated(key: &str, value: &str) -> Value {
    let mut pod = labelled();
    pod["metadata"]["annotations"] = json!({key: value});
    pod
}

/// With a container of the sidecar's name before all others.
fn with_container(restart: Option<&str>) -> Value {
    let mut pod = labelled();
    let mut container = workload::container("mailroute", "true");
    if let Some(restart) = restart {
        container["restartPolicy"] = json!(restart);
    }
    pod["spec"]["initContainers"] = json!([container]);
    pod
}

fn unlabelled() -> Value {
    let mut pod = labelled();
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod
}

/// As the kubelet shows what it runs from a file.
fn mirror() -> Value {
    let mut pod = annotated("kubernetes.io/config.mirror", "of-a-file");
    pod["metadata"]["annotations"]["kubernetes.io/config.source"] = json!("file");
    pod["spec"]["nodeName"] = json!("node");
    pod
}

const EXCUSE: &str = "mailroute.dev/allow-without-sidecar";
const POLICY: &str = "came out of admission without the sidecar";
const WEBHOOK: &str = "failed calling webhook \"inject.mailroute.dev\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_pod_without_its_sidecar_is_refused_unless_it_is_excused() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    let shop = cluster.namespace("shop", &[]).await?;
    cluster.kubectl(&["create", "namespace", EXCLUDED]).await?;
    upgrade(
        &cluster,
        &["--set", &format!("webhook.excludedNamespaces={{{EXCLUDED}}}"), "--create-namespace"],
    )
    .await?;
    until(async || ask(&cluster, release::NAMESPACE, &unlabelled()).await).await?;
    until(async || ask(&cluster, EXCLUDED, &unlabelled()).await).await?;

    webhook_out_of_reach(&cluster, shop.name()).await?;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client());
    configurations.delete(release::NAME, &DeleteParams::default()).await?;
    webhook_gone(&cluster, shop.name()).await.context("without a webhook")?;

    // The policy is the chart's, and the chart takes it away again.
    upgrade(&cluster, &["--set", "admissionPolicy.enabled=false"]).await?;
    configurations.delete(release::NAME, &DeleteParams::default()).await?;
    until(async || ask(&cluster, shop.name(), &labelled()).await).await.context("without a policy")?;
    shop.finish()
}

/// No replica answers: labelled pods wait for one, and the emergency does not.
async fn webhook_out_of_reach(cluster: &Cluster, shop: &str) -> Result<()> {
    until(async || is_refused(cluster, shop, &labelled(), WEBHOOK).await.map(drop)).await?;
    ask(cluster, shop, &unlabelled()).await.context("an unlabelled pod")?;
    until(async || ask(cluster, shop, &annotated(EXCUSE, "true")).await).await.context("an excused pod")?;
    is_refused(cluster, shop, &annotated(EXCUSE, "yes"), WEBHOOK).await?;
    Ok(())
}

async fn webhook_gone(cluster: &Cluster, shop: &str) -> Result<()> {
    // API servers learn of a policy, and of a webhook that is gone, a moment later.
    until(async || is_refused(cluster, shop, &labelled(), POLICY).await.map(drop)).await?;
    let told = is_refused(cluster, shop, &labelled(), POLICY).await?;
    for part in [release::NAME, "webhook.excludedNamespaces", EXCUSE] {
        ensure!(told.contains(part), "the refusal does not name {part}: {told}");
    }
    ask(cluster, shop, &unlabelled()).await.context("an unlabelled pod")?;
    ask(cluster, shop, &with_container(Some("Always"))).await.context("a pod with the sidecar")?;
    // It would run before the application, and end.
    is_refused(cluster, shop, &with_container(None), POLICY).await?;
    ask(cluster, shop, &annotated(EXCUSE, "true")).await.context("an excused pod")?;
    is_refused(cluster, shop, &annotated(EXCUSE, "yes"), POLICY).await?;
    ask(cluster, shop, &mirror()).await.context("a mirror pod")?;

    is_refused(cluster, EXCLUDED, &labelled(), POLICY).await?;
    for untouched in ["kube-system", release::NAMESPACE] {
        ask(cluster, untouched, &labelled())
            .await
            .with_context(|| format!("a labelled pod in {untouched}"))?;
    }
    Ok(())
}

async fn upgrade(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let chart = release::repository().join("charts/mailroute").display().to_string();
    let upgrade = ["upgrade", "--install", release::NAME, &chart, "--namespace", release::NAMESPACE];
    cluster.helm(&[&upgrade, arguments].concat()).await?;
    Ok(())
}
