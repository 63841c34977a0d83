//! The operator on a control plane: replicas of the whole program, in this process, with the rights of the chart's
//! ServiceAccount and nothing more, behind the chart's own Service, webhook configuration and Lease.
//!
//! Pods do not run on this tier; they are made, and what the webhook adds to them is seen.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mailroute_operator::args::{Cli, Command, Run};
use mailroute_operator::crd::MailRoute;
use mailroute_operator::pki::{Lifetimes, trust};
use mailroute_operator::{app, logging};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{release, workload};
use crate::{Cluster, Namespace, Tier};

/// Name under which scenarios apply their manifests.
const FIELD_MANAGER: &str = "scene";

/// How long a replica may take to get where a test waits for it. Seconds are enough; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// First ports of the replicas, on an address that is the cluster's own.
const WEBHOOK: u16 = 9440;
const CONTROL: u16 = 9450;
const ADMIN: u16 = 9460;

/// Pods that are made after what was waited for.
const AFTERWARDS: u32 = 5;

/// Pause between two questions, where there is nothing to watch.
const AGAIN: Duration = Duration::from_millis(50);

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
    /// Where it answers probes and Prometheus.
    pub admin: SocketAddr,
    stop: watch::Sender<bool>,
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
        let host = IpAddr::V4(cluster.description().context("a cluster of one's own")?.host);
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
        let flags = self.run(number)?;
        let (webhook, admin) = (flags.webhook_listen, flags.admin_listen);
        let client = match client {
            Some(client) => client,
            None => client_of_the_chart(&self.cluster).await?,
        };
        let (stop, stopped) = watch::channel(false);
        self.running.spawn(app::replica(flags, client, self.lifetimes, stopped));
        self.replicas.push(Replica { webhook, admin, stop });
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
        self.put_behind_the_service(self.replicas.len(), replica.webhook).await
    }

    /// Puts the address of a webhook behind the Service, and waits until API servers have learnt of it.
    ///
    /// # Errors
    /// When no pod comes out with its sidecar.
    pub async fn put_behind_the_service(&self, number: usize, webhook: SocketAddr) -> Result<()> {
        announce(&self.cluster, number, webhook).await?;
        until(async || self.admit().await).await.context("pods are not admitted")
    }

    /// The command line of a replica, whose ports are its own on the cluster's own address of this machine.
    pub fn arguments(&self, number: u16) -> Vec<String> {
        let replica = self.outside(number);
        let control = SocketAddr::new(self.host, CONTROL + number);
        let line = [
            ["--namespace".into(), release::NAMESPACE.into()],
            ["--pod-name".into(), format!("operator-{number}")],
            ["--pod-ip".into(), self.host.to_string()],
            ["--sidecar-image".into(), "mailroute.dev/sidecar:0.1.0".into()],
            ["--webhook-listen".into(), replica.webhook.to_string()],
            ["--control-listen".into(), control.to_string()],
            ["--admin-listen".into(), replica.admin.to_string()],
        ];
        let own = self.flags.iter().cloned();
        ["run".to_owned()].into_iter().chain(line.concat()).chain(own).collect()
    }

    /// A replica that somebody else starts with those arguments, and stops.
    pub fn outside(&self, number: u16) -> Replica {
        let at = |port: u16| SocketAddr::new(self.host, port + number);
        Replica { webhook: at(WEBHOOK), admin: at(ADMIN), stop: watch::channel(false).0 }
    }

    /// A kubeconfig with a token of the chart's ServiceAccount, as JSON.
    ///
    /// # Errors
    /// When there is no such ServiceAccount.
    pub async fn kubeconfig_of_the_chart(&self) -> Result<String> {
        let mut file = serde_json::to_value(Kubeconfig::read_from(self.cluster.kubeconfig())?)?;
        let token = token_of_the_chart(&self.cluster).await?;
        for user in file["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({"token": token});
        }
        Ok(file.to_string())
    }

    fn run(&self, number: u16) -> Result<Run> {
        let line = std::iter::once("mailroute-operator".to_owned()).chain(self.arguments(number));
        match <Cli as clap::Parser>::try_parse_from(line)?.command {
            Command::Run(flags) => Ok(*flags),
            other => anyhow::bail!("not the flags of run: {other:?}"),
        }
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
        let configuration = self.configurations().get(release::NAME).await?;
        let bundle = trust::live_pem(&configuration).unwrap_or_default();
        let bundle = mailroute_operator::pki::anchors::Anchors::from_pem(&bundle);
        let mut config = Config::new(format!("https://{webhook}").parse()?);
        config.root_cert = Some(bundle.iter().map(|certificate| certificate.to_vec()).collect());
        config.tls_server_name = Some(format!("{}.{}.svc", release::NAME, release::NAMESPACE));
        Ok(Client::try_from(config)?)
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
    /// What `/metrics` says of the first metric whose line begins so; nothing when there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, line: &str) -> Result<Option<f64>> {
        let text = page(self.admin, "/metrics").await?.1;
        let found = text.lines().find(|candidate| candidate.starts_with(line));
        Ok(found.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()))
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

/// A labelled pod without a name, as a Deployment's controller makes one.
pub fn labelled_pod() -> Value {
    let mut pod = workload::pod("", "notifications", &workload::pod_spec("true"));
    pod["metadata"] = json!({"generateName": "web-", "labels": pod["metadata"]["labels"]});
    pod
}

/// The question that an API server asks about a pod.
pub fn review(namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// Asks a replica directly, and sees to it that the answer has a patch.
///
/// # Errors
/// When there is no such answer.
pub async fn ask(reviewer: &Client, review: &Value) -> Result<()> {
    let request = hyper::Request::post("/inject").header("content-type", "application/json");
    let answer = reviewer.send(request.body(Body::from(serde_json::to_vec(review)?))?).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    ensure!(answer.pointer("/response/patch").is_some(), "no patch: {answer}");
    Ok(())
}

/// Asks again, as there is nothing to watch, until the answer is good.
///
/// # Errors
/// The last answer, when none was good in time.
pub async fn until(mut ask: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// The warnings about an object with this reason: how often each was told, and what it says.
///
/// # Errors
/// When Events cannot be listed.
pub async fn warnings(client: Client, name: &str, reason: &str) -> Result<Vec<(i32, String)>> {
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(client);
    let told = events.list(&ListParams::default()).await?.items.into_iter().filter(|event| {
        event.reason.as_deref() == Some(reason)
            && event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(name)
    });
    Ok(told
        .map(|event| {
            let times = event.series.map_or(1, |series| series.count);
            (times, event.note.unwrap_or_default())
        })
        .collect())
}

/// The chart as it is, apart from its Service: pods do not run here, so the endpoints are made by hand.
async fn install_chart(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let chart = release::repository().join("charts/mailroute").display().to_string();
    let install = ["install", release::NAME, &chart, "--namespace", release::NAMESPACE, "--create-namespace"];
    cluster.helm(&[&install[..], values].concat()).await?;
    let services: Api<Service> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let without_selector = Patch::Merge(json!({"spec": {"selector": null}}));
    services.patch(release::NAME, &PatchParams::default(), &without_selector).await?;
    Ok(())
}

/// A client with a token of the chart's ServiceAccount in place of the certificate that may do everything.
///
/// # Errors
/// When there is no such ServiceAccount.
pub async fn client_of_the_chart(cluster: &Cluster) -> Result<Client> {
    let token = token_of_the_chart(cluster).await?;
    let file = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok(Client::try_from(config)?)
}

async fn token_of_the_chart(cluster: &Cluster) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request(release::NAME, &PostParams::default(), &request).await?;
    Ok(granted.status.context("a granted token")?.token)
}

/// Waits until a replica says that it may be sent requests, as a kubelet does: by asking.
async fn is_ready(admin: SocketAddr) -> Result<()> {
    let asked = until(async || {
        let (code, text) = page(admin, "/readyz").await?;
        ensure!(code == 200, "it answers {code}: {text}");
        Ok(())
    });
    asked.await.with_context(|| format!("the replica at {admin} does not become ready"))
}

/// Puts an address behind the Service.
async fn announce(cluster: &Cluster, number: usize, webhook: SocketAddr) -> Result<()> {
    let name = format!("mailroute-{number}");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": release::NAME}},
        "addressType": "IPv4",
        "ports": [{"name": "webhook", "port": webhook.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [webhook.ip()], "conditions": {"ready": true}}],
    });
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client(), release::NAMESPACE);
    slices.patch(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(slice)).await?;
    Ok(())
}

/// A page of the admin service: status and text. The Kubernetes client would ask again after a 503.
async fn page(admin: SocketAddr, path: &str) -> Result<(u16, String)> {
    let stream = TokioIo::new(TcpStream::connect(admin).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let asked = hyper::Request::get(path).header("host", "operator").body(Empty::<Bytes>::new())?;
    let answered = async {
        let answer = sender.send_request(asked).await?;
        let code = answer.status().as_u16();
        let text = answer.into_body().collect().await?.to_bytes().to_vec();
        Ok((code, String::from_utf8(text)?))
    };
    tokio::select! {
        answered = answered => answered,
        ended = connection => anyhow::bail!("the connection ended: {ended:?}"),
    }
}

/// The status of an answer.
async fn status(client: &Client, path: &str) -> Result<u16> {
    let request = hyper::Request::get(path).body(Body::empty())?;
    Ok(client.send(request).await?.status().as_u16())
}

/// Fifteen seconds for an authority and three for a leaf, so that a rotation takes ten.
///
/// # Errors
/// None: it is known to fit.
pub fn short_lives() -> Result<Lifetimes> {
    let [authority, leaf, settle] = [15_000, 3_000, 1_500].map(Duration::from_millis);
    Ok(Lifetimes::new(authority, leaf, settle)?)
}
