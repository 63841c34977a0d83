//! The controller as a whole, against a server that stands in for the API server: it keeps what is written and can refuse.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router, body::Bytes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::Event;
use mailroute_operator::cache::federation_capacity::FederationCapacity;
use mailroute_operator::cache::pods::{PodWriter, pod_store};
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::cache::triggers::Triggers;
use mailroute_operator::controller::applied::AppliedConfigMaps;
use mailroute_operator::controller::backoff::Backoff;
use mailroute_operator::controller::lost::LostMessageSums;
use mailroute_operator::controller::orphans::OrphanedRoutes;
use mailroute_operator::controller::{self, Context};
use mailroute_operator::events::Events;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::preflight::observations::DnsObservations;
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::{InjectedSidecar, Overrides, SidecarSettings};
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::reports::{ReportingPod, Reports};
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::rollout::history::EvictionHistory;
use mailroute_route::RouteFile;
use mailroute_route::control::Report;
use mailroute_route::identity::Role;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Something that was written.
#[derive(Debug)]
enum Written {
    ConfigMap(Value),
    Status(Value),
    Event(Value),
}

#[derive(Clone)]
struct Api {
    config_maps: Arc<Mutex<BTreeMap<String, Value>>>,
    written: mpsc::UnboundedSender<Written>,
}

struct Stage {
    api: Api,
    written: mpsc::UnboundedReceiver<Written>,
    reports: Arc<Mutex<Reports>>,
    triggers: Triggers,
    ca_bundle: watch::Sender<String>,
    metrics: Metrics,
    controller: JoinHandle<()>,
    routes: Writer<CachedRoute>,
    pods: PodWriter,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

fn route() -> MailRoute {
    let mut route: MailRoute =
        serde_saphyr::from_str(include_str!("../../crates/operator-core/tests/inject/route.yaml")).unwrap();
    route.metadata.uid = Some("route-uid".into());
    route.metadata.generation = Some(3);
    route
}

fn settings() -> PlatformSettings {
    PlatformSettings {
        control_address: "mailroute.mail.svc:8444".into(),
        cluster_domain: "cluster.local".into(),
        ..PlatformSettings::default()
    }
}

fn cached(route: MailRoute) -> CachedRoute {
    CachedRoute::new(route, &Arc::new(settings()))
}

/// A controller that leads, with one route, and these ConfigMaps already there.
async fn stage(config_maps: BTreeMap<String, Value>) -> Stage {
    let (sender, written) = mpsc::unbounded_channel();
    let api = Api { config_maps: Arc::new(Mutex::new(config_maps)), written: sender };
    let client = serve(api.clone()).await;
    let (routes, mut routes_writer) = reflector::store();
    let (pods, mut pods_writer) = pod_store();
    for event in [Event::Init, Event::InitApply(cached(route())), Event::InitDone] {
        routes_writer.apply_watcher_event(&event);
    }
    for event in [Event::Init, Event::InitDone] {
        pods_writer.apply_watcher_event(&event);
    }
    let (ca_bundle, known) = watch::channel("PEM one".to_owned());
    let (metrics, triggers) = (Metrics::new().unwrap(), Triggers::default());
    let reports = Arc::<Mutex<Reports>>::default();
    let context = Context {
        settings: Arc::new(settings()),
        sidecar: SidecarSettings {
            image: "mailroute.dev/sidecar:0.1.0".into(),
            ..SidecarSettings::default()
        },
        ca_bundle: known.clone(),
        identity_ca: known,
        routes,
        pods,
        reports: Arc::clone(&reports),
        triggers: triggers.clone(),
        events: Events::start(client.clone(), "operator-0", metrics.clone()),
        metrics: metrics.clone(),
        silent_after: jiff::SignedDuration::from_mins(5),
        backoff: Backoff::default(),
        applied: AppliedConfigMaps::default(),
        rollouts: EvictionHistory::default(),
        federation: FederationCapacity::default(),
        dns: DnsObservations::default(),
        orphans: OrphanedRoutes::default(),
        lost: LostMessageSums::default(),
        client,
    };
    let controller = tokio::spawn(controller::run(Arc::new(context)));
    Stage {
        api,
        written,
        reports,
        triggers,
        ca_bundle,
        metrics,
        controller,
        routes: routes_writer,
        pods: pods_writer,
    }
}

async fn serve(api: Api) -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/api/v1/namespaces/shop/configmaps/{name}", get(read).patch(apply))
        .route("/apis/mailroute.dev/v1alpha1/namespaces/shop/mailroutes/{name}/status", patch(status))
        .route("/apis/events.k8s.io/v1/namespaces/shop/events", post(event))
        .with_state(api);
    tokio::spawn(async move { axum::serve(listener, router).await });
    kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

async fn read(State(api): State<Api>, Path(name): Path<String>) -> Response {
    match api.config_maps.lock().unwrap().get(&name) {
        Some(config_map) => Json(config_map.clone()).into_response(),
        None => {
            let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": ""});
            (StatusCode::NOT_FOUND, Json(gone)).into_response()
        }
    }
}

async fn apply(State(api): State<Api>, Path(name): Path<String>, body: Bytes) -> Json<Value> {
    let config_map: Value = serde_json::from_slice(&body).unwrap();
    api.config_maps.lock().unwrap().insert(name, config_map.clone());
    api.written.send(Written::ConfigMap(config_map.clone())).unwrap();
    Json(config_map)
}

async fn status(State(api): State<Api>, body: Bytes) -> Json<Value> {
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let mut whole = serde_json::to_value(route()).unwrap();
    whole["status"] = patch["status"].clone();
    api.written.send(Written::Status(patch)).unwrap();
    Json(whole)
}

async fn event(State(api): State<Api>, Json(event): Json<Value>) -> Json<Value> {
    api.written.send(Written::Event(event.clone())).unwrap();
    Json(event)
}

impl Stage {
    async fn next(&mut self) -> Written {
        self.written.recv().await.unwrap()
    }

    /// Gives the controller the route as the API server would show it after the write.
    fn show(&mut self, status: &Value) {
        let mut route = route();
        route.status = Some(serde_json::from_value(status.clone()).unwrap());
        self.routes.apply_watcher_event(&Event::Apply(cached(route)));
    }

    /// Has the route looked at once more, and waits until that has been done.
    async fn look_again(&self) {
        let before = self.looks();
        self.triggers.add(ObjectRef::from_obj(&cached(route())));
        while self.looks() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A pod that lives and reports that so many messages wait, named by these Message-IDs.
    async fn waits_in(&mut self, name: &str, messages: u64, left: &[&str]) -> Pod {
        let pod = pod_named(name);
        self.pods.apply_watcher_event(&Event::Apply(WatchedPod::of(pod.clone())));
        let uid = pod.metadata.uid.clone().unwrap();
        let caller = ReportingPod { namespace: "shop".into(), pod: name.into(), uid };
        let mut report = well(0);
        report.queue.messages = messages;
        report.left = left.iter().map(|id| (*id).to_owned()).collect();
        self.reports.lock().unwrap().record(&caller, report, Timestamp::now());
        pod
    }

    async fn event(&mut self, reason: &str) -> Value {
        loop {
            match self.next().await {
                Written::Event(event) if event["reason"] == reason => return event,
                _ => {}
            }
        }
    }

    fn looks(&self) -> Vec<String> {
        let text = self.metrics.text().unwrap();
        let counted = text.lines().filter(|line| line.starts_with("mailroute_reconciles_total{"));
        counted.map(str::to_owned).collect()
    }
}

/// A pod with the sidecar that is injected now, as the operator keeps it.
fn pod() -> Pod {
    pod_named("web-1")
}

fn pod_named(name: &str) -> Pod {
    let platform =
        SidecarSettings { image: "mailroute.dev/sidecar:0.1.0".into(), ..SidecarSettings::default() };
    let record = InjectedSidecar::of(
        Role::Sidecar,
        cached(route()).open().resolution().route.as_ref().unwrap(),
        &platform,
        &Overrides::default(),
    )
    .record;
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("{name}-uid"),
            "labels": {"mailroute.dev/route": "notifications"},
            "annotations": {"mailroute.dev/injected": record.to_json()},
        },
        "spec": {
            "containers": [],
            "initContainers": [{"name": "mailroute", "image": record.image}],
        },
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

/// What a sidecar reports that has logged in, and says each time in other words.
fn well(attempt: i64) -> Report {
    let met = |condition: &str, reason: &str| {
        let message = format!("235 [{attempt}]");
        json!({"condition": condition, "holds": true, "reason": reason, "message": message, "at": attempt})
    };
    serde_json::from_value(json!({
        "route": "notifications", "generation": 3, "sidecarVersion": "0.1.0",
        "observations": [
            met("CredentialReady", "TokenAcquired"),
            met("UpstreamReachable", "Connected"),
            met("Authenticated", "LoggedIn"),
        ],
    }))
    .unwrap()
}

/// What a sidecar reports whose log-in was refused.
fn refused() -> Report {
    serde_json::from_value(json!({
        "route": "notifications", "generation": 3, "sidecarVersion": "0.1.0",
        "observations": [{
            "condition": "Authenticated", "holds": false, "reason": "ExchangeRejectedToken",
            "message": "535 5.7.3 Authentication unsuccessful", "at": 1,
        }],
    }))
    .unwrap()
}

fn rendered(written: Written) -> RouteFile {
    let Written::ConfigMap(config_map) = written else { panic!("not a ConfigMap: {written:?}") };
    RouteFile::parse(config_map["data"]["route.json"].as_str().unwrap().as_bytes()).unwrap()
}

fn conditions(written: Written) -> (Value, Vec<(String, String)>) {
    let Written::Status(patch) = written else { panic!("not a status: {written:?}") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let conditions = conditions.iter().map(|c| (text(&c["type"]), text(&c["reason"]))).collect();
    (patch["status"].clone(), conditions)
}

#[tokio::test]
async fn a_route_is_rendered_and_its_status_is_written() {
    let mut stage = stage(BTreeMap::new()).await;
    let file = rendered(stage.next().await);
    assert_eq!((file.name.as_str(), file.generation), ("notifications", 3));
    assert_eq!(file.control.unwrap().ca_pem, "PEM one");
    let (_, conditions) = conditions(stage.next().await);
    let expected = [("Accepted", "Accepted"), ("Ready", "NoPods")].map(|(t, r)| (t.to_owned(), r.to_owned()));
    assert_eq!(conditions, expected);
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed_and_a_new_authority_is_rendered() {
    let mut stage = stage(BTreeMap::new()).await;
    rendered(stage.next().await);
    let (status, _) = conditions(stage.next().await);
    stage.show(&status);
    stage.look_again().await;
    assert!(stage.written.try_recv().is_err(), "nothing changed");
    stage.ca_bundle.send_replace("PEM two".to_owned());
    assert_eq!(rendered(stage.next().await).control.unwrap().ca_pem, "PEM two");
}

#[tokio::test]
async fn the_report_of_a_pod_that_has_ended_since_is_told_and_stands() {
    let mut stage = stage(BTreeMap::new()).await;
    rendered(stage.next().await);
    let (status, _) = conditions(stage.next().await);
    stage.show(&status);
    let pod = ReportingPod { namespace: "shop".into(), pod: "job-1".into(), uid: "job-1-uid".into() };
    stage.reports.lock().unwrap().record(&pod, refused(), Timestamp::now());
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let (status, conditions) = conditions(stage.next().await);
    let expected = [
        ("Accepted", "Accepted"),
        ("Authenticated", "ExchangeRejectedToken"),
        ("Ready", "ExchangeRejectedToken"),
    ];
    assert_eq!(conditions, expected.map(|(t, r)| (t.to_owned(), r.to_owned())));
    let Written::Event(event) = stage.next().await else { panic!("no Event of the fault") };
    assert_eq!(event["reason"], "ExchangeRejectedToken");
    stage.show(&status);
    stage.look_again().await;
    assert!(stage.written.try_recv().is_err(), "what was told stands");
}

#[tokio::test]
async fn twenty_reports_of_the_same_are_one_status_and_one_event() {
    let mut stage = stage(BTreeMap::new()).await;
    rendered(stage.next().await);
    let (status, _) = conditions(stage.next().await);
    stage.show(&status);
    stage.pods.apply_watcher_event(&Event::Apply(WatchedPod::of(pod())));
    let web = ReportingPod { namespace: "shop".into(), pod: "web-1".into(), uid: "web-1-uid".into() };
    stage.reports.lock().unwrap().record(&web, well(0), Timestamp::now());
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let (status, found) = conditions(stage.next().await);
    assert!(found.contains(&("Ready".to_owned(), "Ready".to_owned())), "{found:?}");
    assert!(found.contains(&("SidecarsCurrent".to_owned(), "SidecarsCurrent".to_owned())), "{found:?}");
    let Written::Event(event) = stage.next().await else { panic!("no Event of the turn") };
    assert_eq!(event["reason"], "Ready");
    stage.show(&status);
    for attempt in 1..=20 {
        stage.reports.lock().unwrap().record(&web, well(attempt), Timestamp::now());
        stage.look_again().await;
    }
    let more: Vec<_> = std::iter::from_fn(|| stage.written.try_recv().ok()).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test]
async fn a_config_map_of_somebody_else_is_left_alone_and_told_of() {
    let name = "mailroute-notifications";
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7"},
        "data": {"theirs": "yes"},
    });
    let mut stage = stage(BTreeMap::from([(name.to_owned(), foreign.clone())])).await;
    let (status, conditions) = conditions(stage.next().await);
    assert_eq!(conditions[0], ("Accepted".to_owned(), "RenderFailed".to_owned()));
    assert!(
        status["conditions"][0]["message"].as_str().unwrap().contains("does not belong to this MailRoute")
    );
    stage.show(&status);
    let event = loop {
        if let Written::Event(event) = stage.next().await {
            break event;
        }
    };
    assert_eq!(event["reason"], "ReconcileFailed");
    assert!(event["note"].as_str().unwrap().contains("does not belong to this MailRoute"), "{event}");
    assert_eq!(stage.api.config_maps.lock().unwrap()[name], foreign);
}

#[tokio::test]
async fn each_pod_that_ends_with_mail_is_an_event_of_its_own_and_counted() {
    let mut stage = stage(BTreeMap::new()).await;
    let one = stage.waits_in("web-1", 1, &[]).await;
    let two = stage.waits_in("web-2", 2, &["<a@shop>", "<b@shop>"]).await;
    stage.look_again().await;
    for pod in [one, two] {
        stage.pods.apply_watcher_event(&Event::Delete(WatchedPod::of(pod)));
    }
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let told = [stage.event("MessagesLeft").await, stage.event("MessagesLeft").await];
    for (event, (pod, words)) in
        told.iter().zip([("web-1", "1 message was"), ("web-2", "Message-IDs are <a@shop> <b@shop>")])
    {
        assert_eq!(
            (&event["regarding"]["kind"], &event["related"]["name"]),
            (&"MailRoute".into(), &pod.into())
        );
        assert!(event["note"].as_str().unwrap().contains(words), "{event}");
    }
    let text = stage.metrics.text().unwrap();
    assert!(text.contains("\nmailroute_messages_lost_total 3\n"), "{text}");
    // The watched route does not show yet what was written.
    let last = stage.waits_in("web-3", 4, &[]).await;
    stage.look_again().await;
    stage.pods.apply_watcher_event(&Event::Delete(WatchedPod::of(last)));
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let sum = async {
        loop {
            if let Written::Status(patch) = stage.next().await
                && patch["status"]["queue"]["lost"] == 7
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sum).await.expect("the sum of all three");
}

#[tokio::test]
async fn what_a_gateway_has_on_its_claim_is_not_lost_with_its_pod_and_told_of_when_the_route_goes() {
    let mut stage = stage(BTreeMap::new()).await;
    let sidecar = stage.waits_in("web-1", 2, &[]).await;
    let mut gateway = stage.waits_in("mail-gateway-0", 5, &[]).await;
    let spec = gateway.spec.as_mut().unwrap();
    spec.containers = spec.init_containers.take().unwrap();
    stage.pods.apply_watcher_event(&Event::Apply(WatchedPod::of(gateway.clone())));
    stage.look_again().await;
    stage.routes.apply_watcher_event(&Event::Delete(cached(route())));
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let event = stage.event("MessagesOnClaim").await;
    assert_eq!(event["regarding"]["name"], "mail-gateway-0");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("5 messages wait") && note.contains("MailRoute notifications was deleted"),
        "{note}"
    );
    for pod in [gateway, sidecar] {
        stage.pods.apply_watcher_event(&Event::Delete(WatchedPod::of(pod)));
    }
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    assert_eq!(stage.event("MessagesLeft").await["regarding"]["name"], "web-1");
    let text = stage.metrics.text().unwrap();
    assert!(text.contains("\nmailroute_messages_lost_total 2\n"), "{text}");
}

#[tokio::test]
async fn mail_left_by_a_pod_whose_route_was_deleted_is_an_event_on_the_pod_and_counted() {
    let mut stage = stage(BTreeMap::new()).await;
    let pod = stage.waits_in("web-1", 2, &["<a@shop>"]).await;
    stage.look_again().await;
    stage.routes.apply_watcher_event(&Event::Delete(cached(route())));
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    stage.pods.apply_watcher_event(&Event::Delete(WatchedPod::of(pod)));
    stage.triggers.add(ObjectRef::from_obj(&cached(route())));
    let event = stage.event("MessagesLeft").await;
    assert_eq!(
        (&event["regarding"]["kind"], &event["regarding"]["uid"]),
        (&"Pod".into(), &"web-1-uid".into())
    );
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("whose MailRoute notifications was deleted") && note.contains("<a@shop>"),
        "{note}"
    );
    let text = stage.metrics.text().unwrap();
    assert!(text.contains("\nmailroute_messages_lost_total 2\n"), "{text}");
}
