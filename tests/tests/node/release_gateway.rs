//! Two hundred pods and one of two nodes go while Microsoft 365 is away: with durability Gateway nothing of what was answered 250
//! is lost, and nothing arrives twice.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::scene::gateway::GATEWAY;
use e2e::scene::{Scene, release, workload};
use e2e::supervisor::member;
use e2e::{Cluster, Tier, wait_for};
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};
use std::time::Duration;

/// Pods that each send one message.
const PODS: usize = 200;

/// Two hundred pods start on two cores.
const STARTED: Duration = Duration::from_secs(420);

/// Sends a message whose Message-ID is the pod's name, as an init container: the pod is ready when it was answered 250.
fn sending_pods() -> Value {
    let script = r#"python3 - <<'END'
import smtplib, socket, sys, time
name = socket.gethostname()
m = f"From: noreply@contoso.com\r\nSubject: {name}\r\nMessage-ID: <{name}@fleet.contoso.com>\r\n\r\nmail\r\n"
with smtplib.SMTP("localhost", 25, timeout=120) as s:
    s.sendmail("noreply@contoso.com", ["alice@contoso.com"], m)
END"#;
    let mut spec = workload::pod_spec(workload::WAIT);
    spec["initContainers"] = json!([workload::container("send", script)]);
    let mut deployment = workload::deployment("shop", "notifications", &spec);
    deployment["spec"]["replicas"] = json!(PODS);
    deployment["spec"]["progressDeadlineSeconds"] = json!(1200);
    let template = &mut deployment["spec"]["template"]["spec"];
    template["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "shop"}},
    }]);
    deployment
}

/// The simulator and the gateway stay where the power stays.
async fn scene() -> Result<Scene> {
    let cluster = Cluster::start(Tier::TwoNodes).await?;
    cluster.kubectl(&["cordon", "node-2"]).await?;
    release::ensure_installed(&cluster).await?;
    let scene = Scene::on(cluster.clone(), "fleet").await?;
    let mut route =
        workload::with_gateway(workload::direct("notifications", scene.namespace.name()), "Gateway");
    // Two hundred sidecars, and the processors of two nodes on paper.
    route["spec"]["sidecar"] = json!({"resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}});
    scene.route(&route).await?;
    scene.gateway(1, &[]).await?;
    scene.route_condition("notifications", "GatewayReady", "True").await?;
    cluster.kubectl(&["uncordon", "node-2"]).await?;
    Ok(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_and_a_node_go_during_an_outage_and_every_message_arrives_once() -> Result<()> {
    let scene = scene().await?;
    scene.microsoft.go_down_entirely().await?;
    scene.apply::<Deployment>(&sending_pods()).await?;
    let all_ready = |deployment: &Deployment| {
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        usize::try_from(ready).is_ok_and(|ready| ready == PODS)
    };
    wait_for(scene.api::<Deployment>(), "shop", all_ready, STARTED).await?;
    let queued = |route: &MailRoute| {
        let gateway = route.status.as_ref().and_then(|status| status.gateway.as_ref());
        gateway.is_some_and(|gateway| gateway.queued == PODS as u64)
    };
    wait_for(scene.api::<MailRoute>(), "notifications", queued, e2e::scene::PATIENCE).await?;
    let pods = scene.api::<Pod>().list(&ListParams::default().labels("app=shop")).await?.items;
    let sent: BTreeSet<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    ensure!(sent.len() == PODS, "{} pods", sent.len());
    let on_second = |pod: &&Pod| pod.spec.as_ref().and_then(|it| it.node_name.as_deref()) == Some("node-2");
    ensure!(pods.iter().filter(on_second).count() > PODS / 4, "the second node has its share of the pods");

    // Nobody makes new pods.
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    scene.api::<Deployment>().delete("shop", &orphan).await?;
    for set in scene.api::<ReplicaSet>().list(&ListParams::default().labels("app=shop")).await?.items {
        let name = set.metadata.name.context("a stored ReplicaSet has a name")?;
        scene.api::<ReplicaSet>().delete(&name, &orphan).await?;
    }
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let deleted = stream::iter(sent.iter().enumerate()).map(|(number, pod)| {
        let how = if number % 2 == 0 { at_once.clone() } else { DeleteParams::default() };
        let api = scene.api::<Pod>();
        async move { api.delete(pod, &how).await.map(drop) }
    });
    let power = scene.cluster.description().context("a cluster of this harness")?.clone();
    let cut = tokio::task::spawn_blocking(move || member::kill_second(&power));
    for deleted in deleted.buffer_unordered(20).collect::<Vec<_>>().await {
        deleted?;
    }
    cut.await??;

    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_messages(PODS).await?;
    let gateway = format!("{GATEWAY}-0");
    scene.route_queues("notifications", 0).await.with_context(|| format!("{gateway} has more"))?;
    let messages = scene.microsoft.messages().await?;
    let arrived: Vec<_> = messages.iter().filter_map(|it| it.header("Subject")).map(str::to_owned).collect();
    ensure!(arrived.len() == PODS, "{} messages arrived", arrived.len());
    ensure!(arrived.into_iter().collect::<BTreeSet<_>>() == sent, "every pod's message arrived");
    scene.finish()
}
