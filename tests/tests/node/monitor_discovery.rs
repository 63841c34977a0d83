//! The chart's monitors lead a Prometheus to the replicas of the operator and to the sidecars, and to nobody else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::chart::Objects;
use e2e::prometheus::Prometheus;
use e2e::scene::{Scene, release, workload};
use e2e::{discovery, monitoring};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

/// A pod of nobody's with a port of the name that the sidecar's has.
fn stranger() -> Value {
    let mut pod = workload::pod("stranger", "notifications", &workload::pod_spec(workload::WAIT));
    pod["metadata"]["labels"] = json!({"app": "stranger"});
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "mailroute-admin", "containerPort": 9025}]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_finds_the_operator_and_the_sidecars_by_the_monitors_alone() -> Result<()> {
    let scene = Scene::start("monitored").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(workload::WAIT))).await?;
    scene.apply::<Pod>(&stranger()).await?;
    for pod in ["shop", "stranger"] {
        scene.pod_ready(pod).await?;
    }

    let watched = format!("watch.namespaces={{{}}}", scene.namespace.name());
    let on = ["monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true"];
    // Other scenes have sidecars too, which come and go.
    let objects = Objects::with(&[on[0], on[1], &watched])?;
    let replicas = discovery::targets(&scene.client(), objects.only("ServiceMonitor")?).await?;
    let sidecars = discovery::targets(&scene.client(), objects.only("PodMonitor")?).await?;
    let everywhere = Objects::with(&on)?;
    let all = discovery::targets(&scene.client(), everywhere.only("PodMonitor")?).await?;
    let ours = |address| all.iter().filter(|target| target.address == address).count();
    ensure!(sidecars.len() == 1 && ours(sidecars[0].address) == 1, "{sidecars:#?} of {all:#?}");

    let prometheus = Prometheus::start(&monitoring::rules()?).await?;
    prometheus.scrape(&[replicas, sidecars].concat()).await?;
    let expected = operators(&scene).await?;
    ensure!(expected.len() == 2, "{expected:?}");
    ensure!(pods_with(&prometheus, "mailroute_operator_build_info").await? == expected);
    let sidecar = format!(
        "mailroute_config_valid_status{{namespace=\"{}\", pod=\"shop\", route=\"notifications\"}} == 1",
        scene.namespace.name()
    );
    ensure!(prometheus.query(&sidecar).await?.len() == 1, "nothing for {sidecar}");
    scene.finish()
}

/// The pods of the operator.
async fn operators(scene: &Scene) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(scene.client(), release::NAMESPACE);
    let found = pods.list(&ListParams::default()).await?.items;
    found.into_iter().map(|pod| pod.metadata.name.context("a pod has a name")).collect()
}

/// The pods that have a metric.
async fn pods_with(prometheus: &Prometheus, metric: &str) -> Result<BTreeSet<String>> {
    let rows = prometheus.query(metric).await?;
    rows.iter().map(|row| row["metric"]["pod"].as_str().map(str::to_owned).context("a pod")).collect()
}
