//! An operator for one namespace on a real API server: the chart's Roles are enough for it, and what is elsewhere is left
//! alone.

use anyhow::{Context, Result, ensure};
use e2e::replica::{Running, announce, flags, install_chart, until};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Tier, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_pods_of_the_watched_namespaces_alone_are_served() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    let served = cluster.namespace("served", &[]).await?;
    let other = cluster.namespace("other", &[]).await?;
    let doomed = cluster.namespace("doomed", &[]).await?;
    let scope = [served.name(), doomed.name()].join(",");
    install_chart(&cluster, &["--set", &format!("watch.namespaces={{{scope}}}")]).await?;
    // Its role goes with it; the operator has to start all the same.
    cluster.kubectl(&["delete", "namespace", doomed.name()]).await?;
    doomed.finish()?;

    for namespace in [served.name(), other.name()] {
        let route = Patch::Apply(workload::route("notifications", namespace));
        routes(&cluster, namespace).patch("notifications", &PatchParams::apply("test"), &route).await?;
    }
    let flags = flags(&cluster, 0, &["--watch-namespaces", &scope])?;
    let mut replica = Running::start(&cluster, flags, Lifetimes::default()).await?;
    announce(&cluster, 0, replica.flags.webhook_listen).await?;

    let accepted = |route: &MailRoute| {
        let status = route.status.as_ref();
        status.is_some_and(|status| {
            status.conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True")
        })
    };
    wait_for(routes(&cluster, served.name()), "notifications", accepted, PATIENCE)
        .await
        .context("its own route")?;
    until(async || {
        ensure!(has_sidecar(&make(&cluster, served.name()).await?), "came out without the sidecar");
        Ok(())
    })
    .await?;

    // The route of the served namespace has been dealt with, so this one would have been.
    let left_alone = routes(&cluster, other.name()).get("notifications").await?;
    let status = left_alone.status.context("the definition gives it one")?;
    let is_untouched = status.observed_generation == Some(-1) && status.conditions.is_empty();
    ensure!(is_untouched, "another namespace's route: {status:?}");
    ensure!(!has_sidecar(&make(&cluster, other.name()).await?), "another namespace's pod has a sidecar");
    ensure!(!replica.has_ended(), "the replica ended");
    other.finish()?;
    served.finish()
}

/// Asks for a labelled pod.
async fn make(cluster: &Cluster, namespace: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let pod = workload::pod("web", "notifications", &workload::pod_spec("true"));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    Ok(pods.create(&dry_run, &serde_json::from_value(pod)?).await?)
}

fn has_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    containers.iter().any(|container| container.name == "mailroute")
}

fn routes(cluster: &Cluster, namespace: &str) -> Api<MailRoute> {
    Api::namespaced(cluster.client(), namespace)
}
