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
use mailroute_operator::control::rate::RateLimit;
use mailroute_operator::control::reports::Reports;
use mailroute_operator::control::server::Control;
use mailroute_operator::controller::triggers::Triggers;
use mailroute_operator::controller::watch::Malformed;
use mailroute_operator::crd::MailRoute;
use mailroute_operator::lease::{Identity, Leadership};
use mailroute_operator::metrics::Metrics;
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
    routes: Writer<MailRoute>,
}

async fn stage() -> Stage {
    let reviews = Arc::new(AtomicUsize::new(0));
    let (reader, mut writer) = store();
    for event in [Event::Init, Event::InitApply(pod()), Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let (routes, mut routes_writer) = store();
    for event in [Event::Init, Event::InitApply(route()), Event::InitDone] {
        routes_writer.apply_watcher_event(&event);
    }
    let (leadership, known) = watch::channel(Leadership { leading: true, leader: None });
    let (reports, triggers) = (Arc::<Mutex<Reports>>::default(), Triggers::default());
    let control = Control {
        authenticator: Arc::new(Authenticator::new(api_server(Arc::clone(&reviews)).await)),
        leadership: known,
        pods: reader,
        reports: Arc::clone(&reports),
        triggers: triggers.clone(),
        metrics: Metrics::new().unwrap(),
        rate: Mutex::new(RateLimit::default()),
        routes,
        malformed: Malformed::default(),
        leases: Arc::new(Leases::new(Terms::default(), Arc::new(Shelf::default()))),
    };
    Stage { control, reports, triggers, reviews, leadership, routes: routes_writer }
}

async fn api_server(reviews: Arc<AtomicUsize>) -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let api = Router::new().route(path, post(review)).with_state(reviews);
    tokio::spawn(async move { axum::serve(listener, api).await });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

/// A token is good when it reads `<pod>/<uid>`.
async fn review(State(reviews): State<Arc<AtomicUsize>>, Json(mut review): Json<Value>) -> Json<Value> {
    reviews.fetch_add(1, Ordering::SeqCst);
    assert_eq!(review["spec"]["audiences"], json!(["mailroute.dev"]));
    let token = review["spec"]["token"].as_str().unwrap().to_owned();
    review["status"] = match token.split_once('/') {
        Some((pod, uid)) => json!({
            "authenticated": true,
            "audiences": ["mailroute.dev"],
            "user": {
                "username": "system:serviceaccount:shop:default",
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod],
                    "authentication.kubernetes.io/pod-uid": [uid],
                },
            },
        }),
        None => json!({"authenticated": false, "error": "no"}),
    };
    Json(review)
}

fn route() -> MailRoute {
    serde_saphyr::from_str(include_str!("inject/route.yaml")).unwrap()
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "uid-1",
            "labels": {"mailroute.dev/route": "notifications"},
        },
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
        let request =
            Request::builder().header("authorization", format!("Bearer {token}")).body(Body::from(body));
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
    let (status, body) = stage.send("web-1/uid-1", report("notifications")).await;
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
    let (status, body) = stage.send("web-1/uid-1", report("notifications")).await;
    assert_eq!((status, body.as_str()), (StatusCode::MISDIRECTED_REQUEST, r#"{"leader":"10.0.0.7:8444"}"#));
    stage.leadership.send_replace(Leadership::default());
    let (status, body) = stage.send("web-1/uid-1", report("notifications")).await;
    assert_eq!((status, body.as_str()), (StatusCode::MISDIRECTED_REQUEST, "{}"));
    assert_eq!((stage.reviews.load(Ordering::SeqCst), stage.kept()), (0, 0));
}

#[tokio::test]
async fn nobody_reports_for_a_route_or_a_pod_that_is_not_its_own() {
    let stage = stage().await;
    for (token, route) in [
        ("web-1/uid-1", "other"),
        ("web-1/uid-of-an-earlier-pod", "notifications"),
        ("web-9/uid-9", "notifications"),
    ] {
        let (status, _) = stage.send(token, report(route)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{token} {route}");
    }
    assert_eq!(stage.kept(), 0);
}

#[tokio::test]
async fn a_token_is_reviewed_once_a_minute_whether_it_is_good_or_not() {
    let stage = stage().await;
    for _ in 0..3 {
        assert_eq!(stage.send("web-1/uid-1", report("notifications")).await.0, StatusCode::OK);
        assert_eq!(stage.send("forged", report("notifications")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.reviews.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_token_is_not_sent_for_review() {
    let stage = stage().await;
    for token in [String::new(), "t".repeat(10_000)] {
        assert_eq!(stage.send(&token, report("notifications")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.reviews.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn too_much_and_too_often_and_nonsense_are_refused() {
    let stage = stage().await;
    let (status, _) = stage.send("web-1/uid-1", "{}".repeat(10_000)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, body) = stage.send("web-1/uid-1", "nonsense".into()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    for _ in 0..1000 {
        let (status, _) = stage.send("web-1/uid-1", report("notifications")).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return;
        }
    }
    panic!("a thousand reports in a row are taken");
}

#[tokio::test]
async fn a_pod_is_told_that_its_route_was_deleted() {
    let mut stage = stage().await;
    stage.routes.apply_watcher_event(&Event::Delete(route()));
    let (_, body) = stage.send("web-1/uid-1", report("notifications")).await;
    assert_eq!(body, r#"{"nextSeconds":30,"routeDeleted":true}"#);
}
