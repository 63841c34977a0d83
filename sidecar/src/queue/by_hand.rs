//! What a person can do: look at what waits and at what was given up, try it now, give it another chance, drop it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Queue;
use super::flight::Taken;
use super::index::Record;
use super::schedule::Ahead;
use crate::clock;
use crate::envelope::QueueId;
use crate::metrics::Ended;
use crate::spool::{Kept, Progress, SpoolError};

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits.
    Waiting,
    /// It is being tried now.
    Trying,
    /// It was given up.
    Dead,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which message.
    pub id: QueueId,
    /// Where it is.
    pub place: Place,
    /// It waits for the route to work again, not for its own time.
    pub held: bool,
    /// When it is tried next.
    pub next: Timestamp,
    /// Since when it is tried.
    pub since: Timestamp,
    /// Recipients that wait.
    pub recipients: u32,
}

/// One message in full.
#[derive(Debug)]
pub struct Shown {
    /// Where it is.
    pub place: Place,
    /// It waits for the route to work again, not for its own time.
    pub held: bool,
    /// When it is tried next; nothing for a dead letter.
    pub next: Option<Timestamp>,
    /// The message.
    pub kept: Kept,
}

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// Nothing of that name, or not any more.
    #[error("no message {0} is kept here")]
    Unknown(QueueId),
    /// It is being tried.
    #[error("message {0} is being tried right now; ask again in a moment")]
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
        let ahead = self.ahead();
        let state = self.state();
        state.index.behind(after).take(most).map(|(id, record)| listed(id, record, ahead)).collect()
    }

    /// What was given up, in the order in which it came.
    pub fn list_dead(&self) -> Vec<QueueId> {
        self.spool.dead()
    }

    /// One message, waiting or given up.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    pub async fn show(&self, id: &QueueId) -> Result<Shown, ByHandError> {
        let record = self.state().index.record(id).copied();
        let mut kept = self.spool.load(id).await.map_err(|error| named(error, id))?;
        if let Some(newer) = self.state().unwritten.get(id) {
            kept.progress = newer.clone();
        }
        let place = record.as_ref().map_or(Place::Dead, place);
        let held = record.is_some_and(|record| record.held);
        Ok(Shown { place, held, next: record.map(|record| self.ahead().system(record.due)), kept })
    }

    /// Makes a waiting message due now.
    ///
    /// # Errors
    /// When none of that name waits.
    pub fn retry(&self, id: &QueueId) -> Result<(), ByHandError> {
        let now = self.now();
        let hurried = self.state().index.hurry(id, now);
        if !hurried {
            return Err(self.not_waiting(id));
        }
        tracing::info!(queue_id = %id, "due now, by hand");
        self.nudge();
        Ok(())
    }

    /// Makes every waiting message due now, and says how many there are.
    pub fn retry_all(&self) -> usize {
        let now = self.now();
        let waiting = {
            let mut state = self.state();
            state.index.hurry_all(now);
            state.index.len()
        };
        tracing::info!(waiting, "everything is due now, by hand");
        self.nudge();
        waiting
    }

    /// Takes a dead letter back into the queue, for the recipients that did not get it; its time begins anew.
    ///
    /// # Errors
    /// When there is none of that name, or the disk refuses.
    pub async fn retry_dead(&self, id: &QueueId) -> Result<(), ByHandError> {
        if self.state().index.record(id).is_some() {
            return Err(ByHandError::Unknown(id.clone()));
        }
        let now = clock::timestamp();
        let progress = self.spool.load(id).await.map_err(|error| named(error, id))?.progress.again(now);
        self.spool.revive(id, &progress).await.map_err(|error| named(error, id))?;
        tracing::info!(queue_id = %id, "a dead letter is tried again, by hand");
        self.enter_by_hand(id.clone(), now, &progress);
        Ok(())
    }

    /// Takes a message back into the queue that was set aside, by the name of its file in `corrupt/`, if that is whole
    /// after all; its time begins anew.
    ///
    /// # Errors
    /// When it is no message or still damaged, or the disk refuses.
    pub async fn restore(&self, name: &str) -> Result<(), ByHandError> {
        let now = clock::timestamp();
        let (id, progress) = self.spool.restore(name, now).await?;
        tracing::info!(queue_id = %id, "a message that was set aside is tried again, by hand");
        self.enter_by_hand(id, now, &progress);
        Ok(())
    }

    fn enter_by_hand(&self, id: QueueId, since: Timestamp, progress: &Progress) {
        let record = Record { by_hand: true, ..self.record(since, progress) };
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
    pub async fn discard(self: &Arc<Self>, id: &QueueId) -> Result<(), ByHandError> {
        // Given back when this ends early: unless the disk lets go of it, it is still here.
        let taken = self.state().index.take(id).map(|record| Taken::new(self, id.clone(), record));
        if taken.is_none() && self.state().index.record(id).is_some() {
            return Err(ByHandError::Trying(id.clone()));
        }
        if taken.is_none() && !self.spool.dead().contains(id) {
            return Err(ByHandError::Unknown(id.clone()));
        }
        self.spool.remove(id).await?;
        tracing::warn!(queue_id = %id, "dropped by hand");
        if let Some(taken) = taken {
            taken.forget();
            self.metrics.left_queue(Ended::Dropped, Duration::ZERO);
        }
        self.tell();
        Ok(())
    }

    fn not_waiting(&self, id: &QueueId) -> ByHandError {
        match self.state().index.record(id) {
            Some(_) => ByHandError::Trying(id.clone()),
            None => ByHandError::Unknown(id.clone()),
        }
    }
}

const fn place(record: &Record) -> Place {
    if record.taken { Place::Trying } else { Place::Waiting }
}

fn listed(id: &QueueId, record: &Record, ahead: Ahead) -> Listed {
    let Record { due, since, recipients, held, .. } = *record;
    let (next, since) = (ahead.system(due), ahead.system(since));
    Listed { id: id.clone(), place: place(record), held, next, since, recipients }
}

fn named(error: SpoolError, id: &QueueId) -> ByHandError {
    match error {
        SpoolError::Unknown(_) => ByHandError::Unknown(id.clone()),
        error => ByHandError::Spool(error),
    }
}
