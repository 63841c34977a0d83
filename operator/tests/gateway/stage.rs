//! The two services with what is around them: a route with a gateway, its pods, and those of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::pki::authority::Authority;
use mailroute_operator::server::Peer;
use mailroute_operator::service::authenticate::Authenticator;
use mailroute_operator::service::certificate::{self, CertificateService};
use mailroute_operator::service::request::{Callers, RequestBounds};
use mailroute_operator::service::review::{self, ReviewService};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::crd::delivery::Gateway;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_route::RouteFile;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::stores::{filled, filled_pods};

/// Pods, as `<namespace>/<pod>/<uid>`, see [`jwt`]: a sidecar and the gateway of the route `mail` in the namespace `shop`.
pub const WEB: &str = "shop/web-0/uid-1";
pub const GATEWAY: &str = "shop/mail-gateway-0/uid-2";
/// A sidecar of another route there, which has no gateway.
pub const WORKER: &str = "shop/worker-0/uid-3";
/// A sidecar and the gateway of the route of the same name in another namespace.
pub const BILLING: &str = "billing/web-0/uid-4";
pub const BILLING_GATEWAY: &str = "billing/mail-gateway-0/uid-5";
/// A pod without MailRoute, which sends through the gateway.
pub const GRAFANA: &str = "shop/grafana-0/uid-9";
/// One of another namespace.
pub const LEGACY: &str = "legacy/grafana-0/uid-10";

/// The services.
pub struct Stage {
    pub certificates: Arc<CertificateService>,
    pub reviews: Arc<ReviewService>,
    pub metrics: Metrics,
    /// The CA that signs now.
    pub signer: watch::Sender<Option<Arc<Authority>>>,
    /// How often the API server was asked.
    pub asked: Arc<AtomicUsize>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn refused(&self, status: StatusCode) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        self.body["message"].as_str().unwrap()
    }
}

impl Stage {
    pub async fn start() -> Self {
        let pods = [
            pod(WEB, "mail", false),
            pod(GATEWAY, "mail", true),
            pod(WORKER, "reports", false),
            pod(BILLING, "mail", false),
            pod(BILLING_GATEWAY, "mail", true),
        ];
        let routes =
            [route("shop", "mail", true), route("shop", "reports", false), route("billing", "mail", true)];
        let (pods, routes) = (filled_pods(pods.map(WatchedPod::of)), filled(routes));
        let asked = Arc::<AtomicUsize>::default();
        let client = api_server(Arc::clone(&asked)).await;
        let authenticator = Arc::new(Authenticator::new(client.clone(), pods.clone(), true));
        let callers = |bounds: RequestBounds| {
            Callers::new(Arc::clone(&authenticator), pods.clone(), routes.clone(), bounds)
        };
        let (metrics, signer) = (Metrics::new().unwrap(), watch::Sender::new(None));
        let certificates = CertificateService {
            callers: callers(certificate::BOUNDS),
            signer: signer.subscribe(),
            metrics: metrics.clone(),
        };
        let reviews = ReviewService::new(client, callers(review::BOUNDS), metrics.clone());
        let stage =
            Self { certificates: Arc::new(certificates), reviews: Arc::new(reviews), metrics, signer, asked };
        stage.sign_by(&authority(Duration::from_secs(365 * 24 * 3600)));
        stage
    }

    pub fn sign_by(&self, authority: &Authority) {
        self.signer.send_replace(Some(Arc::new(authority.clone())));
    }

    /// Asks for a certificate as the pod of `token`.
    pub async fn certificate(&self, token: &str, route: &str, csr_pem: &str) -> Answer {
        let body = json!({"route": route, "csrPem": csr_pem});
        read(self.certificates.handle(request(token, &body)).await).await
    }

    /// Asks whose `token` it is, as the pod of `gateway`.
    pub async fn review(&self, gateway: &str, route: &str, token: &str) -> Answer {
        self.review_raw(gateway, &json!({"route": route, "token": token})).await
    }

    pub async fn review_raw(&self, gateway: &str, body: &Value) -> Answer {
        read(self.reviews.handle(request(gateway, body)).await).await
    }

    #[track_caller]
    pub fn counted(&self, line: &str) {
        let text = self.metrics.text().unwrap();
        assert!(text.lines().any(|metric| metric == line), "{line} is not in\n{text}");
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// One that lives so long from now on.
pub fn authority(life: Duration) -> Authority {
    Authority::mint(Timestamp::now(), life).unwrap()
}

fn request(token: &str, body: &impl Serialize) -> Request {
    let request = Request::builder().header("authorization", format!("Bearer {}", jwt(token)));
    request.extension(here()).body(Body::from(serde_json::to_vec(body).unwrap())).unwrap()
}

async fn read(answer: axum::response::Response) -> Answer {
    let (head, body) = answer.into_parts();
    assert_eq!(head.headers["cache-control"], "no-store");
    let body = to_bytes(body, 64 * 1024).await.unwrap();
    Answer { status: head.status, body: serde_json::from_slice(&body).unwrap() }
}

/// A route with a gateway, as its sidecars read it, but for the control service and the CA.
#[allow(dead_code, reason = "for programs that run sidecars beside the services")]
pub fn route_file(namespace: &str, name: &str) -> RouteFile {
    route(namespace, name, true).open().resolution().route.as_ref().unwrap().file.clone()
}

fn route(namespace: &str, name: &str, has_gateway: bool) -> CachedRoute {
    let uid = format!("{namespace}-{name}");
    let mut route: MailRoute = serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "generation": 1},
        "spec": {
            "method": "DirectSend",
            "tenant": {"id": "72f988bf-86f1-41af-91ab-2d7cd011db47", "acceptedDomains": ["contoso.com"]},
            "directSend": {},
        },
    }))
    .unwrap();
    route.spec.gateway = has_gateway.then(|| Gateway { service_name: "mail-gateway".into() });
    let settings = PlatformSettings { cluster_domain: "cluster.local".into(), ..PlatformSettings::default() };
    CachedRoute::new(route, &Arc::new(settings))
}

fn pod(id: &str, route: &str, is_gateway: bool) -> Pod {
    let [namespace, name, uid] = parts(id).unwrap();
    let labels = json!({"mailroute.dev/route": route});
    let metadata = json!({"name": name, "namespace": namespace, "uid": uid, "labels": labels});
    let (ours, none) = (json!([{"name": "mailroute"}]), json!([]));
    let (containers, before) = if is_gateway { (ours, none) } else { (none, ours) };
    let spec = json!({"containers": containers, "initContainers": before});
    let status = json!({"podIPs": [{"ip": "127.0.0.1"}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

fn parts(id: &str) -> Option<[&str; 3]> {
    id.split('/').collect::<Vec<_>>().try_into().ok()
}

/// Where all pods are.
pub fn here() -> Peer {
    Peer::new([127, 0, 0, 1].into())
}

/// The token of a pod, given as `<namespace>/<pod>/<uid>`, of the ServiceAccount `default`; anything else is no token of a pod.
pub fn jwt(pod: &str) -> String {
    signed(pod, "mailroute.dev", "good")
}

/// One for an audience, with a signature; that of the API server is `good`.
pub fn signed(pod: &str, audience: &str, signature: &str) -> String {
    let Some([namespace, name, uid]) = parts(pod) else { return pod.to_owned() };
    let bound = json!({"namespace": namespace, "pod": {"name": name, "uid": uid}});
    let claims = json!({"aud": [audience], "kubernetes.io": bound}).to_string();
    format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
}

async fn api_server(asked: Arc<AtomicUsize>) -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api =
        Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(reviewed)).with_state(asked);
    tokio::spawn(async move { axum::serve(listener, api).await });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

async fn reviewed(State(asked): State<Arc<AtomicUsize>>, Json(mut review): Json<Value>) -> Json<Value> {
    asked.fetch_add(1, Ordering::SeqCst);
    let token = review["spec"]["token"].as_str().unwrap().to_owned();
    let [_, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let bound = serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let (namespace, pod) = (&bound["kubernetes.io"]["namespace"], &bound["kubernetes.io"]["pod"]);
    // As the API server does: those of the token that were asked for.
    let asked_for = review["spec"]["audiences"].as_array().unwrap().clone();
    let audiences: Vec<_> =
        bound["aud"].as_array().unwrap().iter().filter(|own| asked_for.contains(own)).cloned().collect();
    review["status"] = match signature {
        "good" if !audiences.is_empty() => json!({
            "authenticated": true,
            "audiences": audiences,
            "user": {
                "username": format!("system:serviceaccount:{}:default", namespace.as_str().unwrap()),
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod["name"]],
                    "authentication.kubernetes.io/pod-uid": [pod["uid"]],
                },
            },
        }),
        _ => json!({"authenticated": false, "error": "no"}),
    };
    Json(review)
}
