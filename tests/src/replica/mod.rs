//! Replicas of the whole operator in this process, behind the chart's own Service, webhook configuration and Lease, with
//! the rights of the chart's `ServiceAccount` and nothing more. A control plane is enough for it: pods do not run there.
//!
//! * [`Running`]: one replica that a test starts with flags of its own, and sends requests to.
//! * [`stage`]: replicas that come and go while pods are made.
//! * [`program`]: the operator as a process of its own, watched from outside.
//! * [`asking`]: until an answer is good, as nothing can be watched.

pub mod asking;
pub mod program;
pub mod stage;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Endpoints, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mailroute_operator::app;
use mailroute_operator::args::{Cli, Command, Run};
use mailroute_operator::pki::Lifetimes;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::asking::page;
pub use self::asking::until;
use crate::Cluster;
use crate::scene::release;

/// Name under which manifests are applied here.
const FIELD_MANAGER: &str = "replica";

/// Installs the chart as it is, apart from its Service: pods do not run here, so the endpoints are made by hand
/// ([`announce`]).
///
/// # Errors
/// Helm's and the API server's.
pub async fn install_chart(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let chart = release::repository().join("charts/mailroute").display().to_string();
    let install = ["install", release::NAME, &chart, "--namespace", release::NAMESPACE, "--create-namespace"];
    cluster.helm(&[&install, arguments].concat()).await?;
    let services: Api<Service> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let without_selector = Patch::Merge(json!({"spec": {"selector": null}}));
    services.patch(release::NAME, &PatchParams::default(), &without_selector).await?;
    Ok(())
}

/// Where a replica is: on the cluster's own address of this machine, at ports of its own.
struct Place {
    name: String,
    host: IpAddr,
    webhook: SocketAddr,
    control: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    fn of(host: IpAddr, number: u16) -> Self {
        let at = |port: u16| SocketAddr::new(host, port + number);
        let name = format!("operator-{number}");
        Self { name, host, webhook: at(9440), control: at(9450), admin: at(9460) }
    }

    /// The command line of the program, without its name.
    fn arguments<T: AsRef<str>>(&self, more: &[T]) -> Vec<String> {
        let line = [
            ["--namespace", release::NAMESPACE],
            ["--pod-name", &self.name],
            ["--pod-ip", &self.host.to_string()],
            ["--sidecar-image", "mailroute.dev/sidecar:0.1.0"],
            ["--webhook-listen", &self.webhook.to_string()],
            ["--control-listen", &self.control.to_string()],
            ["--admin-listen", &self.admin.to_string()],
        ];
        let more: Vec<&str> = more.iter().map(AsRef::as_ref).collect();
        // Pods do not run on this tier, so they have no addresses but those that a test gives them.
        let unchecked = ["--check-source-address", "false"];
        let address = if more.contains(&unchecked[0]) { &[][..] } else { &unchecked };
        let all = line.concat().into_iter().chain(address.iter().copied()).chain(more);
        ["run"].into_iter().chain(all).map(str::to_owned).collect()
    }
}

/// This machine as the cluster sees it.
fn host(cluster: &Cluster) -> Result<IpAddr> {
    Ok(cluster.description().context("a cluster of one's own")?.host)
}

fn parse(arguments: Vec<String>) -> Result<Run> {
    let line = ["mailroute-operator".to_owned()].into_iter().chain(arguments);
    match <Cli as clap::Parser>::try_parse_from(line)?.command {
        Command::Run(flags) => Ok(*flags),
        other => bail!("not the flags of run: {other:?}"),
    }
}

/// The command line of replica `number`, whose ports are its own on the cluster's own address of this machine.
///
/// # Errors
/// When the command line is refused, or the cluster is not this harness's.
pub fn flags(cluster: &Cluster, number: u16, more: &[&str]) -> Result<Run> {
    parse(Place::of(host(cluster)?, number).arguments(more))
}

/// A replica in this process, until it is dropped.
pub struct Running {
    /// Its command line.
    pub flags: Run,
    stop: watch::Sender<bool>,
    task: JoinSet<Result<()>>,
}

impl Running {
    /// Starts a replica as the chart's `ServiceAccount`, and waits until it may be sent requests.
    ///
    /// # Errors
    /// When it is not given a token, or does not become ready.
    pub async fn start(cluster: &Cluster, flags: Run, lifetimes: Lifetimes) -> Result<Self> {
        let client = client_of_the_chart(cluster).await?;
        let ((stop, stopped), mut task) = (watch::channel(false), JoinSet::new());
        task.spawn(app::replica(flags.clone(), client, lifetimes, stopped));
        is_ready(flags.admin_listen).await?;
        Ok(Self { flags, stop, task })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.task.try_join_next().is_some()
    }

    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    /// The replica's.
    pub async fn end(mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.task.join_next().await.context("it was running")??
    }

    /// Ends it at once, as a process that is killed.
    pub async fn kill(mut self) {
        self.task.shutdown().await;
    }
}

/// A client with a token of the chart's `ServiceAccount` in place of the certificate that may do everything.
///
/// # Errors
/// The API server's.
pub async fn client_of_the_chart(cluster: &Cluster) -> Result<Client> {
    client_as(cluster, release::NAME).await
}

/// A client with a token of a `ServiceAccount` of the release's namespace.
///
/// # Errors
/// The API server's.
pub async fn client_as(cluster: &Cluster, account: &str) -> Result<Client> {
    let token = token_of(cluster, account).await?;
    let file = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok(Client::try_from(config)?)
}

async fn token_of_the_chart(cluster: &Cluster) -> Result<String> {
    token_of(cluster, release::NAME).await
}

async fn token_of(cluster: &Cluster, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request(account, &PostParams::default(), &request).await?;
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

/// Puts a replica behind the Service.
///
/// # Errors
/// The API server's.
pub async fn announce(cluster: &Cluster, number: u16, webhook: SocketAddr) -> Result<()> {
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
    mirror(cluster, &slices).await
}

/// Writes the slices' addresses as Endpoints, too, which API servers before Kubernetes 1.34 look at when they call a webhook.
async fn mirror(cluster: &Cluster, slices: &Api<EndpointSlice>) -> Result<()> {
    let own = ListParams::default().labels(&format!("kubernetes.io/service-name={}", release::NAME));
    let subset = |slice: &EndpointSlice| {
        let addresses: Vec<_> =
            slice.endpoints.iter().flat_map(|it| &it.addresses).map(|ip| json!({"ip": ip})).collect();
        // The slice of the Service's own pods has none here, and a subset needs some.
        (!addresses.is_empty()).then(|| json!({"addresses": addresses, "ports": slice.ports}))
    };
    let subsets: Vec<_> = slices.list(&own).await?.iter().filter_map(subset).collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": release::NAME}, "subsets": subsets});
    let all: Api<Endpoints> = Api::namespaced(cluster.client(), release::NAMESPACE);
    all.patch(release::NAME, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(endpoints)).await?;
    Ok(())
}
