//! Replicas of the whole operator in this process, behind the chart's own Service, webhook configuration and Lease, with
//! the rights of the chart's `ServiceAccount` and nothing more. A control plane is enough for it: pods do not run there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mailroute_operator::args::{Cli, Command, Run};
use serde_json::json;

use crate::Cluster;
use crate::scene::{PATIENCE, release};

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

/// The command line of replica `number`, whose ports are its own on the cluster's own address of this machine.
///
/// # Errors
/// When the command line is refused, or the cluster is not this harness's.
pub fn flags(cluster: &Cluster, number: u16, more: &[&str]) -> Result<Run> {
    let host = IpAddr::V4(cluster.description().context("a cluster of one's own")?.host);
    let at = |port: u16| SocketAddr::new(host, port + number).to_string();
    let (name, host) = (format!("operator-{number}"), host.to_string());
    let (webhook, control, admin) = (at(9440), at(9450), at(9460));
    let line = [
        ["--namespace", release::NAMESPACE],
        ["--pod-name", &name],
        ["--pod-ip", &host],
        ["--sidecar-image", "mailroute.dev/sidecar:0.1.0"],
        ["--webhook-listen", &webhook],
        ["--control-listen", &control],
        ["--admin-listen", &admin],
    ];
    let line = ["mailroute-operator", "run"].into_iter().chain(line.concat()).chain(more.iter().copied());
    match <Cli as clap::Parser>::try_parse_from(line)?.command {
        Command::Run(flags) => Ok(*flags),
        other => bail!("not the flags of run: {other:?}"),
    }
}

/// A client with a token of the chart's `ServiceAccount` in place of the certificate that may do everything.
///
/// # Errors
/// The API server's.
pub async fn client_of_the_chart(cluster: &Cluster) -> Result<Client> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request(release::NAME, &PostParams::default(), &request).await?;
    let token = granted.status.context("a granted token")?.token;
    let file = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok(Client::try_from(config)?)
}

/// Waits until a replica says that it may be sent requests, as a kubelet does: by asking.
///
/// # Errors
/// When it does not within [`PATIENCE`].
pub async fn is_ready(admin: SocketAddr) -> Result<()> {
    let client = Client::try_from(Config::new(format!("http://{admin}").parse()?))?;
    let asked = until(async || {
        let code = status(&client, "/readyz").await?;
        ensure!(code == 200, "it answers {code}");
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
    Ok(())
}

/// The status of an answer.
///
/// # Errors
/// When there is none.
pub async fn status(client: &Client, path: &str) -> Result<u16> {
    let request = hyper::Request::get(path).body(Body::empty())?;
    Ok(client.send(request).await?.status().as_u16())
}

/// Asks again, as there is nothing to watch, until the answer is good.
///
/// # Errors
/// The last one, after [`PATIENCE`].
pub async fn until(ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(()) => return Ok(()),
        }
    }
}
