//! The broker with what is around it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Pod;
use mailroute_m365::directory::{FederatedCredential, SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_TENANT};
use mailroute_m365::{Faults, LoginAction, LoginFaults, Options, Rule, Simulator, Token};
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::server::Peer;
use mailroute_operator::service::authenticate::Authenticator;
use mailroute_operator::service::request::Callers;
use mailroute_operator::service::token::{self, TokenService};
use mailroute_operator::service::token_cache::TokenCache;
use mailroute_operator::service::token_transport::Proxy;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::resolve::operator_identity::OperatorIdentity;
use mailroute_route::condition::Reason;
use mailroute_route::control::{TokenRefusal, TokenReply, TokenRequest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stores::{filled, filled_pods};

/// The operator's ServiceAccount.
pub const OPERATOR: &str = "system:serviceaccount:mailroute-system:mailroute";

/// A pod of the route `notifications` in the namespace `shop`: namespace, name and uid, see [`jwt`].
pub const WEB: &str = "shop/web-1/uid-1";

/// A broker whose settings let the namespace `shop` use the simulator's application.
pub struct Stage {
    pub m365: Simulator,
    pub service: Arc<TokenService>,
    pub metrics: Metrics,
    folder: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn token(&self) -> TokenReply {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub fn refusal(&self, status: StatusCode, reason: Reason) -> TokenRefusal {
        let refusal: TokenRefusal = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((self.status, refusal.reason), (status, reason), "{refusal:?}");
        refusal
    }
}

impl Stage {
    pub async fn start() -> Self {
        Self::with(Options::default(), vec![lent("shop", "notifications")]).await
    }

    pub async fn with(options: Options, routes: Vec<Value>) -> Self {
        let m365 = Simulator::start(options).await.unwrap();
        let authority = format!("localhost:{}", m365.login_address().port());
        Self::asking(&authority, Ok(None), m365, routes).await
    }

    /// Asks the authority of this name, through this proxy.
    pub async fn asking(authority: &str, proxy: Proxy, m365: Simulator, routes: Vec<Value>) -> Self {
        trust_the_operator(&m365);
        let folder = tempfile::tempdir().unwrap();
        m365.write_assertion(OPERATOR, &folder.path().join("token")).unwrap();
        let metrics = Metrics::new().unwrap();
        let operator_identity = OperatorIdentity::parse(&settings(authority, &m365)).unwrap();
        let settings = Arc::new(PlatformSettings { operator_identity, ..PlatformSettings::default() });
        let applications = &settings.operator_identity.applications;
        let token_cache =
            TokenCache::new(applications, &folder.path().join("token"), &proxy, &metrics).unwrap();
        let pods = [("shop", "web-1", "uid-1", "notifications"), ("shop", "worker-1", "uid-2", "reports")];
        let pods = pods.into_iter().map(|(namespace, name, uid, route)| pod(namespace, name, uid, route));
        let pods = filled_pods(pods.map(WatchedPod::of));
        let service = TokenService {
            callers: Callers::new(
                Arc::new(Authenticator::new(api_server().await, pods.clone(), true)),
                pods,
                filled(
                    routes
                        .into_iter()
                        .map(|route| CachedRoute::new(serde_json::from_value(route).unwrap(), &settings)),
                ),
                token::BOUNDS,
            ),
            token_cache: Arc::new(token_cache),
            metrics: metrics.clone(),
        };
        Self { m365, service: Arc::new(service), metrics, folder }
    }

    /// Asks as the pod of `token`.
    pub async fn ask(&self, token: &str, route: &str) -> Answer {
        self.send(token, &TokenRequest { route: route.into(), refused: None }).await
    }

    pub async fn send(&self, token: &str, request: &TokenRequest) -> Answer {
        self.post(Some(token), serde_json::to_vec(request).unwrap()).await
    }

    pub async fn post(&self, token: Option<&str>, body: Vec<u8>) -> Answer {
        let mut request = Request::builder();
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {}", jwt(token)));
        }
        let request = request.extension(here()).body(Body::from(body)).unwrap();
        let answer = self.service.handle(request).await;
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, 64 * 1024).await.unwrap().to_vec();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Takes the operator's own service-account token away, or brings it back.
    pub fn identity(&self, is_there: bool) {
        let path = self.folder.path().join("token");
        if is_there {
            self.m365.write_assertion(OPERATOR, &path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    pub fn assertion(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("token")).unwrap()
    }

    /// What Entra does the next time, or each time.
    pub fn entra(&self, action: LoginAction, times: Option<u32>) {
        let rule = match times {
            Some(times) => Rule::times(Token::Token, action, times),
            None => Rule::always(Token::Token, action),
        };
        let login = LoginFaults { rules: vec![rule], ..<_>::default() };
        self.m365.set_faults(Faults { login, ..<_>::default() });
    }

    pub fn number(&self, metric: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|line| line == metric)
    }
}

/// A federated credential for the operator's ServiceAccount, and no other.
fn trust_the_operator(m365: &Simulator) {
    m365.directory(|directory| {
        let application = &mut directory.tenants[0].applications[0];
        application.federated_credentials = vec![FederatedCredential {
            name: "operator".into(),
            issuer: "stand-in".into(),
            subject: OPERATOR.into(),
            audience: mailroute_m365::directory::EXCHANGE_AUDIENCE.into(),
        }];
    });
}

/// JSON is YAML.
fn settings(authority: &str, m365: &Simulator) -> String {
    json!({"applications": [{
        "tenantId": SAMPLE_TENANT,
        "clientId": SAMPLE_CLIENT_ID,
        "authority": {"host": authority, "caPem": m365.ca_pem()},
        "allow": [{"namespaces": ["shop"], "mailboxes": [SAMPLE_MAILBOX]}],
    }]})
    .to_string()
}

/// A route that uses the operator's identity.
pub fn lent(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "generation": 1},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": SAMPLE_TENANT},
            "clientSubmission": {
                "mailbox": SAMPLE_MAILBOX,
                "credential": {"type": "WorkloadIdentity", "subject": "Operator", "clientId": SAMPLE_CLIENT_ID},
            },
        },
    })
}

fn pod(namespace: &str, name: &str, uid: &str, route: &str) -> Pod {
    let labels = json!({"mailroute.dev/route": route});
    let metadata = json!({"name": name, "namespace": namespace, "uid": uid, "labels": labels});
    let status = json!({"podIPs": [{"ip": "127.0.0.1"}]});
    let spec = json!({"containers": [], "initContainers": [{"name": "mailroute"}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

/// Where all pods are.
pub fn here() -> Peer {
    Peer::new([127, 0, 0, 1].into())
}

/// The token of a pod, given as `<namespace>/<pod>/<uid>`; anything else is no token of a pod.
pub fn jwt(pod: &str) -> String {
    let [namespace, name, uid] = pod.split('/').collect::<Vec<_>>()[..] else { return pod.to_owned() };
    let bound = json!({"namespace": namespace, "pod": {"name": name, "uid": uid}});
    let claims = json!({"aud": ["mailroute.dev"], "kubernetes.io": bound}).to_string();
    format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims))
}

async fn api_server() -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
    tokio::spawn(async move { axum::serve(listener, api).await });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

/// Every token of a pod is good.
async fn review(Json(mut review): Json<Value>) -> Json<Value> {
    let token = review["spec"]["token"].as_str().unwrap().to_owned();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let bound = serde_json::from_slice::<Value>(&claims).unwrap()["kubernetes.io"].take();
    review["status"] = json!({
        "authenticated": true,
        "audiences": ["mailroute.dev"],
        "user": {
            "username": format!("system:serviceaccount:{}:default", bound["namespace"].as_str().unwrap()),
            "extra": {
                "authentication.kubernetes.io/pod-name": [bound["pod"]["name"]],
                "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]],
            },
        },
    });
    Json(review)
}

/// Asks again until `look` is content with the answer, so rarely that the broker does not find it too often.
pub async fn until(stage: &Stage, look: impl Fn(&Answer) -> bool) -> Answer {
    let asked = async {
        loop {
            let answer = stage.ask(WEB, "notifications").await;
            if look(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("such an answer")
}
