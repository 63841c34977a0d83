//! The operator's real control service, without Kubernetes: its records are in memory, and its API server says who calls.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_TENANT};
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::cache::watch::UnreadableRoutes;
use mailroute_operator::leader_election::Leadership;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::pki;
use mailroute_operator::rate_limit::RateLimit;
use mailroute_operator::server as http;
use mailroute_operator::service::authenticate::Authenticator;
use mailroute_operator::service::lease::Leases;
use mailroute_operator::service::ledger_store::MemoryStore;
use mailroute_operator::service::report::{self, ReportService};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_quota::Timing;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stores::{filled, filled_pods};

/// The operator's control service.
pub struct Operator {
    pub address: SocketAddr,
    pub ca_pem: String,
    key: Arc<rustls::sign::CertifiedKey>,
    crowd: (Duration, usize),
    route: MailRoute,
    store: Arc<MemoryStore>,
    service: JoinHandle<()>,
}

impl Operator {
    /// Leads, and shares out minutes of this length of these mailboxes among so many sidecars.
    pub async fn start(minute: Duration, sidecars: usize, mailboxes: &[String]) -> Result<Self> {
        let (ca_pem, key) = identity()?;
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let store = Arc::<MemoryStore>::default();
        let route = mail_route(mailboxes);
        let service = serve(address, &key, &store, (minute, sidecars), &route).await?;
        Ok(Self { address, ca_pem, key, crowd: (minute, sidecars), route, store, service })
    }

    /// Records written so far.
    pub fn records(&self) -> u32 {
        self.store.writes()
    }

    /// Another leader, who knows what is written down and nothing else, after a time without one.
    pub async fn replaced(&mut self, after: Duration) -> Result<()> {
        self.service.abort();
        tokio::time::sleep(after).await;
        self.service = serve(self.address, &self.key, &self.store, self.crowd, &self.route).await?;
        Ok(())
    }
}

#[derive(Debug)]
struct One(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A CA, and the certificate of `localhost` under it.
fn identity() -> Result<(String, Arc<rustls::sign::CertifiedKey>)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok((ca_pem, Arc::new(rustls::sign::CertifiedKey::new(vec![leaf.der().clone()], signing))))
}

async fn serve(
    address: SocketAddr,
    key: &Arc<rustls::sign::CertifiedKey>,
    store: &Arc<MemoryStore>,
    (minute, sidecars): (Duration, usize),
    route: &MailRoute,
) -> Result<JoinHandle<()>> {
    let timing = Timing { minute, ..Timing::default() };
    let leadership = watch::Sender::new(Leadership { leading: true, leader: None });
    let pods = filled_pods((0..sidecars).map(pod).map(WatchedPod::of));
    let control = ReportService {
        authenticator: Arc::new(Authenticator::new(api_server().await?, pods.clone(), true)),
        leadership: leadership.subscribe(),
        pods,
        reports: Arc::default(),
        triggers: Default::default(),
        metrics: Metrics::new()?,
        rate: Mutex::new(RateLimit::new(20, Duration::from_millis(5))),
        routes: filled([CachedRoute::new(route.clone(), &Arc::default())]),
        malformed: UnreadableRoutes::default(),
        leases: Arc::new(Leases::new(timing, Arc::clone(store) as _)),
    };
    let config = pki::tls::server_config(Arc::new(One(Arc::clone(key))))?;
    let listener = TcpListener::bind(address).await?;
    // All sidecars have one address here, and their minutes are short.
    let limits = http::Limits {
        per_address: 1024,
        opened: (100_000, Duration::from_micros(10)),
        requests: (100_000, Duration::from_micros(10)),
        ..http::Limits::of(1024)
    };
    Ok(tokio::spawn(async move {
        let router = report::router(Arc::new(control));
        http::serve(listener, Some(config), router, limits, std::future::pending()).await;
        // Lives as long as the service.
        drop(leadership);
    }))
}

fn pod(number: usize) -> Pod {
    serde_json::from_value(json!({"metadata": {
        "name": format!("pod-{number}"), "namespace": "shop", "uid": format!("uid-{number}"),
        "creationTimestamp": Timestamp::now().to_string(),
        "labels": {"mailroute.dev/route": "notifications"},
    }, "spec": {"containers": [], "initContainers": [{"name": "mailroute"}]},
        "status": {"podIPs": [{"ip": "127.0.0.1"}]}}))
    .expect("a pod")
}

fn mail_route(mailboxes: &[String]) -> MailRoute {
    let all = mailboxes.iter().filter(|_| mailboxes.len() > 1);
    let all: Vec<_> = all.map(|address| json!({"address": address, "senders": [SAMPLE_MAILBOX]})).collect();
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 1},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": SAMPLE_TENANT},
            "clientSubmission": {
                "mailbox": SAMPLE_MAILBOX,
                "spread": !all.is_empty(),
                "mailboxes": all,
                "credential": {"type": "WorkloadIdentity", "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"},
            },
        },
    }))
    .expect("a route")
}

/// The token of a pod.
pub fn token(number: usize) -> String {
    let pod = json!({"name": format!("pod-{number}"), "uid": format!("uid-{number}")});
    let claims = json!({"aud": ["mailroute.dev"], "kubernetes.io": {"namespace": "shop", "pod": pod}});
    format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// In the API server's place: every token is good.
async fn api_server() -> Result<kube::Client> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let review = async |Json(mut review): Json<Value>| {
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let pod = &claims["kubernetes.io"]["pod"];
        review["status"] = json!({"authenticated": true, "audiences": ["mailroute.dev"], "user": {
            "username": "system:serviceaccount:shop:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": [pod["name"]],
                "authentication.kubernetes.io/pod-uid": [pod["uid"]],
            },
        }});
        Json(review)
    };
    let api = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
    tokio::spawn(async move { axum::serve(listener, api).await });
    Ok(kube::Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?)
}
