//! The operator's identity on a real API server: two replicas of the whole program, with the rights of the chart's
//! ServiceAccount and nothing more. Tokens of pods and of the operator are the API server's own, and the simulator's token
//! endpoint checks the operator's against the cluster's keys.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::replica::{Running, flags, install_chart, until};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Namespace, Tier, wait_for};
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mailroute_m365::{Options, Simulator};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::control::{TOKEN_PATH, TokenRefusal, TokenReply};
use mailroute_route::file::{ControlService, Credential, Method};
use mailroute_route::paths::CONTROL_AUDIENCE;
use mailroute_sidecar::net::control_service;
use mailroute_sidecar::net::https::Answer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lent;

/// Name under which the test applies its manifests.
const FIELD_MANAGER: &str = "test";

/// A control plane with the chart, two replicas that lend their identity to one namespace, and Microsoft 365.
struct Stage {
    cluster: Cluster,
    /// Listed in the settings.
    allowed: Namespace,
    /// Not listed.
    other: Namespace,
    m365: Simulator,
    folder: TempDir,
    /// Where each replica's control service listens.
    replicas: Vec<SocketAddr>,
    _running: Vec<Running>,
}

impl Stage {
    async fn set() -> Result<Self> {
        let cluster = Cluster::start(Tier::ControlPlane).await?;
        release::install_definitions(&cluster).await?;
        install_chart(&cluster, &[]).await?;
        let (allowed, other) =
            (cluster.namespace("allowed", &[]).await?, cluster.namespace("other", &[]).await?);
        let m365 = Simulator::start(Options::default()).await?;
        lent::trust_the_cluster(&m365, &cluster).await?;
        let folder = tempfile::tempdir()?;
        let (settings, identity) = (folder.path().join("broker.yaml"), folder.path().join("token"));
        std::fs::write(&settings, lent::settings_for(&m365, allowed.name()))?;
        std::fs::write(&identity, lent::identity(&cluster).await?)?;

        let (mut running, mut replicas) = (Vec::new(), Vec::new());
        let (settings, identity) = (settings.display().to_string(), identity.display().to_string());
        for number in 0..2 {
            let more = ["--broker-settings", &settings, "--identity-token", &identity];
            let replica =
                Running::start(&cluster, flags(&cluster, number, &more)?, Lifetimes::default()).await?;
            replicas.push(replica.flags.control_listen);
            running.push(replica);
        }
        Ok(Self { cluster, allowed, other, m365, folder, replicas, _running: running })
    }

    fn client(&self) -> Client {
        self.cluster.client()
    }

    async fn apply(&self, namespace: &Namespace, route: &Value) -> Result<()> {
        let routes: Api<MailRoute> = Api::namespaced(self.client(), namespace.name());
        let name = route["metadata"]["name"].as_str().context("a name")?;
        routes.patch(name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(route)).await?;
        Ok(())
    }

    /// Waits until the condition Accepted of a route has this reason, and gives its message.
    async fn accepted(&self, namespace: &Namespace, name: &str, reason: Reason) -> Result<String> {
        let condition = |route: &MailRoute| {
            let mut conditions = route.status.iter().flat_map(|status| &status.conditions);
            conditions.find(|it| it.type_ == "Accepted" && it.reason == reason.as_str()).cloned()
        };
        let routes: Api<MailRoute> = Api::namespaced(self.client(), namespace.name());
        let route = wait_for(routes, name, |route| condition(route).is_some(), PATIENCE).await?;
        Ok(condition(&route).context("it was there")?.message)
    }

    /// The route as its sidecars see it.
    async fn rendered(&self, name: &str) -> Result<RouteFile> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), self.allowed.name());
        let map = maps.get(&format!("mailroute-{name}")).await?;
        let json = map.data.as_ref().and_then(|data| data.get("route.json")).context("the route")?;
        Ok(RouteFile::parse(json.as_bytes())?)
    }

    /// A pod with the label, and a token for the control service that is bound to it.
    async fn pod(&self, name: &str, route: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.allowed.name());
        let mut pod = workload::pod(name, route, &workload::pod_spec("true"));
        // Nobody answers the webhook here; of what it would add only this is looked at.
        pod["spec"]["initContainers"] = json!([workload::container("mailroute", "true")]);
        pod["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
        pod["metadata"]["annotations"]["mailroute.dev/allow-without-sidecar"] = "true".into();
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: made.metadata.name,
            uid: made.metadata.uid,
        };
        lent::token(&self.cluster, (self.allowed.name(), "default"), CONTROL_AUDIENCE, Some(bound)).await
    }

    /// Asks a replica for a token for the route, as a sidecar of that pod does.
    async fn ask(
        &self,
        replica: SocketAddr,
        pod: &str,
        control: &ControlService,
        route: &str,
    ) -> Result<Answer> {
        let token_file = self.folder.path().join("control");
        std::fs::write(&token_file, pod)?;
        let control = ControlService { token_file, ..control.clone() };
        let body = Bytes::from(json!({"route": route}).to_string());
        Ok(control_service::post(&control, Some(&replica.to_string()), TOKEN_PATH, body).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_tokens_of_the_operators_identity_for_their_own_route_alone() -> Result<()> {
    let stage = Stage::set().await?;
    refuses_to_be_led_elsewhere(&stage).await?;

    stage.apply(&stage.other, &lent::route("notifications")).await?;
    let told = stage.accepted(&stage.other, "notifications", Reason::OperatorIdentityNotAllowed).await?;
    ensure!(told.contains(stage.other.name()) && told.contains("broker.applications"), "{told}");

    stage.apply(&stage.allowed, &lent::route("notifications")).await?;
    stage.accepted(&stage.allowed, "notifications", Reason::Accepted).await?;
    let file = stage.rendered("notifications").await?;
    let Method::ClientSubmission(submission) = &file.method else { anyhow::bail!("another method") };
    ensure!(matches!(submission.credential, Credential::Operator { .. }), "{submission:?}");
    ensure!(submission.endpoint.host == "smtp.m365.example" && submission.endpoint.ca_pem.is_some());
    let control = file.control.context("the control service is known")?;

    let (web, batch) = (stage.pod("web", "notifications").await?, stage.pod("batch", "reports").await?);
    for replica in &stage.replicas {
        // The pod is on its way into the replica's cache.
        until(async || {
            let answer = stage.ask(*replica, &web, &control, "notifications").await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            let reply: TokenReply = serde_json::from_slice(&answer.body)?;
            ensure!(reply.expires_in > 3000, "{reply:?}");
            Ok(())
        })
        .await?;
        let answer = stage.ask(*replica, &batch, &control, "notifications").await?;
        let refusal: TokenRefusal = serde_json::from_slice(&answer.body)?;
        ensure!((answer.status, refusal.reason) == (403, Reason::OperatorRefused), "{refusal:?}");
    }
    let exchanges = stage.m365.exchanges();
    let operator = format!("system:serviceaccount:{}:{}", release::NAMESPACE, release::NAME);
    ensure!(exchanges.len() == 2, "one for each replica: {exchanges:#?}");
    for exchange in &exchanges {
        ensure!(exchange.assertion_subject.as_deref() == Some(&operator), "{exchange:?}");
        ensure!(exchange.outcome == "Issued", "{exchange:?}");
    }
    stage.other.finish()?;
    stage.allowed.finish()
}

async fn refuses_to_be_led_elsewhere(stage: &Stage) -> Result<()> {
    for (pointer, value) in [
        ("endpoint", json!({"host": "smtp.evil.example"})),
        ("tenant", json!({"id": workload::TENANT, "authority": {"host": "login.evil.example"}})),
    ] {
        let mut route = lent::route("led");
        route["spec"][pointer] = value;
        let refused = stage.apply(&stage.allowed, &route).await.err().context("it was taken")?;
        ensure!(format!("{refused:#}").contains("the platform decides"), "{refused:#}");
    }
    Ok(())
}
