//! Namespaces whose label names the route of their pods, on a real API server: which pods get it, and which pods an operator that is
//! away keeps from being created.

use anyhow::{Context, Result, bail, ensure};
use e2e::replica::asking::until;
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Namespace, wait_for, wait_for_all};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace as CoreNamespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::{MailRoute, ROUTE_LABEL};
use mailroute_operator_core::inject::names::INJECT_LABEL;
use serde_json::{Value, json};

/// Everything that the webhook was ever asked.
const ASKED: &str = "mailroute_admissions_total{";

/// The webhook that is asked about pods of such namespaces.
const BY_NAMESPACE: &str = "failed calling webhook \"namespaces.mailroute.dev\"";

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_labelled_namespace_get_its_route_and_those_elsewhere_reach_nobody() -> Result<()> {
    let mut stage = Stage::set(&[], &["--dns-preflight", "false"], Lifetimes::default()).await?;
    let shop = labelled_namespace(&stage).await?;
    stage.serve(None).await?;

    until(async || asked(&stage, shop.name(), &pod(&json!({}))).await.map(drop))
        .await
        .context("the first pod")?;
    let made = asked(&stage, shop.name(), &pod(&json!({"app": "web"}))).await?;
    ensure!(has_sidecar(&made) && label(&made) == Some("notifications"), "{made:#?}");
    let other = asked(&stage, shop.name(), &pod(&json!({ROUTE_LABEL: "other"}))).await?;
    ensure!(has_sidecar(&other) && label(&other) == Some("other"), "its own label counts: {other:#?}");
    let out = asked(&stage, shop.name(), &pod(&json!({INJECT_LABEL: "false"}))).await?;
    ensure!(!has_sidecar(&out) && label(&out).is_none(), "{out:#?}");
    let mut on_the_node = pod(&json!({}));
    on_the_node["spec"]["hostNetwork"] = json!(true);
    let told = refused(&stage, shop.name(), &on_the_node).await?;
    ensure!(told.contains("hostNetwork") && told.contains("mailroute.dev/inject"), "{told}");

    a_deployment(&stage, &shop).await.context("a Deployment")?;

    let before = stage.replicas[0].sum(ASKED).await?;
    for elsewhere in [stage.namespace.name(), "kube-system", release::NAMESPACE] {
        let made = asked(&stage, elsewhere, &pod(&json!({}))).await.context(elsewhere.to_owned())?;
        ensure!(!has_sidecar(&made), "a pod of {elsewhere} got a sidecar");
    }
    let after = stage.replicas[0].sum(ASKED).await?;
    ensure!(before.to_bits() == after.to_bits(), "the webhook was asked: {before} became {after}");

    // The label of the namespace changes, and goes.
    relabel(&stage, shop.name(), Some("other")).await?;
    until(async || {
        let made = asked(&stage, shop.name(), &pod(&json!({}))).await?;
        ensure!(label(&made) == Some("other"), "{:?}", label(&made));
        Ok(())
    })
    .await?;
    relabel(&stage, shop.name(), None).await?;
    until(async || {
        ensure!(!has_sidecar(&asked(&stage, shop.name(), &pod(&json!({}))).await?), "still injected");
        Ok(())
    })
    .await?;
    shop.finish()?;
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_operator_is_away_only_labelled_pods_and_those_of_labelled_namespaces_are_refused()
-> Result<()> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    let shop = labelled_namespace(&stage).await?;
    // Labels on the namespaces that the cluster and the operator need change nothing.
    for untouched in ["kube-system", release::NAMESPACE] {
        relabel(&stage, untouched, Some("notifications")).await?;
    }
    stage.serve(None).await?;
    until(async || asked(&stage, shop.name(), &pod(&json!({}))).await.map(drop)).await?;
    stage.stop_first().await?;

    until(async || {
        let told = refused(&stage, shop.name(), &pod(&json!({}))).await?;
        ensure!(told.contains(BY_NAMESPACE), "{told}");
        Ok(())
    })
    .await?;
    let told = refused(&stage, stage.namespace.name(), &labelled_pod()).await?;
    ensure!(told.contains("failed calling webhook \"inject.mailroute.dev\""), "{told}");
    for elsewhere in [stage.namespace.name(), "default", "kube-system", release::NAMESPACE] {
        asked(&stage, elsewhere, &pod(&json!({}))).await.with_context(|| format!("a pod of {elsewhere}"))?;
    }
    asked(&stage, shop.name(), &pod(&json!({INJECT_LABEL: "false"}))).await.context("one that opted out")?;
    let mut excused = pod(&json!({}));
    excused["metadata"]["annotations"] = json!({"mailroute.dev/allow-without-sidecar": "true"});
    asked(&stage, shop.name(), &excused).await.context("one that may start without")?;

    // Without the webhook the policy still keeps pods from starting without their sidecar.
    stage.configurations().delete(release::NAME, &DeleteParams::default()).await?;
    until(async || {
        let told = refused(&stage, shop.name(), &pod(&json!({}))).await?;
        ensure!(told.contains("the namespace has the label mailroute.dev/route"), "{told}");
        Ok(())
    })
    .await?;
    asked(&stage, stage.namespace.name(), &pod(&json!({}))).await.context("a pod elsewhere")?;
    shop.finish()?;
    stage.namespace.finish()
}

/// A namespace with the routes `notifications` and `other`, whose label names the first.
async fn labelled_namespace(stage: &Stage) -> Result<Namespace> {
    let shop = stage.cluster.namespace("shop", &[(ROUTE_LABEL, "notifications")]).await?;
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), shop.name());
    for name in ["notifications", "other"] {
        let route = Patch::Apply(workload::route(name, shop.name()));
        routes.patch(name, &PatchParams::apply("test"), &route).await?;
    }
    Ok(shop)
}

async fn relabel(stage: &Stage, namespace: &str, route: Option<&str>) -> Result<()> {
    let namespaces: Api<CoreNamespace> = Api::all(stage.client());
    let labels = Patch::Merge(json!({"metadata": {"labels": {ROUTE_LABEL: route}}}));
    namespaces.patch(namespace, &PatchParams::default(), &labels).await?;
    Ok(())
}

/// Its ReplicaSet makes one pod, finds it again by its labels, and the route counts it.
async fn a_deployment(stage: &Stage, shop: &Namespace) -> Result<()> {
    let mut deployment = workload::deployment("web", "", &workload::pod_spec("true"));
    deployment["spec"]["template"]["metadata"]["labels"] = json!({"app": "shop"});
    let deployments: Api<Deployment> = Api::namespaced(stage.client(), shop.name());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    let sets: Api<ReplicaSet> = Api::namespaced(stage.client(), shop.name());
    let has_one = |sets: &[ReplicaSet]| {
        let status = sets.first().and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.replicas == 1 && status.fully_labeled_replicas == Some(1))
    };
    wait_for_all(sets, "", has_one, PATIENCE).await.context("the ReplicaSet does not find its pod")?;
    let pods: Api<Pod> = Api::namespaced(stage.client(), shop.name());
    let injected = |pods: &[Pod]| pods.len() == 1 && pods.iter().all(has_sidecar);
    wait_for_all(pods, "app=shop", injected, PATIENCE).await.context("not one pod with a sidecar")?;
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), shop.name());
    let counted =
        |route: &MailRoute| route.status.as_ref().is_some_and(|status| status.sidecars.injected == 1);
    wait_for(routes, "notifications", counted, PATIENCE).await.context("the route does not count it")?;
    Ok(())
}

/// A pod with these labels and no other.
fn pod(labels: &Value) -> Value {
    let mut pod = labelled_pod();
    pod["metadata"]["labels"] = labels.clone();
    pod
}

/// What would become of a pod.
async fn asked(stage: &Stage, namespace: &str, pod: &Value) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(stage.client(), namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    Ok(pods.create(&params, &serde_json::from_value(pod.clone())?).await?)
}

async fn refused(stage: &Stage, namespace: &str, pod: &Value) -> Result<String> {
    match asked(stage, namespace, pod).await {
        Ok(_) => bail!("{namespace}: accepted: {pod}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn has_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    containers.iter().any(|container| container.name == "mailroute")
}

fn label(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(ROUTE_LABEL).map(String::as_str)
}
