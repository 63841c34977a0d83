//! One attempt to deliver, with everything that belongs to it, for whoever makes it: the application's session that
//! waits, or the queue.
//!
//! ```text
//!  permit (circuit breaker, budget) ──► attempt ──► learned: breaker, health, metrics, budget ──► route state
//! ```
//!
//! * `permit`: may a message be sent now? A [`SendPermit`], or [`NoPermit`] and why.
//! * `perform`: one attempt, and its [result](crate::outcome::AttemptResult); `log`: its line in the log.
//! * [`circuit_breaker`]: for the whole route. [`rejection_cache`]: for single messages, which it knows by their [`author`].
//!
//! [`lanes`]: one of all this for each mailbox of the route.
//!
//! Owns what is learned, counted and logged from an attempt. Refuses to know who asks and what becomes of a message that
//! was not delivered.
//!
//! Invariant: nothing is sent without a [`SendPermit`], and each permit is for one transaction.

pub mod author;
pub mod circuit_breaker;
pub mod lanes;
mod log;
mod perform;
mod permit;
pub mod rejection_cache;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mailroute_quota::Timing;
use mailroute_route::RouteFile;
use mailroute_route::control::Usage;
use tokio::sync::watch;

pub use perform::{Attempt, Origin};
pub use permit::{NoPermit, Obstruction};

pub use crate::budget::limiter::SendPermit;

use self::circuit_breaker::CircuitBreaker;
use crate::budget::limiter::RateLimiter;
use crate::clock;
use crate::delivery::Transport;
use crate::lock;
use crate::logging::faults::{self, FaultLog};
use crate::metrics::Metrics;
use crate::outcome::health::SharedHealth;
use crate::outcome::{Observation, Probe};

/// A route and the transport that it describes.
pub struct Active {
    /// The route.
    pub route: Arc<RouteFile>,
    /// How its mail is sent.
    pub transport: Arc<dyn Transport>,
}

/// Whether mail is known to get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// Nothing is known to be wrong.
    Open,
    /// The last that was heard is trouble of the whole route.
    Blocked,
}

/// Makes attempts, as one mailbox.
pub struct Attempts {
    active: watch::Receiver<Option<Arc<Active>>>,
    breaker: Mutex<CircuitBreaker>,
    budget: Arc<RateLimiter>,
    route_state: watch::Sender<RouteState>,
    /// The queue waits for the mailbox's limits: who comes now goes behind it.
    queue_waits: AtomicBool,
    /// Messages that got through since the start.
    delivered: AtomicU64,
    health: SharedHealth,
    metrics: Arc<Metrics>,
    faults: Mutex<FaultLog>,
}

impl Attempts {
    /// For whatever route is `active`. What the mailbox has sent is written down in `directory` and counted over
    /// the windows of `timing`; `pause` is the breaker's unit.
    pub fn new(
        active: watch::Receiver<Option<Arc<Active>>>,
        health: SharedHealth,
        metrics: Arc<Metrics>,
        directory: &Path,
        timing: Timing,
        pause: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            active,
            breaker: Mutex::new(CircuitBreaker::new(pause, clock::now())),
            budget: RateLimiter::new(directory, timing, Arc::clone(&metrics) as _),
            route_state: watch::Sender::new(RouteState::Open),
            queue_waits: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            health,
            metrics,
            faults: Mutex::default(),
        })
    }

    /// The route in use.
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active.borrow().clone()
    }

    /// Whether there is a route.
    pub fn is_active(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// The mailbox of the route in use.
    pub fn mailbox(&self) -> Option<String> {
        self.active.borrow().as_ref()?.route.method.mailbox().map(str::to_owned)
    }

    /// What was met.
    pub const fn health(&self) -> &SharedHealth {
        &self.health
    }

    /// Sees the route in use change.
    pub fn routes(&self) -> watch::Receiver<Option<Arc<Active>>> {
        self.active.clone()
    }

    /// Sees the state of the route change.
    pub fn route_state(&self) -> watch::Receiver<RouteState> {
        self.route_state.subscribe()
    }

    /// How many messages have got through since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The mailbox's limits and what is left of them.
    pub const fn budget(&self) -> &Arc<RateLimiter> {
        &self.budget
    }

    /// What was sent so far.
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }

    /// Keeps to the limits of `route` from now on. Before it is in use.
    pub async fn follow(&self, route: &RouteFile) {
        self.budget.follow(route).await;
    }

    /// Has no mailbox any more. What was sent as it is on disk, for whichever lane has it next.
    pub fn rest(&self) {
        self.reset();
        self.budget.rest();
    }

    /// Starts anew with another configuration.
    pub fn reset(&self) {
        self.breaker().close();
        // A fault that is met again is another one.
        *self.faults() = FaultLog::default();
        self.health.reset();
        self.notice(RouteState::Open);
    }

    /// The state of the route, as it was met last.
    fn notice(&self, met: RouteState) {
        self.route_state.send_if_modified(|state| std::mem::replace(state, met) != met);
    }

    fn faults(&self) -> MutexGuard<'_, FaultLog> {
        lock(&self.faults)
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        lock(&self.breaker)
    }

    /// Takes in what a probe of the transport met: in metrics, circuit breaker and log.
    pub fn probed(&self, probe: &Probe) {
        self.metrics.probed(probe.is_well());
        self.breaker().learn_observed(&probe.observations, clock::now());
        if probe.is_well() {
            self.notice(RouteState::Open);
        }
        let (mut log, now) = (self.faults(), clock::now());
        let last = probe.observations.last().filter(|last| !last.reason.holds());
        let due = last.and_then(|last| log.met(last.reason, now));
        let held: Vec<_> =
            probe.observations.iter().filter(|it| it.reason.holds()).map(Observation::condition).collect();
        faults::write(log.holds(&held, now));
        drop(log);
        log::probe(probe, due);
    }
}
