//! HTTP in and out of the control service: reads one report, answers one reply. Decides nothing but who may report what.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use mailroute_operator_core::REPORT_INTERVAL;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::reports::{ReportingPod, Reports};
use mailroute_operator_core::tenant_quotas::refusal;
use mailroute_quota::server::limits::Namespace;
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_route::control::{
    Allotment, Claim, MAX_REPORT_BYTES, MailboxAllotment, NotLeader, REPORT_PATH, Report, ReportReply,
    ShortOf,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::authenticate::{self, Authenticator};
use super::ids::{ApplicationKey, MailboxKey, running_sidecar, sidecar_id};
use super::lease::{Claimant, Leases, RunningPods};
use super::mailbox::Unwritten;
use super::request::bearer;
use crate::cache::pods::PodStore;
use crate::cache::route::{CachedRoute, RouteRef, RouteStore, SharedMailboxes};
use crate::cache::triggers::Triggers;
use crate::cache::watch::UnreadableRoutes;
use crate::leader_election::Leadership;
use crate::lock;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimit;

/// Longest request, whatever it waits for.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the service needs.
pub struct ReportService {
    /// Checks tokens.
    pub authenticator: Arc<Authenticator>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Pods with the label, as watched.
    pub pods: PodStore,
    /// Where reports are kept.
    pub reports: Arc<Mutex<Reports>>,
    /// Triggers the controller.
    pub triggers: Triggers,
    /// Counts what became of reports.
    pub metrics: Metrics,
    /// How often each pod may call.
    pub rate: Mutex<RateLimit>,
    /// Routes, as watched.
    pub routes: RouteStore,
    /// Those of them that cannot be read.
    pub malformed: UnreadableRoutes,
    /// Gives out leases of the mailboxes' limits.
    pub leases: Arc<Leases>,
}

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
enum ReportRefusal {
    #[error("this replica is not the leader")]
    NotLeader(NotLeader),
    #[error("send the projected token as Authorization: Bearer")]
    NoToken,
    #[error(transparent)]
    ReportingPod(#[from] authenticate::Error),
    #[error("too many reports from this pod; report at most once a second")]
    TooOften,
    #[error("the body is larger than {MAX_REPORT_BYTES} bytes, or incomplete")]
    Body,
    #[error("the body is not a report: {0}")]
    NotAReport(#[source] serde_json::Error),
    #[error(
        "the pod's label mailroute.dev/route does not name the reported route, or the pod lacks the sidecar of that route"
    )]
    NotItsRoute,
    #[error("the report took too long to arrive or to check")]
    TooSlow,
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
}

/// The routes of the service.
pub fn router(control: Arc<ReportService>) -> Router {
    Router::new().route(REPORT_PATH, post(report)).with_state(control)
}

async fn report(State(control): State<Arc<ReportService>>, request: Request) -> Response {
    control.handle(request).await
}

impl ReportService {
    /// Answers one report.
    pub async fn handle(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let taken = timeout(DEADLINE, self.take(&head, body)).await.unwrap_or(Err(ReportRefusal::TooSlow));
        self.metrics.report(taken.as_ref().map_or_else(ReportRefusal::label, |_| "accepted"));
        match taken {
            Ok(reply) => Json(reply).into_response(),
            Err(refusal) => {
                tracing::debug!(outcome = refusal.label(), error = %refusal, "report not accepted");
                refusal.into_response()
            }
        }
    }

    /// The cheap refusals come first: the body of an unknown caller is not read.
    async fn take(&self, head: &Parts, body: Body) -> Result<ReportReply, ReportRefusal> {
        self.must_lead()?;
        let (token, from) = bearer(head).ok_or(ReportRefusal::NoToken)?;
        let caller = self.authenticator.caller(token, from).await?;
        if !lock(&self.rate).allows(&caller.uid, Instant::now()) {
            return Err(ReportRefusal::TooOften);
        }
        let report: Report =
            serde_json::from_slice(&whole(body).await?).map_err(ReportRefusal::NotAReport)?;
        if authenticate::role_in(&caller, &self.pods, &report.route).is_none() {
            return Err(ReportRefusal::NotItsRoute);
        }
        let route = RouteRef::new(&report.route).within(&caller.namespace);
        let tenant = self.routes.get(&route).and_then(|route| route.summary().counted_tenant.clone());
        let claims = self.take_in(&caller, &report, tenant.as_deref());
        let has_several = !report.mailboxes.is_empty();
        if lock(&self.reports).record(&caller, report, Timestamp::now()) {
            self.triggers.add_reported(route.clone());
        }
        let (allotment, allotments) = match &claims[..] {
            [] => (None, vec![]),
            [claim] if !has_several => (self.allot(&caller, &route, claim).await?, vec![]),
            claims => (None, self.allot_each(&caller, &route, claims).await?),
        };
        let next_seconds = u32::try_from(REPORT_INTERVAL.as_secs()).unwrap_or(u32::MAX);
        Ok(ReportReply { next_seconds, allotment, allotments, route_deleted: self.is_deleted(&route) })
    }

    /// Notes what a report says of its tenant's limit, and returns its claims. A sidecar that met that limit asks for a lease when it is
    /// its turn to try.
    fn take_in(&self, caller: &ReportingPod, report: &Report, tenant: Option<&str>) -> Vec<Claim> {
        let mut claims: Vec<Claim> = report.claims().cloned().collect();
        let Some(tenant) = tenant else { return claims };
        let (now, mut reports) = (Timestamp::now(), lock(&self.reports));
        reports.note_tenant(tenant, caller, report, now);
        if let Some(met) = refusal(report).filter(|_| claims.iter().any(|claim| claim.messages > 0))
            && !reports.tenants.may_try(tenant, &caller.namespace, &caller.uid, met, now)
        {
            claims.iter_mut().for_each(|claim| claim.messages = 0);
        }
        claims
    }

    /// Whether the route is gone. One that was not read yet, or cannot be read, is not.
    fn is_deleted(&self, route: &RouteRef) -> bool {
        let is_filled = self.routes.wait_until_ready().now_or_never().is_some_and(|filled| filled.is_ok());
        let namespace = route.namespace.as_deref().unwrap_or_default();
        is_filled && self.routes.get(route).is_none() && !self.malformed.may_have(namespace, &route.name)
    }

    /// Answers what a report asks of the mailbox's limits.
    async fn allot(
        &self,
        caller: &ReportingPod,
        route: &RouteRef,
        claim: &Claim,
    ) -> Result<Option<Allotment>, ReportRefusal> {
        self.leases.sweep(|| self.running());
        let who = match self.claimant(route, caller, &claim.mailbox) {
            Claims::As(who) => who,
            Claims::Another => return Ok(Some(self.leases.later())),
            Claims::Nobody => return Ok(None),
        };
        let allotment = self.leases.exchange(&who, claim).await?;
        // Another replica may lead by now, and give out the same again.
        self.must_lead()?;
        if let Some(outcome) = allotment.as_ref().and_then(outcome) {
            self.metrics.lease(outcome);
        }
        Ok(allotment)
    }

    /// Answers what a report asks of the limits of several mailboxes. What cannot be answered for one is no concern of the others.
    async fn allot_each(
        &self,
        caller: &ReportingPod,
        route: &RouteRef,
        claims: &[Claim],
    ) -> Result<Vec<MailboxAllotment>, ReportRefusal> {
        let answers = claims.iter().map(|claim| self.allot(caller, route, claim));
        let mut allotments = Vec::new();
        for (claim, answer) in claims.iter().zip(join_all(answers).await) {
            match answer {
                Ok(Some(allotment)) => {
                    allotments.push(MailboxAllotment { mailbox: claim.mailbox.clone(), allotment });
                }
                Ok(None) | Err(ReportRefusal::Unwritten(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(allotments)
    }

    /// Who claims a mailbox: by the route, when it is accepted; when it is gone, by what it was when this pod claimed
    /// last, so that what the pod has queued goes out. Nobody by a method that has no mailbox.
    fn claimant(&self, route: &RouteRef, caller: &ReportingPod, address: &str) -> Claims {
        let Some(found) = self.routes.get(route) else {
            let holder = sidecar_id(&caller.uid);
            let remembered = self.leases.remembered(holder, &caller.namespace, &route.name, address);
            return remembered.map_or(Claims::Nobody, Claims::As);
        };
        let claims = claimant(&found, caller, address);
        if let Claims::As(who) = &claims {
            self.leases.remember(who);
        }
        claims
    }

    /// The pods that have not ended, and the sidecars that run, by the mailbox of their route. A pod that has not been started, or
    /// whose route is not accepted, sends nothing.
    fn running(&self) -> RunningPods {
        let mut running = RunningPods::default();
        let pods = self.pods.state();
        running.pods = pods.iter().filter(|pod| !pod.has_run()).map(|pod| sidecar_id(pod.uid())).collect();
        for route in self.routes.state() {
            let Some(shared) = &route.summary().shared else { continue };
            let pods = self.pods.of_route(&RouteRef::from_obj(&*route));
            let sidecars: Vec<_> = running_as(pods.iter().filter(|pod| pod.takes_mail()));
            if sidecars.is_empty() {
                continue;
            }
            let application = application_of(shared);
            for mailbox in mailboxes_of(shared) {
                if let Some(application) = &application {
                    running.applications.entry(application.clone()).or_default().insert(mailbox.clone());
                }
                running.by_mailbox.entry(mailbox).or_default().extend_from_slice(&sidecars);
            }
        }
        running
    }

    fn must_lead(&self) -> Result<(), ReportRefusal> {
        let leadership = self.leadership.borrow();
        if leadership.leading {
            return Ok(());
        }
        let leader = leadership.leader.as_ref().map(|leader| leader.control.to_string());
        Err(ReportRefusal::NotLeader(NotLeader { leader }))
    }
}

impl ReportRefusal {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::NotLeader(_) => "not_leader",
            Self::NoToken => "unauthenticated",
            Self::ReportingPod(error) => error.label(),
            Self::TooOften => "throttled",
            Self::Body => "too_large",
            Self::NotAReport(_) => "malformed",
            Self::NotItsRoute => "forbidden",
            Self::TooSlow => "slow",
            Self::Unwritten(_) => "unwritten",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NotLeader(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ReportingPod(error) => error.status(),
            Self::Unwritten(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAReport(_) => StatusCode::BAD_REQUEST,
            Self::NotItsRoute => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl IntoResponse for ReportRefusal {
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

/// Who makes a claim.
enum Claims {
    /// A sidecar of a route that names the mailbox.
    As(Claimant),
    /// One of a route that names other mailboxes.
    Another,
    /// One of a route whose limits are not shared.
    Nobody,
}

/// Who claims this mailbox by this route. The method makes no difference: the limits are the mailbox's.
fn claimant(route: &CachedRoute, caller: &ReportingPod, address: &str) -> Claims {
    let Some(shared) = &route.summary().shared else { return Claims::Nobody };
    let Some(named) = shared.addresses.iter().find(|own| own.eq_ignore_ascii_case(address)) else {
        return Claims::Another;
    };
    Claims::As(Claimant {
        holder: sidecar_id(&caller.uid),
        namespace: caller.namespace.as_str().into(),
        route: route.name_any(),
        mailbox: MailboxKey::of(&shared.tenant, named),
        address: named.to_string(),
        of_route: mailboxes_of(shared),
        limits: shared.limits,
        application: application_of(shared),
    })
}

fn mailboxes_of(shared: &SharedMailboxes) -> Vec<MailboxKey> {
    shared.addresses.iter().map(|address| MailboxKey::of(&shared.tenant, address)).collect()
}

fn application_of(shared: &SharedMailboxes) -> Option<ApplicationKey> {
    shared.application.as_ref().map(|client_id| ApplicationKey::of(&shared.tenant, client_id))
}

/// Of pods of one route.
fn running_as<'a>(pods: impl Iterator<Item = &'a Arc<WatchedPod>>) -> Vec<RunningSidecar> {
    let mut namespace = None;
    let running = pods.map(|pod| {
        let made = pod.created().map_or(0, Timestamp::as_millisecond);
        let namespace = namespace.get_or_insert_with(|| Namespace::from(pod.namespace()));
        running_sidecar(namespace, pod.uid(), Duration::from_millis(u64::try_from(made).unwrap_or_default()))
    });
    running.collect()
}

async fn whole(body: Body) -> Result<Bytes, ReportRefusal> {
    to_bytes(body, MAX_REPORT_BYTES).await.map_err(|_| ReportRefusal::Body)
}
