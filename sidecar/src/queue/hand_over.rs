//! Messages that come from, or go to, the queue of another pod: what a gateway takes over, what a sidecar or a gateway that ends gives
//! away, and what came of an attempt that another pod was making meanwhile.
//!
//! Owns what the queue does then; refuses to know how a message gets from one pod to the other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mailroute_route::text::chain;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Queue;
use super::delivery_task::{ClaimedMessage, log_removed};
use super::schedule::{NextAttempt, later, reservation};
use super::{MAX_FIRST_PAUSE, recipients};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::{Envelope, QueueId};
use crate::outcome::AttemptResult;
use crate::outcome::queued::QueueExit;
use crate::spool::frame::FormatError;
use crate::spool::{Entry, Kept, Progress, Shelf, SpoolError, StatusCounts, format};

/// Longest wait for the disk to take a progress in.
const RECORDED: Duration = Duration::from_secs(10);

/// A message after its first attempt.
pub struct Attempted {
    /// What is kept of it.
    pub entry: Entry,
    /// How far it has come.
    pub progress: Progress,
    /// It waits for the route and not for its own time.
    pub held: bool,
}

/// Why a progress is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It is being tried here.
    #[error("the message is being tried")]
    Busy,
    /// There is no such message.
    #[error("no such message waits here")]
    Unknown,
    /// It is no progress of this message.
    #[error("the progress cannot be read")]
    Format(#[source] FormatError),
    /// The disk takes long, or the message cannot be read.
    #[error("the message cannot be read or written now")]
    Disk,
}

/// How far a message had come before another pod's progress was taken in, and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressUpdate {
    /// As it was here.
    pub before: StatusCounts,
    /// As it is now.
    pub after: StatusCounts,
}

/// Which pod tells the sender of recipients that another pod's attempt was refused for.
enum SenderHears {
    /// This one.
    Here,
    /// The one that made the attempt.
    There,
}

/// A message that leaves for another pod, and that nobody else tries meanwhile. Dropped, it is in the queue again as it was.
pub struct Leaving(Option<ClaimedMessage>);

impl Leaving {
    /// Which message.
    pub fn id(&self) -> Option<&QueueId> {
        self.0.as_ref()?.id()
    }

    /// The message as it is now; nothing when it cannot be read, or not any more.
    pub async fn load(&self) -> Option<Kept> {
        self.0.as_ref()?.load().await
    }

    /// Another pod may have it, which was not heard: it is in the queue again, and nobody tries it here for as long as `time`.
    pub fn put_off(mut self, time: Duration) {
        if let Some(taken) = self.0.take() {
            taken.put_off(time);
        }
    }

    /// Another pod has it: it is gone here.
    pub async fn gone(mut self, age: Duration) {
        let Some(taken) = self.0.take() else { return };
        let queue = Arc::clone(taken.queue());
        if let Some(id) = taken.id()
            && let Err(error) = queue.spool.remove(id).await
        {
            // It is never tried here again, but by a program that finds it at its start.
            tracing::error!(queue_id = %id, error = chain(&error), "a message that was handed over cannot be removed");
        }
        taken.forget();
        queue.metrics.left_queue(QueueExit::HandedOver, age);
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.put_back();
        }
    }
}

impl Queue {
    /// Whether a message is here, or was here and is gone for good.
    pub fn knows(&self, id: &QueueId) -> bool {
        self.spool.knows(id)
    }

    /// Keeps a message of another pod as far as it has come there, durable when this returns. What that pod still tries is not tried
    /// here before the time that it asks for, or [`MAX_RESERVATION`](super::schedule::MAX_RESERVATION).
    ///
    /// # Errors
    /// When it could not be made durable; then nothing is kept.
    pub async fn take_over(
        &self,
        shelf: Shelf,
        entry: &Entry,
        mut progress: Progress,
        body: &Body,
    ) -> Result<(), SpoolError> {
        // By this pod's clock, which is the one that counts after a restart.
        progress.reserved_until = reservation(progress.reserved_until, clock::timestamp());
        self.spool.store(entry, &progress, body).await?;
        let id = &entry.envelope.id;
        if shelf == Shelf::Dead {
            match self.spool.bury(id, &progress).await {
                Ok(removed) => {
                    log_removed(self, &removed);
                    self.tell();
                    return Ok(());
                }
                // It is durable: where nobody waits any more, its next turn puts it among the dead letters.
                Err(error) => {
                    tracing::warn!(queue_id = %id, error = chain(&error), "a dead letter cannot be put in its place yet");
                }
            }
        }
        let since = progress.since.unwrap_or(entry.accepted);
        let record = self.record_of(entry, since, &progress);
        self.state().index.insert(id.clone(), record);
        self.news();
        Ok(())
    }

    /// Takes in how far another pod has come with a message that is here, as its file has it; the sender hears from here of recipients
    /// that it was refused for. One that is settled leaves the queue as after an attempt. Durable when this returns, unless the disk
    /// refuses. Nothing for a message that is gone for good.
    ///
    /// # Errors
    /// When it is being tried, or is not here, or the octets are no progress of it.
    pub async fn update(
        self: &Arc<Self>,
        id: &QueueId,
        state: &[u8],
    ) -> Result<Option<ProgressUpdate>, UpdateError> {
        self.take_in(id, |recipients| format::parse_progress(state, recipients), SenderHears::Here).await
    }

    /// The same with the progress of a message that another pod offers although it is here already. The sender has heard there of
    /// recipients that it was refused for.
    ///
    /// # Errors
    /// As [`Queue::update`].
    pub async fn join(
        self: &Arc<Self>,
        id: &QueueId,
        offered: Progress,
    ) -> Result<Option<ProgressUpdate>, UpdateError> {
        let theirs = |recipients| {
            let others = FormatError::Senseless("statuses of other recipients".into());
            if offered.statuses.len() == recipients { Ok(offered) } else { Err(others) }
        };
        self.take_in(id, theirs, SenderHears::There).await
    }

    async fn take_in(
        self: &Arc<Self>,
        id: &QueueId,
        theirs: impl FnOnce(usize) -> Result<Progress, FormatError>,
        sender_hears: SenderHears,
    ) -> Result<Option<ProgressUpdate>, UpdateError> {
        let Some(taken) = self.claim(id) else {
            if self.state().index.record(id).is_some() {
                return Err(UpdateError::Busy);
            }
            return match self.dead_letter(id).await {
                Some(letter) => self.update_dead_letter(letter, theirs).await.map(Some),
                None if self.knows(id) => Ok(None),
                None => Err(UpdateError::Unknown),
            };
        };
        // Given back as it was, should anything be wrong.
        let leaving = Leaving(Some(taken));
        let Some(Kept { entry, progress: before, .. }) = leaving.load().await else {
            return Err(UpdateError::Disk);
        };
        let theirs = theirs(before.statuses.len()).map_err(UpdateError::Format)?;
        let progress = before.clone().joined(theirs);
        let update = ProgressUpdate { before: before.counts(), after: progress.counts() };
        let heard = match sender_hears {
            SenderHears::Here => before.statuses,
            SenderHears::There => progress.statuses.clone(),
        };
        let (done, taken_in) = oneshot::channel();
        self.spawn(async move {
            let mut leaving = leaving;
            if let Some(taken) = leaving.0.take() {
                taken.replaced(entry, heard, progress).await;
            }
            // Nobody waits any more when it took long.
            let _ = done.send(());
        });
        match timeout(RECORDED, taken_in).await {
            Ok(Ok(())) => Ok(Some(update)),
            _ => Err(UpdateError::Disk),
        }
    }

    /// A dead letter that another pod has delivered after all is none; where it was delivered to some of its recipients, it is not
    /// sent to them again.
    async fn update_dead_letter(
        &self,
        Kept { entry, progress, .. }: Kept,
        theirs: impl FnOnce(usize) -> Result<Progress, FormatError>,
    ) -> Result<ProgressUpdate, UpdateError> {
        let id = &entry.envelope.id;
        let before = progress.counts();
        let progress = progress.joined(theirs(before.total()).map_err(UpdateError::Format)?);
        let update = ProgressUpdate { before, after: progress.counts() };
        if update.after == before {
            return Ok(update);
        }
        let is_delivered = update.after.delivered == before.total();
        let written =
            if is_delivered { self.spool.finish(id).await } else { self.spool.record(id, &progress).await };
        if let Err(error) = written {
            tracing::error!(queue_id = %id, error = chain(&error), "a dead letter that was delivered after all stays one");
            return Err(UpdateError::Disk);
        }
        self.tell();
        Ok(update)
    }

    /// Whether there is a message that is not among `but`, also one that is being tried.
    pub fn has_other_than(&self, but: &HashSet<QueueId>) -> bool {
        self.state().index.iter().any(|(id, _)| !but.contains(id))
    }

    /// The first message that nobody is trying and that is not among `but`, to hand over.
    pub fn leaving(self: &Arc<Self>, but: &HashSet<QueueId>) -> Option<Leaving> {
        let id = {
            let state = self.state();
            let free =
                |(id, record): &(&QueueId, &super::index::QueueRecord)| !record.taken && !but.contains(*id);
            state.index.iter().find(free).map(|(id, _)| id.clone())?
        };
        self.claim(&id).map(|taken| Leaving(Some(taken)))
    }

    /// Takes a message from the dead letters, which another pod has now.
    pub async fn dead_letter_gone(&self, id: &QueueId) {
        if let Err(error) = self.spool.remove(id).await {
            tracing::error!(queue_id = %id, error = chain(&error), "a dead letter that was handed over cannot be removed");
        }
        self.tell();
    }

    /// A dead letter; nothing when it cannot be read.
    pub async fn dead_letter(&self, id: &QueueId) -> Option<Kept> {
        self.spool.load(id).await.ok().filter(|kept| kept.shelf == Shelf::Dead)
    }

    /// Ends the attempts that are under way, whose messages wait again. Whether the upstream has taken one of them nobody knows. What was
    /// delivered, and waits for the disk, is left to it.
    pub fn cut_off(&self) {
        self.cut_off.send_modify(|()| {});
    }

    /// What is kept of a message after its first `attempt`, for the recipients that still wait, and for those that it will not reach.
    pub fn after_attempt(&self, envelope: &Envelope, attempt: &AttemptResult) -> Attempted {
        let mut attempted =
            self.after_attempt_for_all(Entry::message(envelope.clone(), clock::timestamp()), attempt);
        if !attempted.progress.has_failed() {
            // To whom it was delivered is answered for with the reply to the application.
            let waiting = recipients::waiting(&attempted.progress);
            attempted.entry.envelope = recipients::part(&attempted.entry, &waiting);
            attempted.progress.statuses = Progress::fresh(&attempted.entry).statuses;
        }
        attempted
    }

    /// The same with all recipients of the entry, whatever has become of them.
    pub fn after_attempt_for_all(&self, entry: Entry, attempt: &AttemptResult) -> Attempted {
        let now = clock::timestamp();
        let mut progress = Progress::fresh(&entry);
        let all: Vec<usize> = (0..progress.statuses.len()).collect();
        let after = recipients::apply(&mut progress, &all, attempt, now).after.unwrap_or(NextAttempt::Again);
        progress.next =
            self.pace.next(after, progress.attempts, now, later(now, MAX_FIRST_PAUSE), clock::chance());
        Attempted { entry, progress, held: after == NextAttempt::Hold }
    }

    fn claim(self: &Arc<Self>, id: &QueueId) -> Option<ClaimedMessage> {
        let record = self.state().index.take(id)?;
        Some(ClaimedMessage::new(self, id.clone(), record))
    }
}
