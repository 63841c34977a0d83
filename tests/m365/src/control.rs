//! The control API: plain HTTP with JSON, to read what arrived and to switch faults on; and the [`inbox`], which is a page.
//!
//! It holds no secret and has no authentication; bind it to loopback or keep it inside a test cluster. Each handler reads
//! or replaces one part of the [`Office`]; nothing is decided here.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{
    authority::Authority,
    config::Config,
    directory::{SAMPLE_PASSWORD, SAMPLE_SECRET},
    dns::Lookup,
    entra::TokenExchange,
    faults::Faults,
    inbox,
    keys::client_certificate,
    mailbox::Message,
    office::{Office, Shared},
    records::{GraphRequest, NonDeliveryReport},
    state::Stored,
    tally::Statistics,
    violations::Violation,
};

/// Longest long poll, seconds.
const MAX_WAIT: u64 = 3600;

/// The configurations beside the one that is in force.
#[derive(Clone, Debug)]
pub struct Configurations {
    /// Where the one of `PUT /config` is stored.
    pub stored: Stored,
    /// The one that the program was started with.
    pub first: Config,
}

#[derive(Clone, Debug)]
struct Control {
    shared: Arc<Shared>,
    authority: Arc<Authority>,
    configurations: Arc<Configurations>,
}

/// `?wait=N&timeout=S`: answer when N entries are there, or after S seconds with what is there.
#[derive(Debug, Default, Deserialize)]
struct Poll {
    wait: Option<usize>,
    timeout: Option<u64>,
}

/// `?keepOld=true`: the old key stays published.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    #[serde(default)]
    keep_old: bool,
}

/// `?subject=…&seconds=…` for an assertion of the stand-in issuer.
#[derive(Debug, Deserialize)]
struct Wanted {
    subject: String,
    seconds: Option<i64>,
}

/// `?name=a,b&seconds=…` for a client's certificate.
#[derive(Debug, Deserialize)]
struct ForClient {
    name: String,
    seconds: Option<i64>,
}

/// Every path of the API.
pub fn routes(shared: Arc<Shared>, authority: Arc<Authority>, configurations: Arc<Configurations>) -> Router {
    let inbox = inbox::routes(Arc::clone(&shared));
    Router::new()
        .route("/messages", get(messages).delete(forget_messages))
        .route("/messages/{id}", get(message).delete(forget_message))
        .route("/violations", get(violations).delete(forget_violations))
        .route("/tokens", get(tokens).delete(forget_tokens))
        .route("/lookups", get(lookups).delete(forget_lookups))
        .route("/requests", get(requests).delete(forget_requests))
        .route("/non-delivery-reports", get(reports).delete(forget_reports))
        .route("/statistics", get(statistics).delete(forget_statistics))
        .route("/config", get(config).put(put_config).delete(reset_config))
        .route("/faults", get(faults).put(put_faults).delete(clear_faults))
        .route("/issuer/rotate", post(rotate))
        .route("/issuer/assertion", get(assertion))
        .route("/sample/password", get(async || SAMPLE_PASSWORD))
        .route("/sample/client-secret", get(async || SAMPLE_SECRET))
        .route(
            "/sample/client-certificate.pem",
            get(async || client_certificate::stand_in().certificate_pem()),
        )
        .route("/sample/client-key.pem", get(async || client_certificate::stand_in().key_pem()))
        .route("/sample/relay-certificate", get(relay_certificate))
        .route("/ca.pem", get(ca_pem_file))
        .route("/livez", get(|| async { "ok\n" }))
        .with_state(Control { shared, authority, configurations })
        .merge(inbox)
}

impl Control {
    /// `list` gives a list in two pieces, as a ring has them.
    async fn poll<T: Clone>(&self, poll: &Poll, list: impl Fn(&Office) -> (&[T], &[T])) -> Json<Vec<T>> {
        if let Some(count) = poll.wait {
            let patience = Duration::from_secs(poll.timeout.unwrap_or(30).min(MAX_WAIT));
            let enough = |office: &Office| {
                let (first, second) = list(office);
                (first.len() + second.len() >= count).then_some(())
            };
            // After the time is over the caller gets what is there, and sees by its length that it is not enough.
            drop(tokio::time::timeout(patience, self.shared.wait_for(enough)).await);
        }
        Json(self.shared.read(|office| {
            let (first, second) = list(office);
            [first, second].concat()
        }))
    }
}

async fn messages(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<Message>> {
    control.poll(&poll, |office| office.messages.as_slices()).await
}

async fn message(State(control): State<Control>, Path(id): Path<u64>) -> Response {
    let found =
        control.shared.read(|office| office.messages.iter().find(|message| message.id == id).cloned());
    match found {
        Some(message) => Json(message).into_response(),
        None => (StatusCode::NOT_FOUND, format!("no message {id}\n")).into_response(),
    }
}

async fn forget_messages(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.messages.clear());
    StatusCode::NO_CONTENT
}

async fn forget_message(State(control): State<Control>, Path(id): Path<u64>) -> StatusCode {
    control.shared.with(|office| office.messages.retain(|message| message.id != id));
    StatusCode::NO_CONTENT
}

async fn violations(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<Violation>> {
    control.poll(&poll, |office| (&office.violations, &[])).await
}

async fn forget_violations(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.violations.clear());
    StatusCode::NO_CONTENT
}

async fn tokens(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<TokenExchange>> {
    control.poll(&poll, |office| (&office.exchanges, &[])).await
}

async fn forget_tokens(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.exchanges.clear());
    StatusCode::NO_CONTENT
}

async fn lookups(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<Lookup>> {
    control.poll(&poll, |office| (&office.lookups, &[])).await
}

async fn forget_lookups(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.lookups.clear());
    StatusCode::NO_CONTENT
}

async fn requests(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<GraphRequest>> {
    control.poll(&poll, |office| (&office.requests, &[])).await
}

async fn forget_requests(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.requests.clear());
    StatusCode::NO_CONTENT
}

async fn reports(State(control): State<Control>, Query(poll): Query<Poll>) -> Json<Vec<NonDeliveryReport>> {
    control.poll(&poll, |office| (&office.non_delivery_reports, &[])).await
}

async fn forget_reports(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.non_delivery_reports.clear());
    StatusCode::NO_CONTENT
}

async fn statistics(State(control): State<Control>) -> Json<Statistics> {
    Json(control.shared.read(Office::statistics))
}

async fn forget_statistics(State(control): State<Control>) -> StatusCode {
    control.shared.with(Office::forget_statistics);
    StatusCode::NO_CONTENT
}

async fn config(State(control): State<Control>) -> Json<Config> {
    Json(control.shared.read(|office| office.config.clone()))
}

async fn put_config(State(control): State<Control>, body: String) -> Response {
    let config: Config = match serde_json::from_str(&body) {
        Ok(config) => config,
        Err(error) => return bad_request(&error.to_string()),
    };
    let faults = config.faults();
    if !faults.is_empty() {
        return bad_request(&faults.join("\n"));
    }
    if let Err(error) = control.configurations.stored.keep(&config) {
        return failed(&format!("the configuration cannot be stored: {error}"));
    }
    tracing::info!(tenants = config.directory.tenants.len(), "configuration replaced");
    control.shared.with(|office| office.config = config);
    StatusCode::NO_CONTENT.into_response()
}

async fn reset_config(State(control): State<Control>) -> Response {
    if let Err(error) = control.configurations.stored.forget() {
        return failed(&format!("the stored configuration cannot be removed: {error}"));
    }
    tracing::info!("configuration of the start is back");
    control.shared.with(|office| office.config = control.configurations.first.clone());
    StatusCode::NO_CONTENT.into_response()
}

async fn faults(State(control): State<Control>) -> Json<Faults> {
    Json(control.shared.read(|office| office.faults.clone()))
}

async fn put_faults(State(control): State<Control>, body: String) -> Response {
    match serde_json::from_str::<Faults>(&body) {
        Ok(faults) => {
            tracing::info!("faults replaced");
            control.shared.with(|office| office.faults = faults);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => bad_request(&error.to_string()),
    }
}

async fn clear_faults(State(control): State<Control>) -> StatusCode {
    control.shared.with(|office| office.faults = Faults::default());
    StatusCode::NO_CONTENT
}

async fn rotate(State(control): State<Control>, Query(rotation): Query<Rotation>) -> StatusCode {
    control.shared.with(|office| office.stand_in.rotate(rotation.keep_old));
    StatusCode::NO_CONTENT
}

async fn assertion(State(control): State<Control>, Query(wanted): Query<Wanted>) -> String {
    let seconds = wanted.seconds.unwrap_or(3600);
    control.shared.read(|office| office.stand_in.assertion(&wanted.subject, Timestamp::now(), seconds))
}

async fn relay_certificate(State(control): State<Control>, Query(wanted): Query<ForClient>) -> Response {
    let names: Vec<String> = wanted.name.split(',').map(str::to_owned).collect();
    match control.authority.client(&names, Timestamp::now(), wanted.seconds.unwrap_or(86_400)) {
        Ok(identity) => {
            let [chain, leaf, key] = [identity.chain_pem, identity.leaf_pem, identity.key_pem];
            Json(json!({"chain": chain, "leaf": leaf, "key": key})).into_response()
        }
        Err(error) => bad_request(&error.to_string()),
    }
}

async fn ca_pem_file(State(control): State<Control>) -> String {
    control.authority.pem.clone()
}

fn failed(reason: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
}

fn bad_request(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}
