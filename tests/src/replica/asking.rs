//! Asking replicas: their pages, and the webhook as an API server asks it; and asking again until the answer is good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client};
use mailroute_operator::pki::anchors::Anchors;
use mailroute_operator::pki::trust;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::scene::{PATIENCE, release};

/// Pause between two questions, where there is nothing to watch.
const AGAIN: Duration = Duration::from_millis(50);

/// Asks again, as there is nothing to watch, until the answer is good.
///
/// # Errors
/// The last one, after [`PATIENCE`].
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

/// When the certificate ends that a replica presents to whoever calls its webhook as an API server does, in seconds since
/// the Unix epoch.
///
/// # Errors
/// When the handshake fails under the bundle that is published now.
pub async fn presented_until(client: &Client, webhook: SocketAddr) -> Result<i64> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let bundle = trust::live_pem(&configurations.get(release::NAME).await?).context("a bundle")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(Anchors::from_pem(&bundle).iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(format!("{}.{}.svc", release::NAME, release::NAMESPACE))?;
    let stream = TcpStream::connect(webhook).await?;
    let session = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let presented = session.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let (_, leaf) = x509_parser::parse_x509_certificate(presented.context("a certificate")?)?;
    Ok(leaf.validity().not_after.timestamp())
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

/// A page of the admin service: status and text. The Kubernetes client would ask again after a 503.
pub(super) async fn page(admin: SocketAddr, path: &str) -> Result<(u16, String)> {
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
pub(super) async fn status(client: &Client, path: &str) -> Result<u16> {
    let request = hyper::Request::get(path).body(Body::empty())?;
    Ok(client.send(request).await?.status().as_u16())
}
