//! Reports as sidecars send them, answered by the whole control service; a server that stands in for the API server
//! reviews the tokens and counts how often it is asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
use mailroute_operator::cache::pods::{PodWriter, pod_store};
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::cache::triggers::Triggers;
use mailroute_operator::cache::watch::UnreadableRoutes;
use mailroute_operator::leader_election::{Identity, Leadership};
use mailroute_operator::metrics::Metrics;
use mailroute_operator::rate_limit::RateLimit;
use mailroute_operator::server::Peer;
use mailroute_operator::service::authenticate::Authenticator;
use mailroute_operator::service::lease::Leases;
use mailroute_operator::service::ledger_store::MemoryStore;
use mailroute_operator::service::report::ReportService;
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::reports::Reports;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::resolve::mailbox_rules::MailboxRules;
use mailroute_quota::Timing;
use mailroute_route::control::{Allotment, ReportReply};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The service, with the pod `web-1` of the route `notifications` known to it.
struct Stage {
    control: ReportService,
    reports: Arc<Mutex<Reports>>,
    triggers: Triggers,
    reviews: Arc<AtomicUsize>,
    leadership: watch::Sender<Leadership>,
    pods: Mutex<PodWriter>,
    routes: Writer<CachedRoute>,
}

async fn stage() -> Stage {
    stage_with([], [mail_route("Pod")], MailboxRules::default()).await
}

/// With more pods, and with routes.
async fn stage_with(
    pods: impl IntoIterator<Item = Pod>,
    routes: impl IntoIterator<Item = MailRoute>,
    rules: MailboxRules,
) -> Stage {
    let reviews = Arc::new(AtomicUsize::new(0));
    let (reader, mut writer) = pod_store();
    writer.apply_watcher_event(&Event::Init);
    let given = [pod("web-1")].into_iter().chain(pods);
    given.for_each(|pod| writer.apply_watcher_event(&Event::InitApply(WatchedPod::of(pod))));
    writer.apply_watcher_event(&Event::InitDone);
    let (known_routes, mut routes_writer) = store();
    routes_writer.apply_watcher_event(&Event::Init);
    let settings = Arc::new(PlatformSettings { mailbox_rules: rules, ..PlatformSettings::default() });
    let routes = routes.into_iter().map(|route| CachedRoute::new(route, &settings));
    routes.for_each(|route| routes_writer.apply_watcher_event(&Event::InitApply(route)));
    routes_writer.apply_watcher_event(&Event::InitDone);
    let (leadership, known) = watch::channel(Leadership { leading: true, leader: None });
    let (reports, triggers) = (Arc::<Mutex<Reports>>::default(), Triggers::default());
    let control = ReportService {
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
        routes: known_routes,
        malformed: UnreadableRoutes::default(),
        leases: Arc::new(Leases::new(Timing::default(), Arc::new(MemoryStore::default()))),
    };
    Stage { control, reports, triggers, reviews, leadership, pods: Mutex::new(writer), routes: routes_writer }
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

/// `web-1` has the uid `uid-1`.
fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name.replace("web", "uid"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"mailroute.dev/route": "notifications"},
        },
        "spec": {"containers": [], "initContainers": [{"name": "mailroute"}]},
        "status": {"podIPs": [{"ip": "10.0.0.7"}]},
    }))
    .unwrap()
}

/// A pod with the sidecar, which runs or was never started.
fn with_sidecar(name: &str, runs: bool) -> Pod {
    let mut pod = pod(name);
    let status = json!({"name": "mailroute", "started": true, "ready": true, "image": "", "imageID": "",
        "restartCount": 0, "state": {"running": {}}});
    let statuses = if runs { json!([status]) } else { json!([]) };
    pod.status =
        serde_json::from_value(json!({"initContainerStatuses": statuses, "podIPs": [{"ip": "10.0.0.7"}]}))
            .unwrap();
    pod
}

fn mail_route(subject: &str) -> MailRoute {
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1", "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 1},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": "contoso.com"},
            "clientSubmission": {"mailbox": "noreply@contoso.com", "credential":
                {"type": "WorkloadIdentity", "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9", "subject": subject}},
        },
    }))
    .unwrap()
}

fn claiming(sequence: u64) -> String {
    let claim = json!({"instance": 1, "sequence": sequence, "mailbox": "noreply@contoso.com", "messages": 30,
        "recipients": 1});
    json!({"route": "notifications", "generation": 1, "sidecarVersion": "0.1.0", "claim": claim}).to_string()
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

    async fn claim(&self, token: &str, sequence: u64) -> Option<Allotment> {
        let (status, body) = self.send(token, claiming(sequence)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<ReportReply>(&body).unwrap().allotment
    }

    /// The leases of these pods' first claims, together.
    async fn leased_at_once(&self, pods: impl IntoIterator<Item = usize>) -> u32 {
        let mut leased = 0;
        for pod in pods {
            let allotment = self.claim(&token(&format!("web-{pod}"), &format!("uid-{pod}"), "good"), 1).await;
            leased += allotment.and_then(|it| it.lease).map_or(0, |lease| lease.messages);
        }
        leased
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
async fn a_pod_that_got_the_label_later_or_another_one_is_no_pod_of_the_route() {
    let mut labelled_later = pod("web-2");
    labelled_later.spec.as_mut().unwrap().init_containers = None;
    let mut of_another = pod("web-3");
    let record = json!({"image": "i", "route": "other", "generation": 1, "hash": "00ff"}).to_string();
    of_another.metadata.annotations = Some([("mailroute.dev/injected".to_owned(), record)].into());
    let stage = stage_with([labelled_later, of_another], [mail_route("Pod")], MailboxRules::default()).await;
    for number in [2, 3] {
        let token = token(&format!("web-{number}"), &format!("uid-{number}"), "good");
        for body in [report("notifications"), claiming(1)] {
            assert_eq!(stage.send(&token, body).await.0, StatusCode::FORBIDDEN, "{number}");
        }
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
    let (status, _) = stage.send(&good(), "{}".repeat(20_000)).await;
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
async fn claims_of_a_route_that_is_not_accepted_count_for_nothing() {
    let rules = "mailboxes: [{namespaces: [billing], mailboxes: ['*@contoso.com']}]";
    let refused = [
        stage_with([], [mail_route("Pod")], MailboxRules::parse(rules).unwrap()).await,
        // The platform lends its identity to nobody.
        stage_with([], [mail_route("Operator")], MailboxRules::default()).await,
        stage_with([], [], MailboxRules::default()).await,
    ];
    for stage in refused {
        assert_eq!(stage.claim(&good(), 1).await, None);
    }
    let accepted = stage_with([], [mail_route("Pod")], MailboxRules::default()).await;
    assert!(accepted.claim(&good(), 1).await.unwrap().lease.is_some());
}

#[tokio::test]
async fn pods_that_were_never_started_have_nothing_set_aside_for_them() {
    let crowd = |runs| (100..180).map(move |n| with_sidecar(&format!("web-{n}"), runs));
    let claimants = || (2..20).map(|n| pod(&format!("web-{n}")));
    let connections = |mut route: MailRoute| {
        route.spec.limits.connections = Some(100);
        route
    };
    let mut leased = vec![];
    for runs in [false, true] {
        let pods: Vec<_> = crowd(runs).chain(claimants()).collect();
        let stage = stage_with(pods, [connections(mail_route("Pod"))], MailboxRules::default()).await;
        leased.push(stage.leased_at_once(1..20).await);
    }
    assert_eq!(leased[0], 15, "half of the minute goes at once");
    assert!(leased[1] < 15, "{leased:?}: those that run may be sending");
}

#[tokio::test]
async fn of_the_pods_that_met_the_tenants_limit_one_tries_and_when_it_gets_through_all_do() {
    let stage = stage_with([pod("web-2"), pod("web-3")], [mail_route("Pod")], MailboxRules::default()).await;
    let said = async |pod: u64, sequence: u64, reason: &str| {
        let mut report: Value = serde_json::from_str(&claiming(sequence)).unwrap();
        let holds = reason == "MailAccepted";
        report["observations"] = json!([{"condition": "SendersAccepted", "holds": holds, "reason": reason,
            "message": "", "at": Timestamp::now().as_second() - 1}]);
        let token = token(&format!("web-{pod}"), &format!("uid-{pod}"), "good");
        let (_, body) = stage.send(&token, report.to_string()).await;
        serde_json::from_str::<ReportReply>(&body).unwrap().allotment.unwrap().lease.is_some()
    };
    assert!(said(1, 1, "TenantQuotaExceeded").await);
    assert!(!said(2, 1, "TenantQuotaExceeded").await);
    assert!(said(3, 1, "MailAccepted").await, "that one has not met it");
    said(1, 2, "MailAccepted").await;
    assert!(said(2, 2, "TenantQuotaExceeded").await);
}

#[tokio::test]
async fn a_pod_whose_route_was_deleted_goes_on_having_leases_and_a_new_one_has_none() {
    let mut stage = stage_with([pod("web-2")], [mail_route("Pod")], MailboxRules::default()).await;
    assert!(stage.claim(&good(), 1).await.unwrap().lease.is_some());
    stage.routes.apply_watcher_event(&Event::Delete(CachedRoute::new(mail_route("Pod"), &Arc::default())));
    assert!(stage.claim(&good(), 2).await.unwrap().lease.is_some());
    assert_eq!(stage.claim(&token("web-2", "uid-2", "good"), 1).await, None);
}

#[tokio::test]
async fn a_pod_is_told_that_its_route_was_deleted() {
    let mut stage = stage_with([], [mail_route("Pod")], MailboxRules::default()).await;
    stage.routes.apply_watcher_event(&Event::Delete(CachedRoute::new(mail_route("Pod"), &Arc::default())));
    let (_, body) = stage.send(&good(), report("notifications")).await;
    assert_eq!(body, r#"{"nextSeconds":30,"routeDeleted":true}"#);
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
    let mut young = pod("web-1");
    young.status = None;
    let stage = stage_with([young], [], MailboxRules::default()).await;
    let token = good();
    let (answer, ()) = futures::join!(stage.send(&token, report("notifications")), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stage.pods.lock().unwrap().apply_watcher_event(&Event::Apply(WatchedPod::of(pod("web-1"))));
    });
    assert_eq!(answer.0, StatusCode::OK);
}
