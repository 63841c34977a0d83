//! Messages that were answered 250 before Microsoft 365 had them: kept in the spool until they are delivered to every
//! recipient, or given up and kept as a dead letter.
//!
//! ```text
//!  accept ─ keep ──► spool ─► index ─ due ─► worker ─ permit ─► delivery task ─► delivered to all: gone
//!         ─ adopt ─► (on disk)  ▲   (in order, few at a time)        │        ─► some failed:    dead letter, sender told
//!                               └─────────────── later ◄─────────────┴─────── ─► some wait:      written down, due later
//! ```
//!
//! Pure: [`index`] (what waits, by due time), [`schedule`] (when next), [`split`] (whom the method reaches, and Microsoft's
//! limits on an envelope), [`recipients`] (an attempt's effect on each recipient), [`notification`] (RFC 3464). Around them
//! `worker`, `delivery_task`, `notify` and `commands` do what takes time. Refuses to know modes, sessions and how mail is sent.
//!
//! Invariants: a message is tried by one at a time; it leaves the queue only when no recipient waits; what failed after
//! the 250 is in `dead/` or told in a log line, never just gone; a fault of the route uses up nobody's tries.

mod commands;
mod delivery_task;
mod hand_over;
pub mod index;
mod kept_attempt;
mod mailboxes;
pub mod notification;
mod notify;
pub mod recipients;
pub mod schedule;
pub mod split;
mod state;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use mailroute_route::file::{Delivery, DeliveryMode};
use mailroute_route::text::chain;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::commands::{Listed, Obstacle, QueueCommandError, QueuePlace, Shown};
use self::delivery_task::ClaimedMessage;
pub use self::hand_over::{Attempted, Leaving, ProgressUpdate, UpdateError};
use self::index::QueueRecord;
pub use self::kept_attempt::KeptAttempt;
pub(crate) use self::notify::header_of;
use self::schedule::{Ahead, RetrySchedule, later};
use self::state::{LaneState, State};
use crate::attempt::Attempts;
use crate::attempt::lanes::Lanes;
use crate::clock::{self, Steady};
use crate::lock;
use crate::message::body::Body;
use crate::message::envelope::{Envelope, QueueId};
use crate::metrics::Metrics;
use crate::outcome::queued::QueueFigures;
use crate::spool::{Entry, Progress, Recovered, Spool, SpoolError, SpoolLimits};

/// Longest pause after the first attempt, whatever the route's `maxAge`.
const MAX_FIRST_PAUSE: Duration = Duration::from_secs(3600);

/// How long an application waits for the disk to do what its answer does not depend on.
const PROMPTLY: Duration = Duration::from_secs(1);

/// The queue of one sidecar.
pub struct Queue {
    /// The clock of due times.
    clock: Steady,
    spool: Spool,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
    pace: RetrySchedule,
    state: Mutex<State>,
    tasks: Mutex<JoinSet<()>>,
    /// Something happened that the worker of each lane should look at.
    changed: Vec<Notify>,
    /// A worker has looked.
    looks: watch::Sender<()>,
    /// Attempts that began before are to end.
    cut_off: watch::Sender<()>,
    /// What people should hear of soon.
    notable: watch::Sender<QueueSummary>,
}

/// The part of the queue's figures of which a change is news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSummary {
    /// How many messages wait or are being tried.
    pub messages: usize,
    /// How many dead letters there are.
    pub dead_letters: usize,
    /// Whether the process ends soon, with messages here.
    pub is_ending: bool,
}

impl Queue {
    /// A queue of what was found on disk.
    pub fn new(
        spool: Spool,
        recovered: Recovered,
        lanes: Arc<Lanes>,
        metrics: Arc<Metrics>,
        pace: RetrySchedule,
    ) -> Arc<Self> {
        Self::by_clock(spool, recovered, lanes, metrics, pace, Steady::start())
    }

    fn by_clock(
        spool: Spool,
        recovered: Recovered,
        lanes: Arc<Lanes>,
        metrics: Arc<Metrics>,
        pace: RetrySchedule,
        clock: Steady,
    ) -> Arc<Self> {
        let of_lanes = lanes.iter().map(|_| LaneState::default()).collect();
        let mut state = State { lanes: of_lanes, ..State::default() };
        let ahead = ahead(clock);
        for waiting in recovered.waiting {
            // How many recipients wait is known when it is read for its first attempt.
            let due = ahead.due(waiting.next, &pace, waiting.attempts);
            let mailbox = state.number(waiting.mailbox.as_ref(), &lanes);
            let record = QueueRecord { mailbox, ..QueueRecord::new(ahead.since(waiting.since), due, 1) };
            state.index.insert(waiting.id, record.reserved(ahead.reserved(waiting.reserved_until)));
        }
        let queue = Arc::new(Self {
            clock,
            spool,
            changed: lanes.iter().map(|_| Notify::new()).collect(),
            lanes,
            metrics,
            pace,
            state: Mutex::new(state),
            tasks: Mutex::default(),
            looks: watch::Sender::new(()),
            cut_off: watch::Sender::new(()),
            notable: watch::Sender::default(),
        });
        queue.tell();
        queue
    }

    /// Keeps a message that was not tried yet, durable when this returns.
    ///
    /// # Errors
    /// When it could not be made durable; then nothing is kept.
    pub async fn keep(&self, envelope: Envelope, body: &Body) -> Result<(), SpoolError> {
        let entry = Entry::message(envelope, clock::timestamp());
        let progress = Progress::fresh(&entry);
        self.store(&entry, progress, body, false).await
    }

    /// Keeps what is left of a message after its first attempt: the recipients that still wait, and those that it will not
    /// reach, as they must not be forgotten. Durable when this returns.
    ///
    /// # Errors
    /// As [`Queue::keep`].
    pub async fn keep_attempted(&self, attempted: Attempted, body: &Body) -> Result<(), SpoolError> {
        let Attempted { entry, progress, held } = attempted;
        self.store(&entry, progress, body, held).await
    }

    /// Keeps a message that is being tried already, durable when this returns; what comes of the attempt decides. Until
    /// [`KeptAttempt::adopt`] or [`KeptAttempt::release`] nobody else tries it.
    ///
    /// # Errors
    /// As [`Queue::keep`].
    pub async fn keep_tried(
        self: &Arc<Self>,
        envelope: &Envelope,
        body: &Body,
    ) -> Result<KeptAttempt, SpoolError> {
        let entry = Entry::message(envelope.clone(), clock::timestamp());
        let progress = Progress::fresh(&entry);
        self.spool.store(&entry, &progress, body).await?;
        let record = QueueRecord { taken: true, ..self.record_of(&entry, entry.accepted, &progress) };
        let id = entry.envelope.id.clone();
        self.state().index.insert(id.clone(), record);
        self.tell();
        Ok(KeptAttempt::new(ClaimedMessage::new(self, id, record), entry, progress))
    }

    /// Makes a message durable and enters it into the index. `held`: it waits for the route and not for its own time.
    async fn store(
        &self,
        entry: &Entry,
        progress: Progress,
        body: &Body,
        held: bool,
    ) -> Result<(), SpoolError> {
        self.spool.store(entry, &progress, body).await?;
        let record = QueueRecord { held, ..self.record_of(entry, entry.accepted, &progress) };
        self.state().index.insert(entry.envelope.id.clone(), record);
        self.news();
        Ok(())
    }

    /// The queue in numbers.
    pub fn figures(&self) -> QueueFigures {
        let (messages, oldest) = {
            let state = self.state();
            (state.index.len() as u64, state.index.oldest(self.now()))
        };
        let stock = self.spool.stock();
        QueueFigures {
            messages,
            oldest_seconds: oldest.as_secs(),
            dead_letters: stock.dead as u64,
            corrupt: stock.corrupt as u64,
            bytes: stock.bytes,
            max_bytes: stock.max_bytes,
        }
    }

    /// How many messages there are for each lane.
    pub fn waiting_by_lane(&self) -> Vec<u64> {
        let state = self.state();
        let by_number: Vec<usize> =
            state.mailboxes.names().map(|mailbox| self.lanes.position(mailbox)).collect();
        let mut waiting = vec![0; state.lanes.len()];
        for (_, record) in state.index.iter() {
            let lane = by_number.get(usize::from(record.mailbox)).copied().unwrap_or_default();
            if let Some(count) = waiting.get_mut(lane) {
                *count += 1;
            }
        }
        waiting
    }

    /// Changes when there is something worth a report.
    pub fn notable(&self) -> watch::Receiver<QueueSummary> {
        self.notable.subscribe()
    }

    /// Changes with every round of the worker.
    pub fn rounds(&self) -> watch::Receiver<()> {
        self.looks.subscribe()
    }

    /// Now, as due times are counted.
    fn now(&self) -> Timestamp {
        steady(self.clock)
    }

    /// The two clocks at this moment.
    fn ahead(&self) -> Ahead {
        ahead(self.clock)
    }

    /// What is known of a message that has been tried since `since`, by the system's clock.
    fn record_of(&self, entry: &Entry, since: Timestamp, progress: &Progress) -> QueueRecord {
        let ahead = self.ahead();
        let due = ahead.due(progress.next, &self.pace, progress.attempts);
        let recipients = u32::try_from(progress.waiting()).unwrap_or(u32::MAX);
        let mailbox = self.state().number(entry.envelope.mailbox.as_ref(), &self.lanes);
        let record = QueueRecord { mailbox, ..QueueRecord::new(ahead.since(since), due, recipients) };
        record.reserved(ahead.reserved(progress.reserved_until))
    }

    /// Whether a message has to be given another mailbox, as the route does not name its own.
    fn is_adrift(&self, record: &QueueRecord) -> bool {
        self.lanes.is_adrift(self.state().mailbox(record.mailbox))
    }

    /// Makes the attempts of a message, as of now.
    fn attempts(&self, record: &QueueRecord) -> &Arc<Attempts> {
        let mailbox = self.state().mailbox(record.mailbox).cloned();
        self.lanes.of(mailbox.as_ref())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Wakes the workers, and whoever follows [`Queue::notable`].
    fn news(&self) {
        self.nudge();
        self.tell();
    }

    /// Wakes the workers.
    fn nudge(&self) {
        {
            let mut state = self.state();
            state.nudges += 1;
            state.lanes.iter_mut().for_each(|lane| lane.rest = None);
        }
        self.changed.iter().for_each(Notify::notify_one);
    }

    fn tell(&self) {
        let (messages, is_draining) = {
            let state = self.state();
            (state.index.len(), state.is_draining)
        };
        let is_ending = is_draining && messages > 0;
        let now = QueueSummary { messages, dead_letters: self.spool.stock().dead, is_ending };
        self.notable.send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    /// Writes a message's progress, or remembers it where that fails.
    async fn write_down(&self, id: &QueueId, progress: &Progress) {
        let written = self.spool.record(id, progress).await;
        let mut state = self.state();
        match written {
            Ok(()) => {
                state.unwritten.remove(id);
            }
            Err(error) => {
                tracing::error!(queue_id = %id, error = chain(&error), "the message's progress could not be written, and is only in memory");
                state.unwritten.insert(id.clone(), progress.clone());
            }
        }
    }

    /// Runs a task that belongs to the queue, and waits for it, but not for long: it goes on when whoever waits has an
    /// application to answer.
    async fn finish(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (done, ended) = oneshot::channel();
        self.spawn(async move {
            task.await;
            // Nobody waits any more when it took long.
            let _ = done.send(());
        });
        let _ = timeout(PROMPTLY, ended).await;
    }

    /// Runs a task that belongs to the queue.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                // Its message was given back.
                tracing::error!(%error, "an attempt ended abnormally; the others continue");
            }
        }
        tasks.spawn(task);
    }
}

/// What the spool may hold, as the route says.
pub fn limits(delivery: Option<&Delivery>) -> SpoolLimits {
    let default = Delivery::new(DeliveryMode::DeliverOrQueue);
    let delivery = delivery.unwrap_or(&default);
    let keep_dead = usize::try_from(delivery.dead_letters.keep).unwrap_or(usize::MAX);
    SpoolLimits { max_bytes: delivery.max_spool_bytes, keep_dead }
}

fn steady(clock: Steady) -> Timestamp {
    later(Timestamp::UNIX_EPOCH, clock.now())
}

fn ahead(clock: Steady) -> Ahead {
    Ahead::new(steady(clock), clock::timestamp())
}

#[cfg(test)]
mod tests;
