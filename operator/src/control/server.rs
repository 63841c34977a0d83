//! HTTP in and out of the control service: reads one report, answers one reply. Decides nothing but who may report what.

use std::collections::HashMap;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use mailroute_route::control::{
    Allotment, Claim, MAX_REPORT_BYTES, NotLeader, REPORT_PATH, Report, ReportReply, ShortOf,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::authenticate::{self, Authenticator};
use super::books;
use super::leases::{Claimant, Leases};
use super::lock;
use super::reports::{Caller, INTERVAL, Reports};
use crate::budget::ledger::Living;
use crate::budget::mailboxes::Key;
use crate::budget::{Holder, Limits};
use crate::controller::pods::has_run;
use crate::controller::triggers::Triggers;
use crate::controller::watch::route_of;
use crate::crd::MailRoute;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimit;
use crate::server::Peer;

/// A request that takes longer is broken off, whatever it waits for.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the service needs.
pub struct Control {
    /// Checks tokens.
    pub authenticator: Arc<Authenticator>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Pods with the label, as watched.
    pub pods: Store<Pod>,
    /// Where reports are kept.
    pub reports: Arc<Mutex<Reports>>,
    /// Tells the controller of news.
    pub triggers: Triggers,
    /// Counts what became of reports.
    pub metrics: Metrics,
    /// How often each pod may call.
    pub rate: Mutex<RateLimit>,
    /// Routes, as watched.
    pub routes: Store<MailRoute>,
    /// Gives out leases of the mailboxes' limits.
    pub leases: Arc<Leases>,
}

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this replica is not the leader")]
    NotLeader(NotLeader),
    #[error("send the projected token as Authorization: Bearer")]
    NoToken,
    #[error(transparent)]
    Caller(#[from] authenticate::Error),
    #[error("too many reports from this pod; report at most once a second")]
    TooOften,
    #[error("the body is larger than {MAX_REPORT_BYTES} bytes, or broke off")]
    Body,
    #[error("the body is not a report: {0}")]
    NotAReport(#[source] serde_json::Error),
    #[error("the pod does not have the label mailroute.dev/route with the route it reports for")]
    NotItsRoute,
    #[error("the report took too long to arrive or to check")]
    TooSlow,
    #[error("what the mailbox has sent cannot be read or written down")]
    Books(#[from] books::Error),
}

/// The routes of the service.
pub fn router(control: Arc<Control>) -> Router {
    Router::new().route(REPORT_PATH, post(report)).with_state(control)
}

async fn report(State(control): State<Arc<Control>>, request: Request) -> Response {
    control.handle(request).await
}

impl Control {
    /// Answers one report.
    pub async fn handle(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let taken = timeout(DEADLINE, self.take(&head, body)).await.unwrap_or(Err(Refusal::TooSlow));
        self.metrics.report(taken.as_ref().map_or_else(Refusal::label, |_| "accepted"));
        match taken {
            Ok(reply) => Json(reply).into_response(),
            Err(refusal) => {
                match &refusal {
                    Refusal::Books(error) => {
                        tracing::warn!(%error, cause = ?error.source(), "no leases are given out");
                    }
                    _ => tracing::debug!(outcome = refusal.label(), error = %refusal, "report not taken"),
                }
                refusal.into_response()
            }
        }
    }

    /// The cheap refusals come first: the body of an unknown caller is not read.
    async fn take(&self, head: &Parts, body: Body) -> Result<ReportReply, Refusal> {
        self.must_lead()?;
        let (token, from) = bearer(head).ok_or(Refusal::NoToken)?;
        let caller = self.authenticator.caller(token, from).await?;
        if !lock(&self.rate).allows(&caller.uid, Instant::now()) {
            return Err(Refusal::TooOften);
        }
        let report: Report = serde_json::from_slice(&whole(body).await?).map_err(Refusal::NotAReport)?;
        if !authenticate::is_pod_of(&caller, &self.pods, &report.route) {
            return Err(Refusal::NotItsRoute);
        }
        let route = ObjectRef::<MailRoute>::new(&report.route).within(&caller.namespace);
        let claim = report.claim.clone();
        if lock(&self.reports).record(&caller, report, Timestamp::now()) {
            self.triggers.add(route.clone());
        }
        let allotment = match claim {
            Some(claim) => self.allot(&caller, &route, &claim).await?,
            None => None,
        };
        Ok(ReportReply { next_seconds: u32::try_from(INTERVAL.as_secs()).unwrap_or(u32::MAX), allotment })
    }

    /// Answers what a report asks of the mailbox's limits.
    async fn allot(
        &self,
        caller: &Caller,
        route: &ObjectRef<MailRoute>,
        claim: &Claim,
    ) -> Result<Option<Allotment>, Refusal> {
        self.leases.sweep(|| self.living());
        let Some((who, mailbox)) = self.routes.get(route).and_then(|route| claimant(&route, caller)) else {
            return Ok(None);
        };
        if !mailbox.eq_ignore_ascii_case(&claim.mailbox) {
            return Ok(Some(self.leases.later()));
        }
        let allotment = self.leases.exchange(&who, claim).await?;
        // Another replica may lead by now, and give out the same again.
        self.must_lead()?;
        if let Some(outcome) = allotment.as_ref().and_then(outcome) {
            self.metrics.lease(outcome);
        }
        Ok(allotment)
    }

    /// The sidecars of the pods that have not ended, by the mailbox of their route.
    fn living(&self) -> HashMap<Key, Vec<Living>> {
        let mut living = HashMap::<Key, Vec<Living>>::new();
        for pod in self.pods.state().iter().filter(|pod| !has_run(pod)) {
            let Some(uid) = pod.uid() else { continue };
            let mailbox = route_of(pod).and_then(|route| mailbox_of(self.routes.get(&route)?.as_ref()));
            // One whose route is gone or has no mailbox lives as well: what it was leased of another one is not over.
            living.entry(mailbox.unwrap_or_default()).or_default().push(living_as(pod, &uid));
        }
        living
    }

    fn must_lead(&self) -> Result<(), Refusal> {
        let leadership = self.leadership.borrow();
        if leadership.leading {
            return Ok(());
        }
        let leader = leadership.leader.as_ref().map(|leader| leader.control.to_string());
        Err(Refusal::NotLeader(NotLeader { leader }))
    }
}

impl Refusal {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::NotLeader(_) => "not_leader",
            Self::NoToken => "unauthenticated",
            Self::Caller(error) => error.label(),
            Self::TooOften => "throttled",
            Self::Body => "too_large",
            Self::NotAReport(_) => "malformed",
            Self::NotItsRoute => "forbidden",
            Self::TooSlow => "slow",
            Self::Books(_) => "unwritten",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NotLeader(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::Caller(error) => error.status(),
            Self::Books(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAReport(_) => StatusCode::BAD_REQUEST,
            Self::NotItsRoute => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        match self {
            Self::NotLeader(body) => (status, Json(body)).into_response(),
            other => (status, format!("{other}\n")).into_response(),
        }
    }
}

/// What became of asking for a lease, for the metric; nothing when none was asked for.
const fn outcome(allotment: &Allotment) -> Option<&'static str> {
    match (&allotment.lease, allotment.short_of) {
        (Some(_), _) => Some("granted"),
        (None, Some(ShortOf::Messages)) => Some("messages"),
        (None, Some(ShortOf::Recipients)) => Some("recipients"),
        (None, Some(ShortOf::Connections)) => Some("connections"),
        (None, None) => None,
    }
}

/// Who claims by this route, and of which mailbox; nobody by a method that has none.
fn claimant(route: &MailRoute, caller: &Caller) -> Option<(Claimant, String)> {
    let (spec, submission) = (&route.spec, route.spec.client_submission.as_ref()?);
    let limits = &spec.limits;
    let who = Claimant {
        holder: Holder::of(&caller.uid),
        route: format!("{}/{}", caller.namespace, route.name_any()),
        mailbox: mailbox_of(route)?,
        limits: Limits {
            messages: limits.messages_per_minute,
            recipients: limits.recipients_per_day,
            connections: limits.connections,
        },
    };
    Some((who, submission.mailbox.clone()))
}

fn mailbox_of(route: &MailRoute) -> Option<Key> {
    let submission = route.spec.client_submission.as_ref()?;
    Some(Key::of(&route.spec.tenant.id, &submission.mailbox))
}

fn living_as(pod: &Pod, uid: &str) -> Living {
    let made = pod.metadata.creation_timestamp.as_ref().map_or(0, |Time(at)| at.as_millisecond());
    Living::of(uid, Duration::from_millis(u64::try_from(made).unwrap_or_default()))
}

async fn whole(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, MAX_REPORT_BYTES).await.map_err(|_| Refusal::Body)
}

/// The token of `Authorization: Bearer`, and the address it comes from.
pub(crate) fn bearer(head: &Parts) -> Option<(&str, IpAddr)> {
    let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let from = head.extensions.get::<Peer>()?.address();
    scheme.eq_ignore_ascii_case("bearer").then(|| (token.trim(), from))
}
