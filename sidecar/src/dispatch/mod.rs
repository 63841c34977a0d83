//! One attempt to deliver, with everything that belongs to it, for whoever makes it: the application's session that
//! waits, or the queue.
//!
//! ```text
//!  leave (breaker, budget) ──► attempt ──► learned: breaker, health, metrics, budget ──► passage: does mail get through?
//! ```
//!
//! Owns the [leave](Leave) to try (the breaker, what the mailbox may still send) and what is learned, counted and logged
//! from the attempt. Refuses to know who asks and what becomes of a message that was not delivered.
//!
//! Invariant: nothing is sent without a [`Leave`], and each leave is for one transaction.

mod attempt;
mod leave;
mod log;
mod passage;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::RouteFile;
use mailroute_route::control::Usage;
use tokio::sync::watch;

pub use leave::{Held, Leave};
pub use passage::{Passage, concerns_the_route};

use crate::breaker::Breaker;
use crate::budget::Spans;
use crate::budget::gate::{Gate, SendPermit as Ticket};
use crate::clock::{self, Instant};
use crate::delivery::Deliver;
use crate::delivery::outcome::{Met, Probe};
use crate::health::Board;
use crate::logging::faults::{self, FaultLog};
use crate::metrics::Metrics;
use crate::probe::Traffic;

/// How long a look at the way waits for a connection of the mailbox. Longer, and the mail of the others tells as much.
const ADMISSION: Duration = Duration::from_secs(300);

/// A route and the way out that it describes.
pub struct Active {
    /// The route.
    pub route: Arc<RouteFile>,
    /// The way out.
    pub deliver: Arc<dyn Deliver>,
}

/// Who makes an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application waits.
    Live,
    /// From the queue, the so-manieth attempt.
    Queue(u32),
    /// The same, because a person asked for it: what is known from before is no reason not to try.
    ByHand(u32),
}

/// Makes attempts, one route for all.
pub struct Dispatch {
    active: watch::Receiver<Option<Arc<Active>>>,
    breaker: Mutex<Breaker>,
    budget: Arc<Gate>,
    passage: watch::Sender<Passage>,
    /// The queue waits for the mailbox's limits: who comes now goes behind it.
    queue_waits: AtomicBool,
    /// Messages that got through since the start.
    delivered: AtomicU64,
    board: Board,
    metrics: Arc<Metrics>,
    faults: Mutex<FaultLog>,
}

impl Dispatch {
    /// For whatever route is `active`. What the mailbox has sent is written down in `directory` and counted over
    /// `spans`; `pause` is the breaker's unit.
    pub fn new(
        active: watch::Receiver<Option<Arc<Active>>>,
        board: Board,
        metrics: Arc<Metrics>,
        directory: &Path,
        (spans, pause): (Spans, Duration),
    ) -> Arc<Self> {
        Arc::new(Self {
            active,
            breaker: Mutex::new(Breaker::new(pause, clock::now())),
            budget: Gate::new(directory, spans, Arc::clone(&metrics) as _),
            passage: watch::Sender::new(Passage::Open),
            queue_waits: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            board,
            metrics,
            faults: Mutex::default(),
        })
    }

    /// The route in use.
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active.borrow().clone()
    }

    /// Sees the route in use change.
    pub fn routes(&self) -> watch::Receiver<Option<Arc<Active>>> {
        self.active.clone()
    }

    /// Sees the way open and shut.
    pub fn passage(&self) -> watch::Receiver<Passage> {
        self.passage.subscribe()
    }

    /// How many messages have got through since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The mailbox's limits and what is left of them.
    pub const fn budget(&self) -> &Arc<Gate> {
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

    /// Starts anew with another configuration.
    pub fn reset(&self) {
        self.breaker().close();
        // A fault that is met again is another one.
        *self.faults() = FaultLog::default();
        self.board.reset();
        self.notice(Passage::Open);
    }

    /// The way, as it was met last.
    fn notice(&self, met: Passage) {
        self.passage.send_if_modified(|passage| std::mem::replace(passage, met) != met);
    }

    fn faults(&self) -> MutexGuard<'_, FaultLog> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Traffic for Dispatch {
    async fn admit(&self) -> Option<Ticket> {
        self.budget.admit(ADMISSION).await
    }

    fn probed(&self, probe: &Probe) {
        self.metrics.probed(probe.is_well());
        self.breaker().learn_met(&probe.met);
        if probe.is_well() {
            self.notice(Passage::Open);
        }
        let (mut log, now) = (self.faults(), clock::now());
        let due =
            probe.met.last().filter(|last| !last.reason.holds()).and_then(|last| log.met(last.reason, now));
        let held: Vec<_> = probe.met.iter().filter(|met| met.reason.holds()).map(Met::condition).collect();
        faults::write(log.holds(&held, now));
        drop(log);
        log::probe(probe, due);
    }

    fn last_delivery(&self) -> Option<Instant> {
        self.budget.last_accepted()
    }
}
