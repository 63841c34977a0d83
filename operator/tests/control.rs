//! Reports as sidecars send them, answered by the whole control service; a server that stands in for the API server
//! reviews the tokens and counts how often it is asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use mailroute_operator::budget::mailboxes::Key;
use mailroute_operator::budget::record::Record;
use mailroute_operator::budget::terms::Terms;
use mailroute_operator::control::authenticate::Authenticator;
use mailroute_operator::control::books::{self, Books, Page};
use mailroute_operator::control::leases::Leases;
use mailroute_operator::control::reports::Reports;
use mailroute_operator::control::server::Control;
use mailroute_operator::controller::triggers::Triggers;
use mailroute_operator::lease::{Identity, Leadership};
use mailroute_operator::metrics::Metrics;
use mailroute_operator::rate_limit::RateLimit;
use mailroute_operator::server::Peer;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Books in memory.
#[derive(Default)]
struct Shelf(Mutex<HashMap<Key, String>>);

#[async_trait]
impl Books for Shelf {
    async fn read(&self, key: &Key) -> Result<Page, books::Error> {
        let page = self.0.lock().unwrap().get(key).and_then(|text| Record::parse(text));
        Ok(page.map_or(Page::Blank, |record| Page::Written(Box::new(record))))
    }

    async fn write(&self, key: &Key, record: &Record) -> Result<(), books::Error> {
        self.0.lock().unwrap().insert(key.clone(), record.print());
        Ok(())
    }
}

/// The service, with the pod `web-1` of the route `notifications` known to it.
struct Stage {
    control: Control,
    reports: Arc<Mutex<Reports>>,
    triggers: Triggers,
    reviews: Arc<AtomicUsize>,
    leadership: watch::Sender<Leadership>,
}

async fn stage() -> Stage {
    stage_with(pod()).await.0
}

async fn stage_with(pod: Pod) -> (Stage, Writer<Pod>) {
    let reviews = Arc::new(AtomicUsize::new(0));
    let (reader, mut writer) = store();
    for event in [Event::Init, Event::InitApply(pod), Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let (leadership, known) = watch::channel(Leadership { leading: true, leader: None });
    let (reports, triggers) = (Arc::<Mutex<Reports>>::default(), Triggers::default());
    let control = Control {
        authenticator: Arc::new(Authenticator::new(
            api_server(Arc::clone(&reviews)).await,
            reader.clone(),
            true,
        )),
        leadership: known,
        pods: reader,
        reports: Arc::clone(&reports),
        triggers: triggers.clone(),
        metrics: Metrics::new().unwrap(),
        rate: Mutex::new(RateLimit::default()),
        routes: store().0,
        leases: Arc::new(Leases::new(Terms::default(), Arc::new(Shelf::default()))),
    };
    (Stage { control, reports, triggers, reviews, leadership }, writer)
}

async fn api_server(reviews: Arc<AtomicUsize>) -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let api = Router::new().route(path, post(review)).with_state(reviews);
    tokio::spawn(async move { axum::serve(listener, api).await });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

/// The address of the pod.
const WEB: [u8; 4] = [10, 0, 0, 7];

/// A token that claims to be of this pod of the namespace `shop`. It is good when it is signed with `good`.
fn token(pod: &str, uid: &str, signature: &str) -> String {
    let pod = json!({"name": pod, "uid": uid});
    let claims = json!({"aud": ["mailroute.dev"], "kubernetes.io": {"namespace": "shop", "pod": pod}});
    format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn good() -> String {
    token("web-1", "uid-1", "good")
}

fn claims(token: &str) -> Option<Value> {
    let (claims, signature) = token.strip_prefix("e30.")?.split_once('.')?;
    let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    (signature == "good").then_some(claims)
}

async fn review(State(reviews): State<Arc<AtomicUsize>>, Json(mut review): Json<Value>) -> Json<Value> {
    reviews.fetch_add(1, Ordering::SeqCst);
    assert_eq!(review["spec"]["audiences"], json!(["mailroute.dev"]));
    review["status"] = match claims(review["spec"]["token"].as_str().unwrap()) {
        Some(claims) => json!({
            "authenticated": true,
            "audiences": ["mailroute.dev"],
            "user": {
                "username": "system:serviceaccount:shop:default",
                "extra": {
                    "authentication.kubernetes.io/pod-name": [claims["kubernetes.io"]["pod"]["name"]],
                    "authentication.kubernetes.io/pod-uid": [claims["kubernetes.io"]["pod"]["uid"]],
                },
            },
        }),
        None => json!({"authenticated": false, "error": "no"}),
    };
    Json(review)
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "uid-1",
            "labels": {"mailroute.dev/route": "notifications"},
        },
        "status": {"podIPs": [{"ip": "10.0.0.7"}]},
    }))
    .unwrap()
}

fn report(route: &str) -> String {
    json!({
        "route": route, "generation": 1, "sidecarVersion": "0.1.0",
        "observations": [
            {"condition": "Authenticated", "holds": true, "reason": "LoggedIn", "message": "", "at": 1},
        ],
    })
    .to_string()
}

impl Stage {
    async fn send(&self, token: &str, body: String) -> (StatusCode, String) {
        self.send_from(WEB, token, body).await
    }

    async fn send_from(&self, from: [u8; 4], token: &str, body: String) -> (StatusCode, String) {
        let request = Request::builder()
            .header("authorization", format!("Bearer {token}"))
            .extension(Peer::new(from.into()))
            .body(Body::from(body));
        let response = self.control.handle(request.unwrap()).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn kept(&self) -> usize {
        self.reports.lock().unwrap().of("shop", "notifications", Timestamp::now()).len()
    }
}

#[tokio::test]
async fn a_report_of_a_pod_of_the_route_is_taken_and_looked_at() {
    let stage = stage().await;
    let (status, body) = stage.send(&good(), report("notifications")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"nextSeconds":30}"#));
    assert_eq!(stage.kept(), 1);
    let route = Box::pin(stage.triggers.stream()).next().await.unwrap();
    assert_eq!((route.name.as_str(), route.namespace.as_deref()), ("notifications", Some("shop")));
}

#[tokio::test]
async fn a_replica_that_does_not_lead_names_the_leader_and_asks_nobody() {
    let stage = stage().await;
    let leader = Identity { pod: "operator-2".into(), control: "10.0.0.7:8444".parse().unwrap() };
    stage.leadership.send_replace(Leadership { leading: false, leader: Some(leader) });
    let (status, body) = stage.send(&good(), report("notifications")).await;
    assert_eq!((status, body.as_str()), (StatusCode::MISDIRECTED_REQUEST, r#"{"leader":"10.0.0.7:8444"}"#));
    stage.leadership.send_replace(Leadership::default());
    let (status, body) = stage.send(&good(), report("notifications")).await;
    assert_eq!((status, body.as_str()), (StatusCode::MISDIRECTED_REQUEST, "{}"));
    assert_eq!((stage.reviews.load(Ordering::SeqCst), stage.kept()), (0, 0));
}

#[tokio::test]
async fn nobody_reports_for_a_route_or_a_pod_that_is_not_its_own() {
    let stage = stage().await;
    for (token, route) in [
        (good(), "other"),
        (token("web-1", "uid-of-an-earlier-pod", "good"), "notifications"),
        (token("web-9", "uid-9", "good"), "notifications"),
    ] {
        let (status, _) = stage.send(&token, report(route)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{token} {route}");
    }
    assert_eq!(stage.kept(), 0);
}

#[tokio::test]
async fn a_token_is_reviewed_once_a_minute_whether_it_is_good_or_not() {
    let stage = stage().await;
    for _ in 0..3 {
        assert_eq!(stage.send(&good(), report("notifications")).await.0, StatusCode::OK);
        let forged = token("web-1", "uid-1", "forged");
        assert_eq!(stage.send(&forged, report("notifications")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.reviews.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_token_is_not_sent_for_review() {
    let stage = stage().await;
    for token in [String::new(), "t".repeat(10_000), "a.b.c".to_owned(), "e30.e30.good".to_owned()] {
        assert_eq!(stage.send(&token, report("notifications")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.reviews.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn too_much_and_too_often_and_nonsense_are_refused() {
    let stage = stage().await;
    let (status, _) = stage.send(&good(), "{}".repeat(10_000)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, body) = stage.send(&good(), "nonsense".into()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    for _ in 0..1000 {
        let (status, _) = stage.send(&good(), report("notifications")).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return;
        }
    }
    panic!("a thousand reports in a row are taken");
}

#[tokio::test]
async fn a_token_of_no_watched_pod_or_from_another_address_is_not_sent_for_review() {
    let stage = stage().await;
    let elsewhere = [10, 0, 0, 66];
    for (from, token) in [
        (elsewhere, good()),
        (elsewhere, token("web-9", "uid-9", "good")),
        (WEB, token("web-1", "uid-9", "good")),
    ] {
        let (status, _) = stage.send_from(from, &token, report("notifications")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{token} from {from:?}");
    }
    assert_eq!((stage.reviews.load(Ordering::SeqCst), stage.kept()), (0, 0));
}

#[tokio::test]
async fn unknown_tokens_cost_few_reviews_and_displace_no_good_one() {
    let stage = stage().await;
    assert_eq!(stage.send(&good(), report("notifications")).await.0, StatusCode::OK);
    for number in 0..2000 {
        let forged = token("web-1", "uid-1", &format!("forged{number}"));
        let (status, _) = stage.send(&forged, String::new()).await;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status}");
    }
    let reviews = stage.reviews.load(Ordering::SeqCst);
    assert!(reviews < 50, "{reviews} reviews");
    assert_eq!(stage.send(&good(), report("notifications")).await.0, StatusCode::OK);
    assert_eq!(stage.reviews.load(Ordering::SeqCst), reviews, "it is still known");
}

#[tokio::test]
async fn a_pod_that_has_just_started_waits_for_its_address() {
    let mut young = pod();
    young.status = None;
    let (stage, mut pods) = stage_with(young).await;
    let token = good();
    let (answer, ()) = futures::join!(stage.send(&token, report("notifications")), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        pods.apply_watcher_event(&Event::Apply(pod()));
    });
    assert_eq!(answer.0, StatusCode::OK);
}
