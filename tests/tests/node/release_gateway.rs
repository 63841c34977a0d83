//! Pods and one of two nodes go while Microsoft 365 is away, and nothing arrives twice. With durability Gateway nothing of what was
//! answered 250 is lost, however a pod ends; with durability Pod nothing of pods that ended with grace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use e2e::scene::gateway::GATEWAY;
use e2e::scene::{PATIENCE, Scene, release, workload};
use e2e::supervisor::member;
use e2e::wait::wait_gone;
use e2e::{Cluster, Tier, wait_for};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use serde_json::{Value, json};
use std::time::Duration;

/// Two hundred pods start on two cores.
const STARTED: Duration = Duration::from_secs(420);

/// Pods that each send one message.
struct Fleet {
    /// The Deployment and its label `app`.
    app: &'static str,
    route: &'static str,
    /// Helm release of the route's gateway.
    gateway: &'static str,
    durability: &'static str,
    pods: usize,
}

const DURABLE: Fleet =
    Fleet { app: "shop", route: "notifications", gateway: GATEWAY, durability: "Gateway", pods: 200 };

/// What waits is on the pod's own disk, and is handed over at its end. Half of them end before the others start: the nodes share 254
/// addresses of pods.
const KEPT: Fleet =
    Fleet { app: "till", route: "receipts", gateway: "receipts-gateway", durability: "Pod", pods: 40 };

impl Fleet {
    /// Each sends a message whose Message-ID is the pod's name, as an init container: the pod is ready when it was answered 250.
    fn deployment(&self) -> Value {
        let script = r#"python3 - <<'END'
import smtplib, socket, sys, time
name = socket.gethostname()
m = f"From: noreply@contoso.com\r\nSubject: {name}\r\nMessage-ID: <{name}@fleet.contoso.com>\r\n\r\nmail\r\n"
with smtplib.SMTP("localhost", 25, timeout=120) as s:
    s.sendmail("noreply@contoso.com", ["alice@contoso.com"], m)
END"#;
        let mut spec = workload::pod_spec(workload::WAIT);
        spec["initContainers"] = json!([workload::container("send", script)]);
        let labels = json!({"app": self.app});
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": labels},
        }]);
        let mut deployment = workload::deployment(self.app, self.route, &spec);
        let deployed = &mut deployment["spec"];
        deployed["replicas"] = json!(self.pods);
        deployed["progressDeadlineSeconds"] = json!(1200);
        deployed["selector"]["matchLabels"] = labels;
        deployed["template"]["metadata"]["labels"]["app"] = json!(self.app);
        deployment
    }

    async fn route(&self, scene: &Scene) -> Result<()> {
        let route = workload::direct(self.route, scene.namespace.name());
        let mut route = workload::with_gateway_of(route, self.gateway, self.durability);
        // Hundreds of sidecars, and the processors of two nodes on paper.
        route["spec"]["sidecar"] = json!({"resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}});
        scene.route(&route).await?;
        scene.gateway_of(self.route, self.gateway, 1, &[]).await?;
        scene.route_condition(self.route, "GatewayReady", "True").await?;
        Ok(())
    }

    /// Waits until all have sent, and gives their names. From then on nobody makes new ones.
    async fn sent(&self, scene: &Scene) -> Result<BTreeSet<String>> {
        let all_ready = |deployment: &Deployment| {
            let ready =
                deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
            usize::try_from(ready).is_ok_and(|ready| ready == self.pods)
        };
        wait_for(scene.api::<Deployment>(), self.app, all_ready, STARTED).await?;
        let ours = ListParams::default().labels(&format!("app={}", self.app));
        let pods = scene.api::<Pod>().list(&ours).await?.items;
        let on_second =
            |pod: &&Pod| pod.spec.as_ref().and_then(|it| it.node_name.as_deref()) == Some("node-2");
        let second = pods.iter().filter(on_second).count();
        ensure!(second > self.pods / 4, "the second node has its share of the pods: {second}");
        let sent: BTreeSet<String> = pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
        ensure!(sent.len() == self.pods, "{} pods", sent.len());

        let orphan =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
        scene.api::<Deployment>().delete(self.app, &orphan).await?;
        for set in scene.api::<ReplicaSet>().list(&ours).await?.items {
            let name = set.metadata.name.context("a stored ReplicaSet has a name")?;
            scene.api::<ReplicaSet>().delete(&name, &orphan).await?;
        }
        Ok(sent)
    }

    /// How often the message of each pod arrived.
    fn arrived(&self, subjects: &[String]) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for subject in subjects.iter().filter(|subject| subject.starts_with(self.app)) {
            *times.entry(subject.clone()).or_default() += 1;
        }
        times
    }
}

/// The simulator and the gateways stay where the power stays.
async fn scene() -> Result<Scene> {
    let cluster = Cluster::start(Tier::TwoNodes).await?;
    cluster.kubectl(&["cordon", "node-2"]).await?;
    release::ensure_installed(&cluster).await?;
    let scene = Scene::on(cluster.clone(), "fleet").await?;
    DURABLE.route(&scene).await?;
    KEPT.route(&scene).await?;
    cluster.kubectl(&["uncordon", "node-2"]).await?;
    Ok(scene)
}

/// Deletes pods, many at a time, with the grace that they have or with none.
async fn delete(scene: &Scene, pods: impl IntoIterator<Item = (&String, bool)>) -> Result<()> {
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let deleted = stream::iter(pods).map(|(pod, with_grace)| {
        let how = if with_grace { DeleteParams::default() } else { at_once.clone() };
        let api = scene.api::<Pod>();
        async move { api.delete(pod, &how).await.map(drop) }
    });
    Ok(deleted.buffer_unordered(20).try_collect().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_a_node_go_during_an_outage_and_what_their_durability_promises_arrives_once() -> Result<()> {
    let scene = scene().await?;
    scene.microsoft.go_down_entirely().await?;
    // Half of those that keep their mail themselves end with grace while both nodes are there.
    scene.apply::<Deployment>(&KEPT.deployment()).await?;
    let kept = KEPT.sent(&scene).await?;
    scene.gateway_queues(KEPT.route, |queued| queued == 0).await?;
    let (graceful, others): (Vec<_>, Vec<_>) =
        kept.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    delete(&scene, graceful.iter().map(|(_, pod)| (*pod, true))).await?;
    for (_, pod) in &graceful {
        wait_gone(scene.api::<Pod>(), pod, PATIENCE).await?;
    }
    scene.gateway_queues(KEPT.route, |queued| queued == graceful.len() as u64).await?;

    // All the rest ends at once: the others without grace, of the durable ones every second, and one node loses its power.
    scene.apply::<Deployment>(&DURABLE.deployment()).await?;
    let durable = DURABLE.sent(&scene).await?;
    scene.gateway_queues(DURABLE.route, |queued| queued == DURABLE.pods as u64).await?;
    let power = scene.cluster.description().context("a cluster of this harness")?.clone();
    let cut = tokio::task::spawn_blocking(move || member::kill_second(&power));
    let durables = durable.iter().enumerate().map(|(number, pod)| (pod, number % 2 != 0));
    delete(&scene, others.iter().map(|(_, pod)| (*pod, false)).chain(durables)).await?;
    cut.await??;

    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_messages(DURABLE.pods + graceful.len()).await?;
    scene.route_queues(DURABLE.route, 0).await.with_context(|| format!("{GATEWAY} has more"))?;
    scene.gateway_queues(KEPT.route, |queued| queued == 0).await?;
    let messages = scene.microsoft.messages().await?;
    let subjects: Vec<_> = messages.iter().filter_map(|it| it.header("Subject")).map(str::to_owned).collect();

    let arrived = DURABLE.arrived(&subjects);
    ensure!(
        arrived.keys().eq(&durable),
        "every pod's message arrived: {} of {}",
        arrived.len(),
        DURABLE.pods
    );
    ensure!(arrived.values().all(|times| *times == 1), "each once: {arrived:?}");
    let arrived = KEPT.arrived(&subjects);
    let lost: Vec<_> = graceful.iter().filter(|(_, pod)| !arrived.contains_key(*pod)).collect();
    ensure!(lost.is_empty(), "pods with durability Pod ended with grace, and their mail is lost: {lost:?}");
    ensure!(arrived.values().all(|times| *times == 1), "each once: {arrived:?}");
    // Without grace, or with the node, the pod's disk is gone, and what waited on it.
    let lost = KEPT.pods - arrived.len();
    println!(
        "durability Pod: {lost} of {} messages of pods that ended without grace were lost",
        others.len()
    );
    scene.finish()
}
