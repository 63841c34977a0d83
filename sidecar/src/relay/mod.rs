//! Delivery mode `Deliver`: a message is offered to the upstream while the application waits, and nothing outlives the
//! answer.
//!
//! Owns what happens between the end of a message's data and the answer: the breaker, the bound on the wait, what is
//! counted, logged and learned from the attempt. Refuses to know the method ([`Deliver`]) and the words ([`reply`]).
//!
//! Invariant: 250 only when the upstream has taken the message for every recipient.

pub mod reply;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::control::Usage;
use tokio::sync::watch;

use crate::body::Body;
use crate::breaker::Breaker;
use crate::clock::{self, Instant};
use crate::delivery::Deliver;
use crate::delivery::outcome::{Attempt, Met, Outcome, Partial, Probe, Verdict};
use crate::envelope::Envelope;
use crate::health::Board;
use crate::metrics::Metrics;
use crate::probe::Traffic;
use crate::server::Accept;
use crate::smtp::reply::Reply;
use crate::usage::Counter;

/// A route and the way out that it describes.
pub struct Active {
    /// The route.
    pub route: Arc<RouteFile>,
    /// The way out.
    pub deliver: Arc<dyn Deliver>,
}

/// Takes messages from applications and hands them on at once.
pub struct Relay {
    active: watch::Receiver<Option<Arc<Active>>>,
    breaker: Mutex<Breaker>,
    usage: Mutex<Counter>,
    board: Board,
    metrics: Arc<Metrics>,
    /// How long an application waits at most.
    patience: Duration,
}

impl Relay {
    /// A relay for whatever route is `active`. An application waits `patience` at most; `pause` is the breaker's unit.
    pub fn new(
        active: watch::Receiver<Option<Arc<Active>>>,
        board: Board,
        metrics: Arc<Metrics>,
        patience: Duration,
        pause: Duration,
    ) -> Arc<Self> {
        let (breaker, usage) = (Mutex::new(Breaker::new(pause)), Mutex::default());
        Arc::new(Self { active, breaker, usage, board, metrics, patience })
    }

    /// What was sent so far.
    pub fn usage(&self) -> Usage {
        self.counter().usage(clock::now())
    }

    /// Starts anew with another configuration.
    pub fn reset(&self) {
        self.breaker().close();
        self.board.reset();
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_fault(&self) -> Option<Verdict> {
        self.breaker().blocks(clock::now()).cloned()
    }

    async fn attempt(&self, active: &Active, envelope: &Envelope, body: &Body) -> Attempt {
        let started = clock::now();
        let attempt =
            tokio::time::timeout(self.patience, active.deliver.deliver(envelope, body, Partial::Never)).await;
        let attempt = attempt.unwrap_or_else(|_| out_of_patience(self.patience));
        let (recipients, took) = (envelope.recipients.len() as u64, started.elapsed());
        self.breaker().learn(&attempt.verdict, clock::now());
        self.board.record(&attempt.met);
        self.metrics.attempted(&attempt, recipients, body.len(), took);
        if attempt.verdict.outcome == Outcome::Delivered {
            self.counter().delivered(recipients, clock::now());
        }
        log_attempt(&active.route, envelope, body, &attempt, took);
        attempt
    }
}

#[async_trait]
impl Accept for Relay {
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply {
        let Some(active) = self.active.borrow().clone() else {
            return reply::without_route();
        };
        if let Some(verdict) = self.known_fault() {
            self.metrics.failed_fast();
            return reply::of_verdict(&verdict, &active.route);
        }
        let attempt = self.attempt(&active, &envelope, &body).await;
        reply::of_attempt(&attempt, &envelope, &active.route)
    }
}

impl Traffic for Relay {
    fn probed(&self, probe: &Probe) {
        self.metrics.probed(probe.is_well());
        self.breaker().learn_met(&probe.met);
        log_probe(probe);
    }

    fn last_delivery(&self) -> Option<Instant> {
        self.counter().last()
    }
}

/// The attempt that took too long. Its connection ended with it, so it goes no further.
fn out_of_patience(patience: Duration) -> Attempt {
    let text = format!(
        "no verdict from the upstream within {} seconds; whether the message was accepted is unknown",
        patience.as_secs()
    );
    let reason = Reason::UpstreamUnavailable;
    let met = vec![Met::new(reason, text.clone())];
    let verdict = Verdict::without_reply(Outcome::Transient(Some(reason)), text);
    Attempt { verdict, refused: vec![], met, host: None }
}

/// The one line for each attempt.
fn log_attempt(route: &RouteFile, envelope: &Envelope, body: &Body, attempt: &Attempt, took: Duration) {
    let Verdict { outcome, text, .. } = &attempt.verdict;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                queue_id = %envelope.id,
                message_id = envelope.message_id,
                route = route.name,
                mailbox = route.method.mailbox(),
                sender = %envelope.reverse_path,
                recipients = envelope.recipients.len(),
                bytes = body.len(),
                host = attempt.host,
                reply = text,
                outcome = outcome.as_str(),
                reason = outcome.reason().map(Reason::as_str),
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "delivery"
            )
        };
    }
    if *outcome == Outcome::Delivered {
        line!(info);
    } else {
        line!(warn);
    }
}

fn log_probe(probe: &Probe) {
    match probe.met.last() {
        Some(last) if probe.is_well() => {
            tracing::info!(reason = last.reason.as_str(), met = last.text, "probe")
        }
        Some(last) => tracing::warn!(reason = last.reason.as_str(), met = last.text, "probe"),
        None => {}
    }
}
