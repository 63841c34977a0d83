//! Replicas on a control plane, with a namespace and a MailRoute to serve: pods are made while certificates, authorities and
//! replicas come and go.
//!
//! Pods do not run on this tier; they are made, and what the webhook adds to them is seen.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use mailroute_operator::pki::{Lifetimes, trust};
use mailroute_operator::{admin, app, logging};
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::asking::{page, status, until};
use super::{FIELD_MANAGER, Place, announce, client_of_the_chart, install_chart, is_ready, parse};
use crate::scene::{PATIENCE, release, workload};
use crate::{Cluster, Namespace, Tier};

/// Pods that are made after what was waited for.
const AFTERWARDS: u32 = 5;

/// A control plane with the chart on it, and a namespace with one MailRoute, `notifications`.
pub struct Stage {
    /// The cluster, of one's own.
    pub cluster: Cluster,
    /// Where pods are made.
    pub namespace: Namespace,
    /// This machine as the cluster sees it.
    host: IpAddr,
    /// Flags that each replica gets beside those that tell it who it is.
    flags: Vec<String>,
    lifetimes: Lifetimes,
    /// The replicas, in the order in which they started.
    pub replicas: Vec<Replica>,
    running: JoinSet<Result<()>>,
}

/// One replica.
#[derive(Clone)]
pub struct Replica {
    /// Where it answers the webhook.
    pub webhook: SocketAddr,
    /// Where it answers sidecars.
    pub control: SocketAddr,
    /// Where it answers probes and Prometheus.
    pub admin: SocketAddr,
    stop: watch::Sender<bool>,
    /// The page of metrics that was seen last.
    seen: Arc<Mutex<String>>,
}

impl Stage {
    /// Starts a control plane and installs the charts with these arguments of Helm. No replica runs yet.
    ///
    /// # Errors
    /// When the control plane does not start, or the charts cannot be installed.
    pub async fn set(values: &[&str], flags: &[&str], lifetimes: Lifetimes) -> Result<Self> {
        let cluster = Cluster::start(Tier::ControlPlane).await?;
        Self::on(cluster, values, flags, lifetimes).await
    }

    /// The same on a cluster that is up.
    ///
    /// # Errors
    /// When the charts cannot be installed.
    pub async fn on(cluster: Cluster, values: &[&str], flags: &[&str], lifetimes: Lifetimes) -> Result<Self> {
        // A test that fails shows what the replicas said.
        logging::start(logging::Format::Text, tracing::Level::INFO);
        release::install_definitions(&cluster).await?;
        install_chart(&cluster, values).await?;
        let namespace = cluster.namespace("stage", &[]).await?;
        let routes: Api<MailRoute> = Api::namespaced(cluster.client(), namespace.name());
        let route = Patch::Apply(workload::route("notifications", namespace.name()));
        routes.patch("notifications", &PatchParams::apply(FIELD_MANAGER), &route).await?;
        let host = super::host(&cluster)?;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Ok(Self { cluster, namespace, host, flags, lifetimes, replicas: Vec::new(), running: JoinSet::new() })
    }

    /// A client with every right.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Starts one more replica, which calls the API server with `client` or else as the chart's ServiceAccount, and puts
    /// it behind the Service as soon as it is ready. Returns at once.
    ///
    /// # Errors
    /// When it cannot be given a client.
    pub async fn start(&mut self, client: Option<Client>) -> Result<&Replica> {
        let number = u16::try_from(self.replicas.len())?;
        let flags = parse(self.arguments(number))?;
        let (webhook, control, admin) = (flags.webhook_listen, flags.control_listen, flags.admin_listen);
        let client = match client {
            Some(client) => client,
            None => client_of_the_chart(&self.cluster).await?,
        };
        let (stop, stopped) = watch::channel(false);
        self.running.spawn(app::replica(flags, client, self.lifetimes, stopped));
        self.replicas.push(Replica { webhook, control, admin, stop, seen: Arc::default() });
        self.replicas.last().context("it was just added")
    }

    /// Starts a replica, waits until it is ready, and puts it behind the Service.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn serve(&mut self, client: Option<Client>) -> Result<()> {
        let admin = self.start(client).await?.admin;
        is_ready(admin).await?;
        self.announce().await
    }

    /// Puts the newest replica behind the Service, and waits until API servers have learnt of it.
    ///
    /// # Errors
    /// When no pod comes out with its sidecar.
    pub async fn announce(&self) -> Result<()> {
        let replica = self.replicas.last().context("a replica")?;
        self.put_behind_the_service(u16::try_from(self.replicas.len())?, replica.webhook).await
    }

    /// Puts the address of a webhook behind the Service, and waits until API servers have learnt of it.
    ///
    /// # Errors
    /// When no pod comes out with its sidecar.
    pub async fn put_behind_the_service(&self, number: u16, webhook: SocketAddr) -> Result<()> {
        announce(&self.cluster, number, webhook).await?;
        until(async || self.admit().await).await.context("pods are not admitted")
    }

    /// The command line of a replica, whose ports are its own on the cluster's own address of this machine.
    pub fn arguments(&self, number: u16) -> Vec<String> {
        Place::of(self.host, number).arguments(&self.flags)
    }

    /// A replica that somebody else starts with those arguments, and stops.
    pub fn outside(&self, number: u16) -> Replica {
        Replica::outside(self.host, number)
    }

    /// A kubeconfig with a token of the chart's ServiceAccount, as JSON.
    ///
    /// # Errors
    /// When there is no such ServiceAccount.
    pub async fn kubeconfig_of_the_chart(&self) -> Result<String> {
        let mut file = serde_json::to_value(Kubeconfig::read_from(self.cluster.kubeconfig())?)?;
        let token = super::token_of_the_chart(&self.cluster).await?;
        for user in file["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({"token": token});
        }
        Ok(file.to_string())
    }

    /// Makes a labelled pod for real, and sees to it that it came out with the sidecar.
    ///
    /// # Errors
    /// When it is refused, or came out without.
    pub async fn admit(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace.name());
        let made = pods.create(&PostParams::default(), &serde_json::from_value(labelled_pod())?).await?;
        let containers = made.spec.as_ref().and_then(|spec| spec.init_containers.as_deref());
        let has_it = containers.unwrap_or_default().iter().any(|container| container.name == "mailroute");
        ensure!(has_it, "came out without the sidecar");
        let name = made.metadata.name.context("a stored pod has a name")?;
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Makes pods one after the other until `done` is, and some more, and counts them. The first one that is not admitted
    /// ends it.
    ///
    /// # Errors
    /// When a pod is not admitted, a handshake with a replica fails, `done` fails, or a replica ends.
    pub async fn admit_until<T>(&mut self, done: impl Future<Output = Result<T>>) -> Result<(T, u32)> {
        tokio::pin!(done);
        let (mut admitted, mut running) = (0, std::mem::take(&mut self.running));
        let done = loop {
            tokio::select! {
                done = &mut done => break done?,
                outcome = self.admit_and_greet() => {
                    outcome.with_context(|| format!("after {admitted} admissions"))?;
                    admitted += 1;
                }
                Some(ended) = running.join_next() => anyhow::bail!("a replica ended: {ended:?}"),
            }
        };
        self.running = running;
        for _ in 0..AFTERWARDS {
            self.admit_and_greet().await.context("afterwards")?;
        }
        Ok((done, admitted))
    }

    /// One pod by way of the API server, and a handshake with each replica.
    async fn admit_and_greet(&self) -> Result<()> {
        self.admit().await?;
        for replica in &self.replicas {
            self.is_trusted(replica.webhook).await?;
        }
        Ok(())
    }

    /// A handshake as the API server makes it: with the bundle that is published now, for the name of the Service.
    async fn is_trusted(&self, webhook: SocketAddr) -> Result<()> {
        let reviewer = self.reviewer(webhook).await?;
        // A client of its own makes a connection of its own.
        let answer = status(&reviewer, "/inject").await;
        let code = answer.with_context(|| format!("{webhook} is not trusted under the published bundle"))?;
        ensure!(code == 405, "GET is answered {code}");
        Ok(())
    }

    /// A client that calls a replica's webhook as the API server does.
    ///
    /// # Errors
    /// When the webhook configuration cannot be read.
    pub async fn reviewer(&self, webhook: SocketAddr) -> Result<Client> {
        Ok(Client::try_from(self.reviewer_config(webhook).await?)?)
    }

    /// The configuration of such a client; each client that is made of it has connections of its own.
    ///
    /// # Errors
    /// When the webhook configuration cannot be read.
    pub async fn reviewer_config(&self, webhook: SocketAddr) -> Result<Config> {
        let configuration = self.configurations().get(release::NAME).await?;
        reviewer_config(&trust::live_pem(&configuration).unwrap_or_default(), webhook)
    }

    /// The webhook configurations.
    pub fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client())
    }

    /// Tells the first replica to stop and says how it ended, and how long that took.
    ///
    /// # Errors
    /// When it ends with an error, or not within the test's patience.
    pub async fn stop_first(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.replicas.first().context("a replica")?.stop.send_replace(true);
        let ended = tokio::time::timeout(PATIENCE, self.running.join_next()).await;
        ended.context("it does not stop")?.context("it was running")???;
        Ok(began.elapsed())
    }
}

impl Replica {
    /// One that somebody else starts and stops.
    pub(super) fn outside(host: IpAddr, number: u16) -> Self {
        let Place { webhook, control, admin, .. } = Place::of(host, number);
        Self { webhook, control, admin, stop: watch::channel(false).0, seen: Arc::default() }
    }

    /// What `/metrics` says of the first metric whose line begins so; nothing when there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, line: &str) -> Result<Option<f64>> {
        let text = self.metrics().await?;
        let found = text.lines().find(|candidate| candidate.starts_with(line));
        Ok(found.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()))
    }

    /// The sum of all metrics whose line begins so.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn sum(&self, beginning: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let lines = text.lines().filter(|line| line.starts_with(beginning));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The page of metrics as it is now. The operator prints it once a second: one that was seen before is asked for again
    /// when it is too old to be shown once more.
    async fn metrics(&self) -> Result<String> {
        let mut text = page(self.admin, "/metrics").await?.1;
        if *self.seen.lock().await == text {
            tokio::time::sleep(admin::PRINTED).await;
            text = page(self.admin, "/metrics").await?.1;
        }
        self.seen.lock().await.clone_from(&text);
        Ok(text)
    }

    /// Waits until `/readyz` answers with this status, and returns what it said then.
    ///
    /// # Errors
    /// When it does not.
    pub async fn readiness(&self, wanted: u16) -> Result<String> {
        let mut said = String::new();
        until(async || {
            let (code, text) = page(self.admin, "/readyz").await?;
            ensure!(code == wanted, "it answers {code}: {text}");
            said = text;
            Ok(())
        })
        .await
        .with_context(|| format!("/readyz does not become {wanted}"))?;
        Ok(said)
    }
}

/// The configuration of a client that calls a webhook as an API server does, under this bundle.
///
/// # Errors
/// None: an address is one of a URL.
pub fn reviewer_config(bundle: &str, webhook: SocketAddr) -> Result<Config> {
    let bundle = mailroute_operator::pki::anchors::Anchors::from_pem(bundle);
    let mut config = Config::new(format!("https://{webhook}").parse()?);
    config.root_cert = Some(bundle.iter().map(|certificate| certificate.to_vec()).collect());
    config.tls_server_name = Some(format!("{}.{}.svc", release::NAME, release::NAMESPACE));
    Ok(config)
}

/// A labelled pod without a name, as a Deployment's controller makes one.
pub fn labelled_pod() -> Value {
    let mut pod = workload::pod("", "notifications", &workload::pod_spec("true"));
    pod["metadata"] = json!({"generateName": "web-", "labels": pod["metadata"]["labels"]});
    pod
}

/// Fifteen seconds for an authority and three for a leaf, so that a rotation takes ten.
///
/// # Errors
/// None: it is known to fit.
pub fn short_lives() -> Result<Lifetimes> {
    let [authority, leaf, settle] = [15_000, 3_000, 1_500].map(Duration::from_millis);
    Ok(Lifetimes::new(authority, leaf, settle)?)
}
