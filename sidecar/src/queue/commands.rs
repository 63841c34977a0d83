//! What a person can do: look at what waits and at what was given up, try it now, give it another chance, drop it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailroute_route::condition::Reason;
use serde::{Deserialize, Serialize};

use super::Queue;
use super::delivery_task::ClaimedMessage;
use super::index::QueueRecord;
use super::schedule::{Ahead, later};
use crate::attempt::{Attempts, NoPermit};
use crate::clock;
use crate::message::envelope::QueueId;
use crate::outcome::queued::QueueExit;
use crate::spool::{Entry, Kept, Progress, SpoolError};

/// Longest wait for the worker to look at what a person changed.
const LOOK: Duration = Duration::from_secs(2);

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePlace {
    /// It waits.
    Waiting,
    /// It is being tried now.
    Trying,
    /// It was given up.
    Dead,
}

/// What keeps every message from being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// Why, where there is a constant for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What was met, in words.
    pub text: String,
    /// When the next message is tried; nothing while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// It is a limit of the mailbox, kept to here: no command can end it.
    pub limits: bool,
}

impl Obstacle {
    fn of(denied: &NoPermit) -> Self {
        let until = later(clock::timestamp(), denied.until.saturating_duration_since(clock::now()));
        // When a share of the limits comes is the operator's to say.
        let until = (!denied.may_end_sooner()).then_some(until);
        Self { reason: denied.reason(), text: denied.verdict().text, until, limits: denied.is_limit() }
    }

    /// There is no route to send by.
    fn no_route() -> Self {
        Self { reason: None, text: "there is no valid route".into(), until: None, limits: false }
    }

    /// As many as may are on their way.
    fn turn() -> Self {
        Self { reason: None, text: "its turn".into(), until: None, limits: false }
    }
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which message.
    pub id: QueueId,
    /// Where it is.
    pub place: QueuePlace,
    /// It waits for the route or the mailbox's limits, not for its own time.
    pub held: bool,
    /// What it waits for, when that is not its own time.
    pub waits_for: Option<Obstacle>,
    /// When it is tried next, as far as that is known.
    pub next: Option<Timestamp>,
    /// Since when it is tried.
    pub since: Timestamp,
    /// Recipients that wait.
    pub recipients: u32,
}

/// One message in full.
#[derive(Debug)]
pub struct Shown {
    /// Where it is.
    pub place: QueuePlace,
    /// It waits for the route or the mailbox's limits, not for its own time.
    pub held: bool,
    /// What it waits for, when that is not its own time.
    pub waits_for: Option<Obstacle>,
    /// When it is tried next; nothing for a dead letter.
    pub next: Option<Timestamp>,
    /// The message.
    pub kept: Kept,
}

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum QueueCommandError {
    /// Nothing of that name, or not any more.
    #[error("no message {0} is stored here")]
    Unknown(QueueId),
    /// It is being tried.
    #[error("message {0} is being tried right now; try again in a moment")]
    Trying(QueueId),
    /// The disk.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Queue {
    /// What waits, in the order in which it came.
    pub fn list(&self) -> Vec<Listed> {
        self.list_behind(None, usize::MAX)
    }

    /// The same, at most so many of those behind `after`.
    pub fn list_behind(&self, after: Option<&QueueId>, most: usize) -> Vec<Listed> {
        let (obstacles, ahead) = (self.obstacles(), self.ahead());
        let state = self.state();
        let behind = state.index.behind(after).take(most);
        let listed = |(id, record): (&QueueId, &QueueRecord)| {
            let lane = self.lanes.position(state.mailbox(record.mailbox));
            listed(id, record, obstacles.get(lane).and_then(Option::as_ref), ahead)
        };
        behind.map(listed).collect()
    }

    /// What keeps every message from being tried now.
    pub fn obstacle(&self) -> Option<Obstacle> {
        if self.lanes.in_use().next().is_none() {
            return Some(Obstacle::no_route());
        }
        let in_use = self.lanes.iter().map(|attempts| attempts.is_active());
        let of_all: Option<Vec<_>> =
            self.obstacles().into_iter().zip(in_use).filter(|(_, used)| *used).map(|(one, _)| one).collect();
        of_all?.into_iter().next()
    }

    /// What keeps the messages of each lane from being tried now.
    fn obstacles(&self) -> Vec<Option<Obstacle>> {
        let obstacle = |(at, attempts): (usize, &Arc<Attempts>)| {
            if !attempts.is_active() {
                return Some(Obstacle::no_route());
            }
            let met = || self.state().lanes.get(at).and_then(|lane| lane.denied.clone());
            let denied = attempts.known_fault().or_else(met);
            denied.filter(|denied| denied.until > clock::now()).as_ref().map(Obstacle::of)
        };
        self.lanes.iter().enumerate().map(obstacle).collect()
    }

    /// Ends the pause of a known fault, of whichever mailbox.
    fn end_pauses(&self) {
        self.lanes.iter().for_each(|attempts| attempts.end_pause());
    }

    /// The same once everything that changed so far was looked at.
    pub async fn obstacle_after_a_look(&self) -> Option<Obstacle> {
        let mut looks = self.looks.subscribe();
        let has_looked = || self.state().lanes.iter().all(|lane| lane.rest.is_some());
        let looked = async { while !has_looked() && looks.changed().await.is_ok() {} };
        // A worker that is kept from looking changes nothing in what is known.
        let _ = tokio::time::timeout(LOOK, looked).await;
        self.obstacle()
    }

    /// What was given up, in the order in which it came.
    pub fn list_dead(&self) -> Vec<QueueId> {
        self.spool.dead()
    }

    /// One message, waiting or given up.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    pub async fn show(&self, id: &QueueId) -> Result<Shown, QueueCommandError> {
        let record = self.state().index.record(id).copied();
        let mut kept = self.spool.load(id).await.map_err(|error| named(error, id))?;
        if let Some(newer) = self.state().unwritten.get(id) {
            kept.progress = newer.clone();
        }
        let lane = record.map_or(0, |record| self.lanes.position(self.state().mailbox(record.mailbox)));
        let obstacle = self.obstacles().into_iter().nth(lane).flatten();
        let listed = record.map(|record| listed(id, &record, obstacle.as_ref(), self.ahead()));
        Ok(match listed {
            Some(Listed { place, held, waits_for, next, .. }) => Shown { place, held, waits_for, next, kept },
            None => Shown { place: QueuePlace::Dead, held: false, waits_for: None, next: None, kept },
        })
    }

    /// Makes a waiting message due now, also one that another pod is trying, and ends the pause of a known fault.
    ///
    /// # Errors
    /// When none of that name waits.
    pub fn retry(&self, id: &QueueId) -> Result<(), QueueCommandError> {
        let now = self.now();
        let hurried = self.state().index.make_due(id, now);
        if !hurried {
            return Err(self.not_waiting(id));
        }
        self.end_pauses();
        tracing::info!(queue_id = %id, "due now, requested by a command");
        self.nudge();
        Ok(())
    }

    /// Makes every waiting message due now, ends the pause of a known fault, and says how many there are. Remembered refusals
    /// are no reason not to try any of them. What another pod is trying is left to it.
    pub fn retry_all(&self) -> usize {
        let now = self.now();
        let waiting = {
            let mut state = self.state();
            state.index.make_all_due_by_command(now);
            state.index.iter().filter(|(_, record)| !record.is_reserved(now)).count()
        };
        self.end_pauses();
        tracing::info!(waiting, "all messages are due now, requested by a command");
        self.nudge();
        waiting
    }

    /// Takes a dead letter back into the queue, for the recipients that did not get it; its time begins anew.
    ///
    /// # Errors
    /// When there is none of that name, or the disk refuses.
    pub async fn retry_dead(&self, id: &QueueId) -> Result<(), QueueCommandError> {
        if self.state().index.record(id).is_some() {
            return Err(QueueCommandError::Unknown(id.clone()));
        }
        let now = clock::timestamp();
        let Kept { entry, progress, .. } = self.spool.load(id).await.map_err(|error| named(error, id))?;
        let progress = progress.again(now);
        self.spool.revive(id, &progress).await.map_err(|error| named(error, id))?;
        tracing::info!(queue_id = %id, "a dead letter is tried again, requested by a command");
        self.enter_by_command(&entry, now, &progress);
        Ok(())
    }

    /// Takes a message back into the queue that was set aside, by the name of its file in `corrupt/`, if that is whole
    /// after all; its time begins anew.
    ///
    /// # Errors
    /// When it is no message or still damaged, or the disk refuses.
    pub async fn restore(&self, name: &str) -> Result<(), QueueCommandError> {
        let now = clock::timestamp();
        let (id, progress) = self.spool.restore(name, now).await?;
        tracing::info!(queue_id = %id, "a message that was set aside is tried again, requested by a command");
        let entry = self.spool.load(&id).await.map_err(|error| named(error, &id))?.entry;
        self.enter_by_command(&entry, now, &progress);
        Ok(())
    }

    /// Enters a message that a person has brought back, and ends the pause of a known fault.
    fn enter_by_command(&self, entry: &Entry, since: Timestamp, progress: &Progress) {
        self.end_pauses();
        let id = entry.envelope.id.clone();
        let record = QueueRecord { by_command: true, ..self.record_of(entry, since, progress) };
        let mut state = self.state();
        // Whoever has taken it already, by what was known of it before it was set aside, tries it.
        if !state.index.record(&id).is_some_and(|known| known.taken) {
            state.index.insert(id, record);
        }
        drop(state);
        self.news();
    }

    /// Drops a message, waiting or given up.
    ///
    /// # Errors
    /// When there is none of that name, it is being tried, or the disk refuses.
    pub async fn discard(self: &Arc<Self>, id: &QueueId) -> Result<(), QueueCommandError> {
        // Given back when this ends early: unless the disk lets go of it, it is still here.
        let taken = self.state().index.take(id).map(|record| ClaimedMessage::new(self, id.clone(), record));
        if taken.is_none() && self.state().index.record(id).is_some() {
            return Err(QueueCommandError::Trying(id.clone()));
        }
        if taken.is_none() && !self.spool.dead().contains(id) {
            return Err(QueueCommandError::Unknown(id.clone()));
        }
        self.spool.finish(id).await?;
        tracing::warn!(queue_id = %id, "dropped, requested by a command");
        if let Some(taken) = taken {
            taken.forget();
            self.metrics.left_queue(QueueExit::Dropped, Duration::ZERO);
        }
        self.tell();
        Ok(())
    }

    fn not_waiting(&self, id: &QueueId) -> QueueCommandError {
        match self.state().index.record(id) {
            Some(_) => QueueCommandError::Trying(id.clone()),
            None => QueueCommandError::Unknown(id.clone()),
        }
    }
}

const fn place(record: &QueueRecord) -> QueuePlace {
    if record.taken { QueuePlace::Trying } else { QueuePlace::Waiting }
}

/// A message that waits for its own time says so by its `next`; any other waits for the obstacle, where there is one.
fn listed(id: &QueueId, record: &QueueRecord, obstacle: Option<&Obstacle>, ahead: Ahead) -> Listed {
    let QueueRecord { recipients, held, .. } = *record;
    let (due, since) = (ahead.system(record.due), ahead.system(record.since));
    let place = place(record);
    let is_stopped = place == QueuePlace::Waiting && (held || due <= clock::timestamp());
    let (held, waits_for, next) = match obstacle {
        Some(obstacle) if is_stopped => {
            (true, Some(obstacle.clone()), obstacle.until.map(|until| until.max(due)))
        }
        None if is_stopped && !held => (false, Some(Obstacle::turn()), Some(due)),
        _ => (held, None, Some(due)),
    };
    Listed { id: id.clone(), place, held, waits_for, next, since, recipients }
}

fn named(error: SpoolError, id: &QueueId) -> QueueCommandError {
    match error {
        SpoolError::Unknown(_) => QueueCommandError::Unknown(id.clone()),
        error => QueueCommandError::Spool(error),
    }
}
