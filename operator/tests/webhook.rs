//! Admission reviews as an API server sends them, answered by the whole webhook; its Events go to a server that stands
//! in for the API server and writes them down.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing::any};
use base64::Engine as _;
use futures::{FutureExt, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use mailroute_operator::cache::namespaces::NamespaceRoutes;
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::cache::watch::UnreadableRoutes;
use mailroute_operator::events::Events;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::server::Peer;
use mailroute_operator::webhook::refusals::Refusals;
use mailroute_operator::webhook::{AwaitedRoutes, LabelOwner, Webhook};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::crd::cloud::Cloud;
use mailroute_operator_core::crd::method::Subject;
use mailroute_operator_core::crd::tenant::Authority;
use mailroute_operator_core::inject::SidecarSettings;
use mailroute_operator_core::kubernetes_version::{NativeSidecars, Version};
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::resolve::operator_identity::OperatorIdentity;
use mailroute_route::file::DeliveryMode;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

struct Stage {
    webhook: Arc<Webhook>,
    settings: Arc<PlatformSettings>,
    writer: Writer<CachedRoute>,
    changed: watch::Sender<u64>,
    namespaces: watch::Sender<BTreeMap<String, String>>,
    malformed: UnreadableRoutes,
    kubernetes: watch::Sender<NativeSidecars>,
    events: mpsc::UnboundedReceiver<Value>,
    metrics: Metrics,
}

/// A webhook over a store that is filled, with the route `notifications` of namespace `shop` in it.
async fn stage() -> Stage {
    let mut stage = empty_stage().await;
    stage.apply(&Event::Init);
    stage.apply(&Event::InitApply(route("notifications")));
    stage.apply(&Event::InitDone);
    stage
}

async fn empty_stage() -> Stage {
    stage_that_lends(OperatorIdentity::default()).await
}

/// A webhook over an empty store, of an installation that lends its identity so.
async fn stage_that_lends(operator_identity: OperatorIdentity) -> Stage {
    let (sender, events) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Router::new().fallback(any(write_down)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, api).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let metrics = Metrics::new().unwrap();
    let (store, writer) = reflector::store();
    let (changed, changes) = watch::channel(0);
    let platform =
        SidecarSettings { image: "mailroute.dev/sidecar:0.1.0".into(), ..SidecarSettings::default() };
    let told = Refusals::start(client.clone(), Events::start(client, "operator-0", metrics.clone()));
    let malformed = UnreadableRoutes::default();
    let (namespaces, defaults) = watch::channel(BTreeMap::new());
    let routes = AwaitedRoutes::new(store, malformed.clone(), changes, NamespaceRoutes::new(defaults));
    let (kubernetes, standing) = watch::channel(NativeSidecars::Fit);
    let webhook = Webhook::new(routes, platform, standing, metrics.clone(), told);
    let settings = Arc::new(PlatformSettings { operator_identity, ..PlatformSettings::default() });
    let webhook = Arc::new(webhook);
    Stage { webhook, settings, writer, changed, namespaces, malformed, kubernetes, events, metrics }
}

async fn write_down(
    State(sender): State<mpsc::UnboundedSender<Value>>,
    Json(event): Json<Value>,
) -> Json<Value> {
    if event["kind"] != "MailRoute" {
        sender.send(event.clone()).unwrap();
    }
    Json(event)
}

impl Stage {
    fn apply(&mut self, event: &Event<MailRoute>) {
        let cached = |route: &MailRoute| CachedRoute::new(route.clone(), &self.settings);
        let event = match event {
            Event::Init => Event::Init,
            Event::InitApply(route) => Event::InitApply(cached(route)),
            Event::InitDone => Event::InitDone,
            Event::Apply(route) => Event::Apply(cached(route)),
            Event::Delete(route) => Event::Delete(cached(route)),
        };
        self.writer.apply_watcher_event(&event);
        self.changed.send_modify(|changes| *changes += 1);
    }

    async fn ask(&self, review: &Value) -> Value {
        ask(&self.webhook, review).await
    }

    fn metrics(&self) -> String {
        self.metrics.text().unwrap()
    }
}

/// Who calls: number 1 is an API server.
fn peer(number: u8) -> Peer {
    Peer::new([10, 0, 0, number].into())
}

async fn ask(webhook: &Webhook, review: &Value) -> Value {
    ask_about(webhook, review, LabelOwner::Pod).await
}

async fn ask_about(webhook: &Webhook, review: &Value, owner: LabelOwner) -> Value {
    let answer = webhook.handle(&peer(1), Body::from(review.to_string()), owner).await;
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
}

fn route(name: &str) -> MailRoute {
    let mut route: MailRoute =
        serde_saphyr::from_str(include_str!("../../crates/operator-core/tests/inject/route.yaml")).unwrap();
    route.metadata.name = Some(name.to_owned());
    route
}

fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

fn pod() -> Value {
    serde_saphyr::from_str(include_str!("../../crates/operator-core/tests/inject/of_a_deployment.yaml"))
        .unwrap()
}

fn patched(answer: &Value, mut pod: Value) -> Value {
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch = answer["response"]["patch"].as_str().expect("bytes are base64 in JSON");
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[tokio::test]
async fn a_labelled_pod_is_answered_with_a_patch() {
    let stage = stage().await;
    let answer = stage.ask(&review(&pod())).await;
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(answer["response"]["allowed"], true);
    let injected = patched(&answer, pod());
    assert_eq!(injected["spec"]["initContainers"][0]["name"], "mailroute");
    let again = stage.ask(&review(&injected)).await;
    assert_eq!(again["response"]["allowed"], true);
    assert!(again["response"].get("patch").is_none(), "{again}");
    let metrics = stage.metrics();
    for outcome in ["injected", "complete"] {
        let line = format!("mailroute_admissions_total{{outcome=\"{outcome}\",reason=\"\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn a_gateway_is_completed_and_its_stateful_set_brings_no_warning() {
    let stage = stage().await;
    let pod: Value =
        serde_saphyr::from_str(include_str!("../../crates/operator-core/tests/inject/gateway.yaml")).unwrap();
    let completed = patched(&stage.ask(&review(&pod)).await, pod.clone());
    assert_eq!(completed["spec"]["containers"][0]["image"], "mailroute.dev/sidecar:0.1.0");
    assert!(stage.ask(&review(&completed)).await["response"].get("patch").is_none());

    let mut template = pod;
    let claim = template["spec"]["volumes"].take();
    assert_eq!(claim[0]["name"], "mailroute-spool");
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "mail-gateway"},
        "spec": {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "mailroute-spool"}}]}});
    assert_eq!(warned(&stage, &set).await, None);
    set["spec"]["volumeClaimTemplates"] = json!([]);
    let warning = warned(&stage, &set).await.unwrap();
    assert!(warning.contains("has no volume claim"), "{warning}");
}

#[tokio::test]
async fn what_is_none_of_ours_is_allowed_unchanged() {
    let stage = stage().await;
    let mut unlabelled = pod();
    unlabelled["metadata"]["labels"] = json!({"app": "web"});
    let mut mirror = pod();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("x");
    let mut update = review(&pod());
    update["request"]["operation"] = json!("UPDATE");
    let mut ephemeral = review(&pod());
    ephemeral["request"]["subResource"] = json!("ephemeralcontainers");
    let mut other_kind = review(&pod());
    other_kind["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let mut delete = review(&Value::Null);
    delete["request"]["operation"] = json!("DELETE");
    for review in [review(&unlabelled), review(&mirror), update, ephemeral, other_kind, delete] {
        let answer = stage.ask(&review).await;
        assert_eq!(answer["response"]["allowed"], true, "{review}");
        assert!(answer["response"].get("patch").is_none(), "{review}");
    }
}

#[tokio::test]
async fn a_pod_gets_the_route_of_its_namespace_and_its_label_unless_it_says_otherwise() {
    let stage = stage().await;
    stage.namespaces.send_modify(|known| drop(known.insert("shop".into(), "notifications".into())));
    let labelled = |labels: Value| {
        let mut pod = pod();
        pod["metadata"]["labels"] = labels;
        pod
    };
    let asked = async |pod: &Value| ask_about(&stage.webhook, &review(pod), LabelOwner::Namespace).await;
    for labels in [json!({"app": "web"}), Value::Null, json!({"mailroute.dev/route": "notifications"})] {
        let pod = labelled(labels);
        let injected = patched(&asked(&pod).await, pod);
        assert_eq!(injected["spec"]["initContainers"][0]["name"], "mailroute");
        assert_eq!(injected["metadata"]["labels"]["mailroute.dev/route"], "notifications");
        let again = stage.ask(&review(&injected)).await;
        assert!(again["response"].get("patch").is_none(), "the other entry has nothing to add: {again}");
    }
    let out = asked(&labelled(json!({"mailroute.dev/inject": "false"}))).await;
    assert_eq!((&out["response"]["allowed"], out["response"].get("patch")), (&json!(true), None));
    let other = asked(&labelled(json!({"mailroute.dev/route": "other"}))).await;
    assert!(other.to_string().contains("There is no MailRoute"), "{other}");
}

#[tokio::test]
async fn a_pod_that_cannot_have_the_route_of_its_namespace_is_told_how_to_stay_without() {
    let stage = stage().await;
    stage.namespaces.send_modify(|known| drop(known.insert("shop".into(), "notifications".into())));
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod["spec"]["hostNetwork"] = json!(true);
    let answer = ask_about(&stage.webhook, &review(&pod), LabelOwner::Namespace).await;
    let told = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(
        told.contains("hostNetwork") && told.ends_with("label it mailroute.dev/inject: \"false\"."),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_namespaces_label_is_not_known_here_is_deferred() {
    let stage = stage().await;
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({"app": "web"});
    let answer = ask_about(&stage.webhook, &review(&pod), LabelOwner::Namespace).await;
    assert_eq!(answer["response"]["status"]["code"], 503, "{answer}");
    assert!(
        stage.metrics().contains("mailroute_admissions_total{outcome=\"deferred\",reason=\"NotSynced\"} 1")
    );
}

#[tokio::test]
async fn a_refusal_tells_a_person_and_the_route() {
    let mut stage = stage().await;
    let mut pod = pod();
    pod["spec"]["hostNetwork"] = json!(true);
    let answer = stage.ask(&review(&pod)).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(answer["response"]["status"]["code"], 403);
    assert_eq!(
        answer["response"]["status"]["message"],
        "MailRoute: The pod uses the node's network (hostNetwork: true). Remove hostNetwork: the sidecar's port would \
         be open to every program of the node."
    );
    let event = stage.events.recv().await.unwrap();
    assert_eq!(event["regarding"]["kind"], "MailRoute");
    assert_eq!(event["regarding"]["name"], "notifications");
    assert_eq!((&event["reason"], &event["type"]), (&json!("HostNetwork"), &json!("Warning")));
    assert!(event["note"].as_str().unwrap().starts_with("Pod web-5d4f6c7b8-* is refused."), "{event}");
    assert!(
        stage.metrics().contains("mailroute_admissions_total{outcome=\"refused\",reason=\"HostNetwork\"} 1")
    );
}

/// A change to a pod, and the reason why it is refused then.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let annotated = |key: &str, value: &str| json!({key: value});
    let sysctl = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]});
    vec![
        ("/spec/hostNetwork", json!(true), "HostNetwork"),
        ("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}), "Windows"),
        ("/spec/containers/0/name", json!("mailroute"), "ContainerName"),
        ("/spec/volumes/0/name", json!("mailroute-tokens"), "VolumeName"),
        ("/spec/containers/0/volumeMounts", json!([{"name": "mailroute-tokens"}]), "VolumeMounted"),
        ("/spec/containers/0/ports/0/containerPort", json!(25), "PortInUse"),
        ("/spec/securityContext", sysctl, "Sysctl"),
        ("/spec/shareProcessNamespace", json!(true), "SharedProcesses"),
        ("/metadata/annotations", annotated("mailroute.dev/memory", "1Gi"), "UnknownAnnotation"),
        ("/metadata/annotations", annotated("mailroute.dev/sidecar-port", "smtp"), "InvalidAnnotation"),
        ("/metadata/annotations", annotated("mailroute.dev/sidecar-image", "x"), "ImageNotAllowed"),
        ("/metadata/annotations", annotated("mailroute.dev/sidecar-cpu-limit", "1m"), "RequestOverLimit"),
    ]
}

#[tokio::test]
async fn every_refusal_reaches_a_person_by_answer_event_and_metric() {
    for (pointer, value, reason) in refusals() {
        let (mut stage, mut pod) = (stage().await, pod());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        let answer = stage.ask(&review(&pod)).await;
        assert_eq!(answer["response"]["allowed"], false, "{reason}");
        let told = answer["response"]["status"]["message"].as_str().unwrap().to_owned();
        let event = stage.events.recv().await.unwrap();
        assert_eq!(
            (&event["reason"], &event["regarding"]["name"]),
            (&json!(reason), &json!("notifications"))
        );
        // The same sentence and the same remedy, by both ways.
        let words = told.strip_prefix("MailRoute: ").unwrap();
        assert!(event["note"].as_str().unwrap().ends_with(words), "{told}\n{event}");
        let counted = format!("mailroute_admissions_total{{outcome=\"refused\",reason=\"{reason}\"}} 1");
        assert!(stage.metrics().contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn a_flood_of_refusals_in_one_namespace_is_told_a_few_times_and_hides_no_refusal_of_another() {
    let mut stage = stage().await;
    let mut elsewhere = route("notifications");
    // Events of one object and reason become a series.
    elsewhere.metadata.namespace = Some("office".into());
    elsewhere.metadata.uid = Some("another".into());
    stage.apply(&Event::Apply(elsewhere));
    let mut reviews: Vec<_> = refusals()
        .into_iter()
        .map(|(pointer, value, _)| {
            let (mut pod, (parent, key)) = (pod(), pointer.rsplit_once('/').unwrap());
            pod.pointer_mut(parent).unwrap()[key] = value;
            review(&pod)
        })
        .collect();
    let mut other = reviews[0].clone();
    other["request"]["namespace"] = json!("office");
    reviews.push(other);
    for review in &reviews {
        assert_eq!(stage.ask(review).await["response"]["allowed"], false);
    }
    let mut told = vec![];
    while told.last().is_none_or(|namespace| namespace != "office") {
        told.push(stage.events.recv().await.unwrap()["regarding"]["namespace"].clone());
    }
    assert!((2..=6).contains(&told.len()), "{told:?}");
}

#[tokio::test]
async fn a_call_after_another_webhook_adds_what_that_one_took_and_nothing_else() {
    let stage = stage().await;
    let mut pod = patched(&stage.ask(&review(&pod())).await, pod());
    let containers = pod["spec"]["initContainers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "istio-proxy", "restartPolicy": "Always"}));
    containers[1]["env"] = json!([{"name": "AZURE_CLIENT_ID", "value": "x"}]);
    pod["spec"]["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "mailroute-spool");
    let again = patched(&stage.ask(&review(&pod)).await, pod.clone());
    assert_eq!(again["spec"]["initContainers"], pod["spec"]["initContainers"], "what others did stays");
    let volumes = |pod: &Value| pod["spec"]["volumes"].as_array().unwrap().len();
    assert_eq!(volumes(&again), volumes(&pod) + 1);
    assert!(stage.ask(&review(&again)).await["response"].get("patch").is_none());
}

#[tokio::test]
async fn an_api_server_that_is_too_old_gets_no_sidecar_until_it_is_upgraded() {
    let mut stage = stage().await;
    stage.kubernetes.send_replace(NativeSidecars::TooOld(Version { major: 1, minor: 28 }));
    let answer = stage.ask(&review(&pod())).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert!(answer["response"].get("patch").is_none(), "{answer}");
    assert_eq!(
        answer["response"]["status"]["message"],
        "MailRoute: The cluster is Kubernetes 1.28, and the mail sidecar needs 1.33 or newer, where native sidecars are \
         stable. Upgrade the cluster, which the operator notices within five minutes, or remove the label mailroute.dev/route."
    );
    let event = stage.events.recv().await.unwrap();
    assert_eq!(
        (&event["reason"], &event["regarding"]["name"]),
        (&json!("KubernetesTooOld"), &json!("notifications"))
    );
    assert!(stage.metrics().contains("outcome=\"refused\",reason=\"KubernetesTooOld\"} 1"));
    stage.kubernetes.send_replace(NativeSidecars::Fit);
    assert_eq!(stage.ask(&review(&pod())).await["response"]["patchType"], "JSONPatch");
}

#[tokio::test]
async fn a_dry_run_is_refused_without_an_event() {
    let mut stage = stage().await;
    let mut pod = pod();
    pod["spec"]["hostNetwork"] = json!(true);
    let mut dry = review(&pod);
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(stage.ask(&dry).await["response"]["allowed"], false);
    let metrics = stage.metrics();
    assert!(metrics.contains("outcome=\"dry_run\",reason=\"HostNetwork\"} 1"), "{metrics}");
    let mut refused = metrics.lines().filter(|line| line.contains("outcome=\"refused\""));
    assert!(refused.all(|line| line.ends_with(" 0")), "no pod was refused: {metrics}");
    // The next Event is that of another, real refusal: none came before it.
    pod["spec"]["hostNetwork"] = json!(false);
    pod["spec"]["os"] = json!({"name": "windows"});
    assert_eq!(stage.ask(&review(&pod)).await["response"]["allowed"], false);
    assert_eq!(stage.events.recv().await.unwrap()["reason"], "Windows");
}

#[tokio::test]
async fn a_route_that_cannot_be_used_refuses_its_pods() {
    let mut stage = stage().await;
    let mut broken = route("broken");
    broken.spec.client_submission = None;
    stage.apply(&Event::Apply(broken));
    let mut pod = pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("broken");
    let answer = stage.ask(&review(&pod)).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.clientSubmission"), "{message}");
    assert!(message.contains("kubectl describe mailroute broken"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_route_is_refused_after_two_seconds() {
    let stage = stage().await;
    let mut pod = pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("invoices");
    let began = tokio::time::Instant::now();
    let answer = stage.ask(&review(&pod)).await;
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(
        answer["response"]["status"]["message"],
        "MailRoute: There is no MailRoute \"invoices\" in namespace \"shop\". Existing ones: notifications. Correct the \
         label mailroute.dev/route, or apply a MailRoute of that name."
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_stored_and_cannot_be_read_is_not_called_unknown() {
    let stage = stage().await;
    let stored = json!({"metadata": {"name": "broken", "namespace": "shop"}, "spec": {"method": "Pigeon"}});
    let DeserializeGuard::<MailRoute>(read) = serde_json::from_value(stored).unwrap();
    stage.malformed.put(&read.unwrap_err());
    let mut pod = pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("broken");
    let answer = stage.ask(&review(&pod)).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("\"broken\" cannot be read by this version of the operator")
            && message.contains("Pigeon"),
        "{message}"
    );
    assert!(message.ends_with("kubectl explain mailroute.spec"), "{message}");
    assert!(stage.metrics().contains("reason=\"UnreadableRoute\""));
}

#[tokio::test]
async fn a_route_of_another_namespace_is_unknown() {
    let mut stage = stage().await;
    let mut elsewhere = route("invoices");
    elsewhere.metadata.namespace = Some("office".into());
    stage.apply(&Event::Apply(elsewhere));
    let mut pod = pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("invoices");
    let answer = stage.ask(&review(&pod)).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert!(!answer["response"]["status"]["message"].as_str().unwrap().contains("office"));
}

#[tokio::test]
async fn a_route_applied_a_moment_before_its_pod_is_waited_for() {
    let mut stage = stage().await;
    let mut pod = pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!("late");
    let webhook = Arc::clone(&stage.webhook);
    let asked = tokio::spawn(async move { ask(&webhook, &review(&pod)).await });
    // Changes that are not the one it waits for do not end the wait.
    stage.apply(&Event::Apply(route("other")));
    tokio::task::yield_now().await;
    stage.apply(&Event::Apply(route("late")));
    assert_eq!(asked.await.unwrap()["response"]["allowed"], true);
}

#[tokio::test(start_paused = true)]
async fn before_the_routes_are_known_a_pod_is_told_to_come_again() {
    let stage = empty_stage().await;
    let began = tokio::time::Instant::now();
    let answer = stage.ask(&review(&pod())).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(answer["response"]["status"]["code"], 503);
}

#[tokio::test]
async fn bodies_that_are_no_review_get_a_clear_answer() {
    let stage = stage().await;
    let mut v1beta1 = review(&pod());
    v1beta1["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut no_request = review(&pod());
    no_request.as_object_mut().unwrap().remove("request");
    let huge = Body::from(vec![b' '; 10 * 1024 * 1024]);
    for (body, status, words) in [
        (Body::from("hello"), StatusCode::BAD_REQUEST, "not an AdmissionReview"),
        (Body::from(v1beta1.to_string()), StatusCode::BAD_REQUEST, "v1beta1"),
        (Body::from(no_request.to_string()), StatusCode::BAD_REQUEST, "no request"),
        (huge, StatusCode::PAYLOAD_TOO_LARGE, "larger than"),
    ] {
        let answer = stage.webhook.handle(&peer(1), body, LabelOwner::Pod).await;
        assert_eq!(answer.status(), status);
        let text = to_bytes(answer.into_body(), 4096).await.unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.starts_with("MailRoute: ") && text.contains(words), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up_before_the_api_server_does() {
    let stage = stage().await;
    let began = tokio::time::Instant::now();
    let endless = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let answer = stage.webhook.handle(&peer(1), endless, LabelOwner::Pod).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Almost all of the largest body, and no end.
fn unfinished() -> Body {
    let part = futures::stream::once(async { Ok::<_, std::io::Error>(vec![b' '; 4_000_000].into()) });
    Body::from_stream(part.chain(futures::stream::pending::<Result<bytes::Bytes, _>>()))
}

#[tokio::test(start_paused = true)]
async fn addresses_take_their_own_share_of_memory_and_nobody_elses() {
    let stage = stage().await;
    let flooders = [66, 67, 68].map(peer);
    let (began, small) = (tokio::time::Instant::now(), review(&pod()).to_string());
    let mut flood: futures::stream::FuturesUnordered<_> =
        (0..100).map(|at| stage.webhook.handle(&flooders[at % 3], unfinished(), LabelOwner::Pod)).collect();
    assert!(flood.next().now_or_never().is_none(), "each waits for memory, or for the rest of its body");
    assert_eq!(stage.ask(&review(&pod())).await["response"]["patchType"], "JSONPatch");
    assert!(began.elapsed() < Duration::from_secs(1), "from another address there is no wait");
    let answers: Vec<_> = flood.collect().await;
    assert!(answers.iter().all(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE));
    assert!(began.elapsed() < Duration::from_secs(5));
    let answer = stage.webhook.handle(&flooders[0], Body::from(small), LabelOwner::Pod).await;
    assert_eq!(answer.status(), StatusCode::OK, "and all is as before");
}

/// A review of the pod with environment variables in 20 containers and with the owners of all its fields.
fn heavy(mut pod: Value, variables: usize) -> String {
    let names = || (0..variables / 20).map(|number| format!("VARIABLE_{number}"));
    let owned = names().map(|name| {
        let key = format!("k:{}", json!({"name": name}));
        (key, json!({".": {}, "f:name": {}, "f:value": {}}))
    });
    let owned: Value = owned.collect::<serde_json::Map<_, _>>().into();
    let env: Vec<_> = names().map(|name| json!({"name": name, "value": "of some length"})).collect();
    let name = |number| format!("app-{number}");
    let containers: Vec<_> =
        (0..20).map(|number| json!({"name": name(number), "image": "app", "env": env})).collect();
    let fields: serde_json::Map<_, _> =
        (0..20).map(|number| (format!("k:{}", name(number)), json!({"f:env": owned}))).collect();
    pod["spec"]["containers"] = containers.into();
    pod["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:containers": fields}}}]);
    review(&pod).to_string()
}

#[tokio::test(start_paused = true)]
async fn heavy_pods_of_an_unknown_route_keep_no_other_from_its_answer() {
    let stage = stage().await;
    let api_server = peer(1);
    let began = tokio::time::Instant::now();
    let mut unknown = pod();
    unknown["metadata"]["labels"]["mailroute.dev/route"] = json!("invoices");
    let unknown = heavy(unknown, 1_000);
    let flood =
        (0..20).map(|_| stage.webhook.handle(&api_server, Body::from(unknown.clone()), LabelOwner::Pod));
    let small = stage.webhook.handle(&api_server, Body::from(review(&pod()).to_string()), LabelOwner::Pod);
    let (flood, small) = futures::join!(futures::future::join_all(flood), small);
    assert!(flood.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(small.status(), StatusCode::OK);
    assert!(began.elapsed() < Duration::from_secs(1), "none of them waits for the route");
}

#[tokio::test]
async fn a_large_pod_gets_its_sidecar() {
    let stage = stage().await;
    let mut large = pod();
    large["metadata"]["annotations"] = json!({"example.com/notes": "x".repeat(250_000)});
    large["spec"]["containers"][0]["args"] = json!(["x".repeat(1_200_000)]);
    for body in [heavy(pod(), 1_000), review(&large).to_string()] {
        let answer = stage.webhook.handle(&peer(1), Body::from(body), LabelOwner::Pod).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_repeats_much_of_a_review_whatever_is_long_in_it() {
    let mut stage = stage().await;
    // Its pods' list of volumes is made longer.
    let mut unqueued = route("notifications");
    unqueued.spec.delivery.mode = DeliveryMode::Deliver;
    stage.apply(&Event::Apply(unqueued));
    // One octet in the body that takes six where it is quoted.
    let long = json!("\u{7f}".repeat(1_000_000));
    let with = |pointer: &str| {
        let mut review = review(&pod());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        review.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = long.clone();
        review
    };
    let metadata = "/request/object/metadata";
    let mut unknown_key = review(&pod());
    unknown_key["request"]["object"]["metadata"]["annotations"] =
        json!({format!("mailroute.dev/{}", long.as_str().unwrap()): ""});
    for review in [
        with("/apiVersion"),
        with("/kind"),
        with("/request/uid"),
        with("/request/name"),
        with("/request/namespace"),
        with("/request/operation"),
        with("/request/dryRun"),
        with(&format!("{metadata}/name")),
        with(&format!("{metadata}/generateName")),
        with(&format!("{metadata}/labels")),
        with(&format!("{metadata}/labels/mailroute.dev~1route")),
        with(&format!(
            "{metadata}/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes"
        )),
        with(&format!("{metadata}/annotations/mailroute.dev~1sidecar-port")),
        with("/request/object/spec/containers/0/name"),
        unknown_key,
    ] {
        for is_pod in [true, false] {
            let body = Body::from(review.to_string());
            let answer = match is_pod {
                true => stage.webhook.handle(&peer(66), body, LabelOwner::Pod).await,
                false => stage.webhook.handle_workload(&peer(66), body).await,
            };
            let length = to_bytes(answer.into_body(), usize::MAX).await.unwrap().len();
            assert!(length < 16 * 1024, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn a_small_body_that_grows_in_memory_is_refused_before_it_does() {
    let stage = stage().await;
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({});
    let grown = review(&pod).to_string().replacen(
        "\"annotations\":{}",
        &format!("\"x\":[{{}}{}]", ",{}".repeat(1_000_000)),
        1,
    );
    assert!(grown.len() < 4 * 1024 * 1024);
    let answer = stage.webhook.handle(&peer(66), Body::from(grown), LabelOwner::Pod).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let text = to_bytes(answer.into_body(), 4096).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("too many fields and list items"));
}

#[tokio::test]
async fn a_hundred_pods_are_admitted_without_a_call_to_the_api_server() {
    let mut stage = stage().await;
    let review = review(&pod());
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(stage.ask(&review).await["response"]["allowed"], true);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(stage.events.try_recv().is_err(), "something was sent to the API server");
}

#[tokio::test]
async fn a_stored_route_cannot_have_a_token_for_the_api_server_or_for_us_projected() {
    let mut stage = stage().await;
    for audience in [
        "mailroute.dev",
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
        "https://oidc.example.com/id/1",
        "api://somebody-else",
        "",
    ] {
        let mut stored = route("notifications");
        let named = Authority { audience: Some(audience.to_owned()), ..Default::default() };
        stored.spec.tenant.authority = Some(named);
        stage.apply(&Event::Apply(stored));
        let answer = stage.ask(&review(&pod())).await;
        assert_eq!(answer["response"]["allowed"], false, "{audience:?}");
        let told = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(told.contains("spec.tenant.authority.audience"), "{told}");
    }
}

#[tokio::test]
async fn a_route_of_a_cloud_without_a_published_host_is_resolved_with_what_the_platform_lends() {
    let mut dod: MailRoute = route("notifications");
    dod.spec.tenant.cloud = Cloud::USGovernmentDoD;
    let submission = dod.spec.client_submission.as_mut().unwrap();
    submission.credential.subject = Subject::Operator;
    let client_id = submission.credential.client_id.clone().unwrap();
    let lending = OperatorIdentity::parse(&format!(
        "applications: [{{tenantId: {}, clientId: {client_id}, cloud: USGovernmentDoD, endpoint: {{host: smtp.dod.example}}, \
         allow: [{{namespaces: [shop], mailboxes: [noreply@contoso.com]}}]}}]",
        dod.spec.tenant.id
    ));
    for (lending, is_injected) in [(lending.unwrap(), true), (OperatorIdentity::default(), false)] {
        let mut stage = stage_that_lends(lending).await;
        stage.apply(&Event::Init);
        stage.apply(&Event::InitApply(dod.clone()));
        stage.apply(&Event::InitDone);
        let answer = stage.ask(&review(&pod())).await;
        assert_eq!(answer["response"]["allowed"], is_injected, "{answer:#}");
        assert_eq!(answer["response"]["patchType"] == "JSONPatch", is_injected);
    }
}

/// What whoever applies the Deployment is warned of.
async fn warned(stage: &Stage, deployment: &Value) -> Option<String> {
    let mut review = review(deployment);
    review["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let answer = stage.webhook.handle_workload(&peer(1), Body::from(review.to_string())).await;
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], true, "nothing is refused");
    assert!(answer["response"].get("patch").is_none_or(Value::is_null), "nothing is changed");
    answer["response"]["warnings"][0].as_str().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn whoever_applies_a_workload_is_warned_of_what_its_pods_are_refused_for() {
    type Change = fn(&mut Value);
    let stage = stage().await;
    let label = json!({"app": "web", "mailroute.dev/route": "notifications"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "template": {"metadata": {"labels": label}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
    }});
    let changes: [(&str, Change); 6] = [
        ("the label mailroute.dev/route is on the workload itself", |it| {
            it["metadata"]["labels"] = it["spec"]["template"]["metadata"]["labels"].take();
        }),
        ("There is no MailRoute \"invoices\"", |it| {
            it["spec"]["template"]["metadata"]["labels"]["mailroute.dev/route"] = json!("invoices");
        }),
        ("hostNetwork", |it| it["spec"]["template"]["spec"]["hostNetwork"] = json!(true)),
        ("shareProcessNamespace", |it| it["spec"]["template"]["spec"]["shareProcessNamespace"] = json!(true)),
        ("hostPID", |it| it["spec"]["template"]["spec"]["hostPID"] = json!(true)),
        ("declares port 25", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 25}]);
        }),
    ];
    for (told, change) in changes {
        let mut changed = deployment.clone();
        change(&mut changed);
        let warning = warned(&stage, &changed).await.unwrap_or_default();
        assert!(warning.starts_with("MailRoute: ") && warning.contains(told), "{told}: {warning}");
    }
    assert_eq!(warned(&stage, &deployment).await, None);
    let mut both = deployment.clone();
    both["metadata"]["labels"] = both["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(warned(&stage, &both).await, None, "labelled twice");
    let mut annotated = deployment;
    annotated["spec"]["template"]["metadata"]["annotations"] = json!({"mailroute.dev/rout": "x"});
    assert_eq!(warned(&stage, &annotated).await, None, "the chart's policy warns of annotations");
    let cron_job = json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {
        "metadata": {"labels": {"mailroute.dev/route": "invoices"}}, "spec": {"containers": []},
    }}}}});
    assert!(warned(&stage, &cron_job).await.is_some());
}
