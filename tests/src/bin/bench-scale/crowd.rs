//! The crowd: routes, and pods that use them, as an API server stores them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::replica::asking;
use e2e::replica::stage::{labelled_pod, reviewer_config};
use e2e::scene::workload;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::interval;

use crate::api::ApiServer;

/// Routes of one namespace: as many mailboxes as pods of one namespace may be the first to send as.
const ROUTES_OF_A_NAMESPACE: usize = 100;

/// Of so many routes one is busy.
const BUSY: usize = 10;

/// Where MailRoutes are.
pub const ROUTES: &str = "mailroutes.mailroute.dev";

/// Where pods are.
const PODS: &str = "pods.";

/// How many of what there are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// MailRoutes.
    pub routes: usize,
    /// Labelled pods.
    pub pods: usize,
}

impl Size {
    /// From `1000x5000`.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn parse(text: &str) -> Result<Self> {
        let (routes, pods) = text.split_once('x').context("ROUTESxPODS is wanted")?;
        Ok(Self { routes: routes.parse()?, pods: pods.parse()? })
    }
}

/// A pod that reports.
pub struct Reporter {
    /// Its address, of this machine.
    pub address: Ipv4Addr,
    /// Its token.
    pub token: String,
    /// Name of its route.
    pub route: String,
    /// Its mailbox.
    pub mailbox: String,
    /// Whether it sends all the time, so that its numbers change with each report.
    pub is_busy: bool,
}

/// Stores the routes.
pub fn make_routes(api: &ApiServer, size: Size) {
    for number in 0..size.routes {
        let (namespace, name) = (namespace(number), name(number));
        let mut route = workload::route(&name, &namespace);
        // Full of what routes have, so that memory is that of real ones.
        let allow: Vec<_> = (0..20).map(|n| json!(format!("sender-{n}@contoso.com"))).collect();
        route["spec"]["senders"] = json!({"allow": allow});
        route["spec"]["clientSubmission"]["mailbox"] = json!(mailbox(number));
        route["metadata"]["generation"] = json!(1);
        route["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": route["spec"].to_string()});
        route["metadata"]["managedFields"] = managed_fields();
        api.objects.put(ROUTES, &namespace, &name, route);
    }
}

/// Stores the pods, as they come out of the webhook of a replica and then run.
///
/// # Errors
/// When the webhook adds no sidecar.
pub async fn make_pods(api: &ApiServer, size: Size, bundle: &str, webhook: SocketAddr) -> Result<()> {
    let reviewer = Client::try_from(reviewer_config(bundle, webhook)?)?;
    // The webhook bounds how fast one address may ask.
    let mut moments = interval(Duration::from_micros(2500));
    let mut injected = Vec::with_capacity(size.routes);
    for route in 0..size.routes {
        moments.tick().await;
        injected.push(self::injected(&reviewer, route).await?);
    }
    for number in 0..size.pods {
        let route = number % size.routes;
        let mut pod = injected[route].clone();
        let name = pod_name(number, size);
        let metadata = &mut pod["metadata"];
        metadata["uid"] = json!(uid(number));
        metadata["labels"]["pod-template-hash"] = json!("6c9f7d5b8d");
        metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
            "name": format!("web-{route}-6c9f7d5b8d"), "uid": uid(route)}]);
        metadata["managedFields"] = managed_fields();
        let address = address(number).to_string();
        pod["status"] = json!({
            "phase": "Running",
            "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "initContainerStatuses": [{"name": "mailroute", "image": "", "imageID": "", "ready": true,
                "restartCount": 0, "started": true, "state": {"running": {"startedAt": "2026-11-01T00:00:10Z"}}}],
        });
        api.objects.put(PODS, &namespace(route), &name, pod);
    }
    Ok(())
}

/// A new pod of a route, as large as pods usually are.
pub fn new_pod(route: usize) -> Value {
    let mut pod = labelled_pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!(name(route));
    let environment: Vec<_> =
        (0..20).map(|n| json!({"name": format!("SETTING_{n}"), "value": "a value of some length"})).collect();
    pod["spec"]["containers"][0]["env"] = json!(environment);
    pod
}

/// The pod as the webhook makes it.
async fn injected(reviewer: &Client, route: usize) -> Result<Value> {
    let mut pod = new_pod(route);
    let review = serde_json::to_vec(&asking::review(&namespace(route), &pod))?;
    let request = hyper::Request::post("/inject").header("content-type", "application/json");
    let answer = reviewer.send(request.body(Body::from(review))?).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    let patch = answer.pointer("/response/patch").and_then(Value::as_str);
    let patch = STANDARD.decode(patch.with_context(|| format!("no patch: {answer}"))?)?;
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch)?)?;
    Ok(pod)
}

/// The pods that report.
pub fn reporters(size: Size) -> Vec<Reporter> {
    (0..size.pods).map(|number| reporter(number, size)).collect()
}

fn reporter(number: usize, size: Size) -> Reporter {
    let route = number % size.routes;
    let bound =
        json!({"namespace": namespace(route), "pod": {"name": pod_name(number, size), "uid": uid(number)}});
    // As long as a real one.
    let claims =
        json!({"aud": ["mailroute.dev"], "kubernetes.io": bound, "filled": "x".repeat(200)}).to_string();
    let token = format!("e30.{}.{}", URL_SAFE_NO_PAD.encode(claims), "s".repeat(340));
    let is_busy = route.is_multiple_of(BUSY);
    Reporter { address: address(number), token, route: name(route), mailbox: mailbox(route), is_busy }
}

/// Where a route of this number is.
pub fn namespace(route: usize) -> String {
    format!("crowd-{}", route / ROUTES_OF_A_NAMESPACE)
}

fn name(route: usize) -> String {
    format!("route-{route}")
}

fn mailbox(route: usize) -> String {
    format!("noreply-{route}@contoso.com")
}

fn pod_name(number: usize, size: Size) -> String {
    format!("web-{}-6c9f7d5b8d-{number:05x}", number % size.routes)
}

fn uid(number: usize) -> String {
    format!("{number:08x}-86f1-41af-91ab-{number:012x}")
}

/// Loopback has as many addresses as there are pods: the operator bounds what one address may do.
fn address(number: usize) -> Ipv4Addr {
    let [_, a, b, c] = (number as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, a + 1, b, c)
}

/// What an API server adds to each object, about as long as it usually is.
fn managed_fields() -> Value {
    let fields: serde_json::Map<_, _> =
        (0..40).map(|n| (format!("f:field{n}"), json!({".": {}, "f:name": {}}))).collect();
    json!([{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-11-01T00:00:00Z", "fieldsV1": {"f:spec": fields}}])
}
