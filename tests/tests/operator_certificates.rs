//! The operator's certificates on a real API server: two replicas of the whole program, with the rights of the chart's
//! ServiceAccount and nothing more, while authorities follow one another within seconds.
//!
//! The replicas run in this process, behind the chart's own Service, webhook configuration and Lease.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::{announce, client_of_the_chart, flags, install_chart, is_ready, status, until};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Namespace, Tier, wait_for};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use mailroute_operator::app;
use mailroute_operator::crd::MailRoute;
use mailroute_operator::pki::bundle::Bundle;
use mailroute_operator::pki::{Lifetimes, trust};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Name under which the test applies its manifests.
const FIELD_MANAGER: &str = "test";

/// Fifteen seconds for an authority and three for a leaf, so that a rotation takes ten.
fn lifetimes() -> Result<Lifetimes> {
    let [authority, leaf, settle] = [15_000, 3_000, 1_500].map(Duration::from_millis);
    Ok(Lifetimes::new(authority, leaf, settle)?)
}

/// A control plane with the chart, and two replicas of the operator that serve it.
struct Stage {
    cluster: Cluster,
    /// Where pods are made.
    namespace: Namespace,
    /// Where the replicas answer the webhook.
    webhooks: Vec<SocketAddr>,
    replicas: JoinSet<Result<()>>,
    /// Dropped, it would stop the replicas.
    _stop: watch::Sender<bool>,
}

impl Stage {
    async fn set() -> Result<Self> {
        let cluster = Cluster::start(Tier::ControlPlane).await?;
        release::install_definitions(&cluster).await?;
        install_chart(&cluster, &[]).await?;
        let namespace = cluster.namespace("rotation", &[]).await?;
        let routes: Api<MailRoute> = Api::namespaced(cluster.client(), namespace.name());
        let route = Patch::Apply(workload::route("notifications", namespace.name()));
        routes.patch("notifications", &PatchParams::apply(FIELD_MANAGER), &route).await?;

        let (mut webhooks, mut replicas) = (Vec::new(), JoinSet::new());
        let (stop, stopped) = watch::channel(false);
        for number in 0..2 {
            let flags = flags(&cluster, number, &[])?;
            let (webhook, admin) = (flags.webhook_listen, flags.admin_listen);
            let client = client_of_the_chart(&cluster).await?;
            replicas.spawn(app::replica(flags, client, lifetimes()?, stopped.clone()));
            is_ready(admin).await?;
            announce(&cluster, number, webhook).await?;
            webhooks.push(webhook);
        }
        let stage = Self { cluster, namespace, webhooks, replicas, _stop: stop };
        stage.admits().await?;
        Ok(stage)
    }

    fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Makes a labelled pod for real, and sees to it that it came out with the sidecar.
    async fn admit(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace.name());
        let mut pod = workload::pod("", "notifications", &workload::pod_spec("true"));
        pod["metadata"] = json!({"generateName": "web-", "labels": pod["metadata"]["labels"]});
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let containers =
            made.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        ensure!(
            containers.iter().any(|container| container.name == "mailroute"),
            "came out without the sidecar"
        );
        let name = made.metadata.name.context("a stored pod has a name")?;
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Waits until the API server has learnt of what was written a moment before: the endpoints, or the bundle.
    async fn admits(&self) -> Result<()> {
        until(async || self.admit().await).await.context("pods are not admitted")
    }

    /// One pod by way of the API server, and a handshake with each replica.
    async fn admit_and_greet(&self) -> Result<()> {
        self.admit().await?;
        for webhook in &self.webhooks {
            is_trusted(&self.cluster, *webhook).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_authority_fails_no_admission() -> Result<()> {
    let mut stage = Stage::set().await?;
    let first = published(&configurations(&stage.cluster).get(release::NAME).await?);
    let is_over = |configuration: &MutatingWebhookConfiguration| {
        let now = published(configuration);
        !now.is_empty() && !first.iter().any(|authority| now.contains(authority))
    };
    let rotated = wait_for(configurations(&stage.cluster), release::NAME, is_over, PATIENCE);
    tokio::pin!(rotated);
    let (mut admitted, mut replicas) = (0, std::mem::take(&mut stage.replicas));
    loop {
        tokio::select! {
            over = &mut rotated => break drop(over?),
            outcome = stage.admit_and_greet() => {
                outcome.with_context(|| format!("after {admitted} admissions"))?;
                admitted += 1;
            }
            Some(ended) = replicas.join_next() => anyhow::bail!("a replica ended: {ended:?}"),
        }
    }
    // Until it ends, leaves that it has signed may be served.
    let early = first.iter().find(|authority| authority.not_after() > Timestamp::now());
    ensure!(early.is_none(), "an authority left the bundle before it ended: {early:?}");
    ensure!(admitted > 50, "only {admitted} pods were made while the authority changed");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_bundle_is_filled_again() -> Result<()> {
    let stage = Stage::set().await?;
    let emptied = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]);
    let emptied = Patch::Json::<()>(serde_json::from_value(emptied)?);
    let params = PatchParams::default();
    let left = configurations(&stage.cluster).patch(release::NAME, &params, &emptied).await?;
    ensure!(published(&left).is_empty(), "the bundle was not emptied");
    let filled = |configuration: &MutatingWebhookConfiguration| !published(configuration).is_empty();
    wait_for(configurations(&stage.cluster), release::NAME, filled, PATIENCE).await?;
    stage.admits().await?;
    stage.namespace.finish()
}

/// A handshake as the API server makes it: with the bundle that is published now, for the name of the Service.
async fn is_trusted(cluster: &Cluster, webhook: SocketAddr) -> Result<()> {
    let bundle = published(&configurations(cluster).get(release::NAME).await?);
    let mut config = Config::new(format!("https://{webhook}").parse()?);
    config.root_cert = Some(bundle.iter().map(|authority| authority.der().to_vec()).collect());
    config.tls_server_name = Some(format!("{}.{}.svc", release::NAME, release::NAMESPACE));
    // A client of its own makes a connection of its own.
    let answer = status(&Client::try_from(config)?, "/inject").await;
    let code = answer.with_context(|| format!("{webhook} is not trusted under the published bundle"))?;
    ensure!(code == 405, "GET is answered {code}");
    Ok(())
}

fn configurations(cluster: &Cluster) -> Api<MutatingWebhookConfiguration> {
    Api::all(cluster.client())
}

fn published(configuration: &MutatingWebhookConfiguration) -> Bundle {
    trust::live(configuration).unwrap_or_default()
}
