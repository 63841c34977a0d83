//! The controller: from a `MailRoute` to the configuration of its sidecars, and from their reports to its status.
//!
//! ```text
//!  triggers (route, pod, report, authority changed)
//!      │
//!      ▼
//!  accepted? ──► render ──► apply ──► status ──► publish
//!   (core)       (core)    (client)   (core)    (client)
//! ```
//!
//! Runs on the leader alone. No finalizer: what a route owns is removed by the garbage collector, so a route can be deleted
//! while the operator is down.

pub mod applied;
pub mod apply;
pub mod backoff;
mod context;
mod deletion;
pub mod evict;
pub mod lost;
pub mod orphans;
pub mod publish;
pub mod rollout;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::applier;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::pods::{BarePod, SidecarPod};
use mailroute_operator_core::reports::ReceivedReport;
use mailroute_operator_core::resolve::render;
use mailroute_operator_core::rollout::age::ages;
use mailroute_operator_core::rollout::plan::{RolloutFacts, plan};
use mailroute_operator_core::status::lost_messages::LeftMessages;
use mailroute_operator_core::status::{self, Acceptance, RouteFacts, lost_messages, sidecars_reporting};
use mailroute_operator_core::{REPORT_INTERVAL, STALE_AFTER};
use mailroute_route::text::chain;
use tokio::time::timeout;

use self::context::DEADLINE;
pub use self::context::{Context, Error};
use crate::cache::pods::PodStore;
use crate::cache::route::{CachedRoute, OpenRoute};
use crate::cache::watch;
use crate::events::OwnReason;
use crate::lock;
use crate::preflight::need::needs;

/// Routes that are reconciled at a time.
const AT_ONCE: u16 = 8;

/// How long a new leader waits for an authority before it renders routes without one.
const AUTHORITY_PATIENCE: Duration = Duration::from_secs(15);

/// A route without pods is looked at this often, in case somebody changed what it owns.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);

/// A reconciliation on its way: the context, and since when this replica leads.
struct Term {
    context: Arc<Context>,
    since: Timestamp,
}

/// Reconciles until it is dropped. To be run only while this replica leads.
pub async fn run(context: Arc<Context>) {
    until_known(&context).await;
    let term = Arc::new(Term { context: Arc::clone(&context), since: Timestamp::now() });
    // Whatever changed while another replica led, or nobody did.
    add_all(&context);
    let queue = context.triggers.stream().map(Ok::<_, std::convert::Infallible>);
    let config = controller::Config::default().concurrency(AT_ONCE);
    let reconciled = applier(
        |route, term| Box::pin(reconcile(route, term)),
        failed,
        term,
        context.routes.clone(),
        queue,
        config,
    );
    let reconciled = reconciled.for_each(|outcome| async {
        // `failed` has reported failures; what is left are triggers for routes that are gone.
        if let Err(controller::Error::ObjectNotFound(gone)) = outcome {
            let gone = ObjectRef::new(&gone.name).within(gone.namespace.as_deref().unwrap_or_default());
            deletion::look(&context, &gone, Timestamp::now());
            context.backoff.succeeded(&gone);
            context.applied.forget(&gone);
            context.rollouts.forget(&gone);
        }
    });
    tokio::select! {
        () = reconciled => {}
        () = follow_authority(&context) => {}
    }
}

/// Waits for what a first look would get wrong: it would find no pods while they are being listed, and no control service while the
/// authority is being read.
async fn until_known(context: &Context) {
    context.pods.filled().await;
    watch::filled(&context.routes).await;
    let mut bundle = context.ca_bundle.clone();
    let known = timeout(AUTHORITY_PATIENCE, bundle.wait_for(|bundle| !bundle.is_empty())).await.is_ok();
    if !known {
        tracing::warn!("there is no certificate authority yet; sidecars are not told of the control service");
    }
}

/// A new authority goes into every route before anything is signed with it.
async fn follow_authority(context: &Context) {
    let (mut bundle, mut identity_ca) = (context.ca_bundle.clone(), context.identity_ca.clone());
    loop {
        let changed = tokio::select! {
            changed = bundle.changed() => changed,
            changed = identity_ca.changed() => changed,
        };
        if changed.is_err() {
            break;
        }
        add_all(context);
    }
    // Its sender lives as long as the process.
    std::future::pending::<()>().await;
}

fn add_all(context: &Context) {
    context.routes.state().iter().for_each(|route| context.triggers.add(ObjectRef::from_obj(&**route)));
}

async fn reconcile(route: Arc<CachedRoute>, term: Arc<Term>) -> Result<Action, Error> {
    let started = Instant::now();
    let outcome = timeout(DEADLINE, steps(&route.open(), &term)).await.unwrap_or(Err(Error::Late));
    let label = outcome.as_ref().map_or_else(Error::label, |_| "ok");
    term.context.metrics.reconciled(label, started.elapsed());
    if outcome.is_ok() {
        term.context.backoff.succeeded(&ObjectRef::from_obj(&*route));
    }
    outcome
}

/// The steps, in order. A route that cannot be rendered still gets its status.
async fn steps(route: &OpenRoute, term: &Term) -> Result<Action, Error> {
    if route.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let context = &term.context;
    let (acceptance, applied) = render(route, context).await;
    let now = Timestamp::now();
    let reports = reports_of(route, context, now);
    let (pods, bare) = pods_of(route, &context.pods);
    let ages = ages(route.resolution(), &context.sidecar, &pods);
    let history = context.rollouts.of(&route.reference(), &pods, &ages, Instant::now());
    let rollout = route.spec.rollout;
    let plan =
        plan(&RolloutFacts { rollout, pods: &pods, ages: &ages, reports: &reports, history: &history });
    let settling = (now.duration_since(term.since) < STALE_AFTER).then_some(term.since);
    let egress = reports.values().filter_map(|received| received.report.egress);
    let dns = context.dns.notice(&needs(&route.spec, egress));
    let live = |uid: &str| pods.iter().find(|pod| pod.uid == uid).map(|pod| pod.role);
    let left = lost_messages::left(&reports, |uid| live(uid).is_some());
    let silent = {
        let reports = lock(&context.reports);
        sidecars_reporting::silent(&pods, context.silent_after, |uid| reports.last(uid), term.since, now)
    };
    let lost = context.lost.before(route).saturating_add(lost_messages::sum(&left));
    let facts = RouteFacts {
        route,
        acceptance: &acceptance,
        resolution: route.resolution(),
        pods: &pods,
        bare: &bare,
        reports: &reports,
        settling,
        rollout: &plan,
        federated: context.federation.subjects(
            &route.reference(),
            &context.routes,
            &context.pods,
            Instant::now(),
        ),
        dns: &dns,
        silent: &silent,
        lost,
        tenant_quota_met: is_tenant_quota_met(route, context, now),
    };
    let status = status::compute(&facts, now);
    publish::publish(context.client.clone(), &context.events, route, &status)
        .await
        .map_err(|error| Error::Publish(error.into()))?;
    context.lost.written(route, lost);
    warn_of_losses(route, context, &left, lost_messages::given_up(&reports, settling.is_some()));
    lock(&context.reports).told(&route.namespace().unwrap_or_default(), &route.name_any(), &reports, live);
    applied?;
    let soon = if status::is_shown(&route.spec, &status.conditions) {
        rollout::carry_out(route, &pods, &plan, context).await?
    } else {
        None
    };
    // Numbers and ages of reports change without a trigger.
    let is_idle = status.sidecars.injected == 0 && status.usage.messages_last_minute == 0;
    let usual = if is_idle { IDLE_INTERVAL } else { REPORT_INTERVAL.unsigned_abs() };
    Ok(Action::requeue(soon.unwrap_or(usual)))
}

/// Sends Events about dead letters, in words, and about messages that pods left behind when they ended.
fn warn_of_losses(route: &MailRoute, context: &Context, left: &[LeftMessages], given_up: Option<String>) {
    if let Some(message) = given_up {
        context.events.warn(route.object_ref(&()), OwnReason::DeadLetters.as_str(), "Reconcile", message);
    }
    let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
    for left in left {
        deletion::count(context, &namespace, &name, left);
        context.events.warn_of(
            route.object_ref(&()),
            left.reference(&namespace),
            OwnReason::MessagesLeft.as_str(),
            "Reconcile",
            left.message(None),
        );
    }
}

/// accepted? → render → apply.
async fn render(route: &OpenRoute, context: &Context) -> (Acceptance, Result<(), Error>) {
    let acceptance = Acceptance::of(route.resolution(), &context.sidecar);
    let Ok(resolved) = route.resolution().accepted() else { return (acceptance, Ok(())) };
    let (bundle, identity_ca) = (context.ca_bundle.borrow().clone(), context.identity_ca.borrow().clone());
    let config_map = render::config_map(resolved, &context.settings, &bundle, &identity_ca);
    let key = route.reference();
    if context.applied.is_recent(&key, &config_map, Instant::now()) {
        return (acceptance, Ok(()));
    }
    match apply::apply(context.client.clone(), &config_map).await {
        Ok(()) => {
            context.applied.put(key, &config_map, Instant::now());
            (acceptance, Ok(()))
        }
        Err(error) => {
            context.applied.forget(&key);
            (Acceptance::Unwritten(chain(&error)), Err(error.into()))
        }
    }
}

fn reports_of(route: &MailRoute, context: &Context, now: Timestamp) -> BTreeMap<String, ReceivedReport> {
    lock(&context.reports).of(&route.namespace().unwrap_or_default(), &route.name_any(), now)
}

/// Whether another route of its tenant says that the tenant's external recipients are used up.
fn is_tenant_quota_met(route: &OpenRoute, context: &Context, now: Timestamp) -> bool {
    let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
    let met =
        |tenant: String| lock(&context.reports).tenants.is_met_elsewhere(&tenant, (&namespace, &name), now);
    route.counted_tenant().is_some_and(met)
}

/// Those with a sidecar; and those without, in an order that does not change, as the status names them.
fn pods_of(route: &OpenRoute, pods: &PodStore) -> (Vec<SidecarPod>, Vec<BarePod>) {
    let pods = pods.of_route(&route.reference());
    let mut bare: Vec<_> = pods.iter().filter_map(|pod| pod.without_sidecar()).collect();
    bare.sort_unstable();
    (pods.iter().filter_map(|pod| pod.sidecar()).collect(), bare)
}

/// After a failure: once an Event with the whole chain of causes, and a pause that grows.
fn failed(route: Arc<CachedRoute>, error: &Error, term: Arc<Term>) -> Action {
    let retry = term.context.backoff.failed(ObjectRef::from_obj(&*route), error.label());
    let chain = chain(error);
    tracing::warn!(
        namespace = route.namespace(),
        route = route.name_any(),
        error = chain,
        retry_seconds = retry.wait.as_secs(),
        "reconciliation failed"
    );
    if retry.is_news {
        term.context.events.warn(
            route.object_ref(&()),
            OwnReason::ReconcileFailed.as_str(),
            "Reconcile",
            chain,
        );
    }
    Action::requeue(retry.wait)
}
