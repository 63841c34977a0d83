//! Which pods the webhook is asked about, and what a question leaves behind that is only a question: an API server, and a
//! replica of the operator behind it.

use anyhow::{Context, Result, bail, ensure};
use e2e::replica::asking::{until, warnings};
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::{release, workload};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};

/// Everything that the webhook was ever asked.
const ASKED: &str = "mailroute_admissions_total{";

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_is_asked_about_labelled_pods_alone_and_a_dry_run_leaves_nothing() -> Result<()> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    stage.serve(None).await?;
    pods_that_are_not_ours(&stage).await?;
    dry_runs(&stage).await.context("dry runs")?;
    another_namespaces_route(&stage).await.context("another namespace's route")?;
    stage.namespace.finish()
}

/// Makes a pod, or only asks whether it could be made.
async fn make(stage: &Stage, namespace: &str, pod: &Value, dry_run: bool) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(stage.client(), namespace);
    let params = PostParams { dry_run, ..PostParams::default() };
    Ok(pods.create(&params, &serde_json::from_value(pod.clone())?).await?)
}

async fn refusal(stage: &Stage, namespace: &str, pod: &Value, dry_run: bool) -> Result<String> {
    match make(stage, namespace, pod, dry_run).await {
        Ok(_) => bail!("was made: {pod}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn has_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    containers.iter().any(|container| container.name == "mailroute")
}

fn with(field: &str, value: Value) -> Value {
    let mut pod = labelled_pod();
    pod["spec"][field] = value;
    pod
}

async fn pods_that_are_not_ours(stage: &Stage) -> Result<()> {
    let (replica, namespace) = (&stage.replicas[0], stage.namespace.name());
    let mut unlabelled = labelled_pod();
    unlabelled["metadata"]["labels"] = json!({"app": "web"});
    let before = replica.sum(ASKED).await?;
    for _ in 0..50 {
        make(stage, namespace, &unlabelled, false).await.context("an unlabelled pod")?;
    }
    for out_of_reach in ["kube-system", release::NAMESPACE] {
        let pod = make(stage, out_of_reach, &labelled_pod(), true).await.context(out_of_reach)?;
        ensure!(!has_sidecar(&pod), "a pod of {out_of_reach} got a sidecar");
    }
    let after = replica.sum(ASKED).await?;
    ensure!(before.to_bits() == after.to_bits(), "the webhook was asked: {before} became {after}");
    stage.admit().await?;
    ensure!(replica.sum(ASKED).await? > after, "a labelled pod is not counted, so nothing was shown");
    Ok(())
}

async fn dry_runs(stage: &Stage) -> Result<()> {
    let (replica, namespace) = (&stage.replicas[0], stage.namespace.name());
    let pods: Api<Pod> = Api::namespaced(stage.client(), namespace);
    let stored = pods.list(&ListParams::default()).await?.items.len();
    let counted = "mailroute_admissions_total{outcome=\"dry_run\",reason=\"\"}";
    let before = replica.sum(counted).await?;
    ensure!(has_sidecar(&make(stage, namespace, &labelled_pod(), true).await?), "no sidecar is shown");
    ensure!(replica.sum(counted).await? > before, "it is not counted as a dry run");
    let told = refusal(stage, namespace, &with("hostNetwork", json!(true)), true).await?;
    ensure!(told.contains("MailRoute: The pod uses the node's network"), "{told}");

    // Events are written in the order in which they came about: after this one, that of the dry run would be there.
    refusal(stage, namespace, &with("os", json!({"name": "windows"})), false).await?;
    until(async || {
        let told = warnings(stage.client(), "notifications", "Windows").await?;
        ensure!(told.len() == 1, "the refusal is told of {} times", told.len());
        Ok(())
    })
    .await?;
    let told = warnings(stage.client(), "notifications", "HostNetwork").await?;
    ensure!(told.is_empty(), "a dry run is told of: {told:?}");
    ensure!(pods.list(&ListParams::default()).await?.items.len() == stored, "a pod was stored");
    Ok(())
}

async fn another_namespaces_route(stage: &Stage) -> Result<()> {
    let office = stage.cluster.namespace("office", &[]).await?;
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), office.name());
    let route = Patch::Apply(workload::route("invoices", office.name()));
    routes.patch("invoices", &PatchParams::apply("scene"), &route).await?;
    let mut pod = labelled_pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("invoices");
    // Once the route is known where it is.
    until(async || make(stage, office.name(), &pod, true).await.map(drop)).await?;
    let told = refusal(stage, stage.namespace.name(), &pod, false).await?;
    ensure!(told.contains("There is no MailRoute \"invoices\""), "{told}");
    ensure!(!told.contains(office.name()), "it tells of another namespace: {told}");
    office.finish()
}
