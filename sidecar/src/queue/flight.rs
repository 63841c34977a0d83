//! One message on its way from the queue: as many transactions as its recipients need, each recipient's fate written
//! down before more is done, and what follows.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailroute_route::RouteFile;

use super::fates::{self, Step};
use super::index::Record;
use super::schedule::{After, later, until};
use super::{Queue, chain, notify, split};
use crate::body::Body;
use crate::clock;
use crate::delivery::outcome::{Attempt, Partial};
use crate::dispatch::{Leave, Origin};
use crate::envelope::QueueId;
use crate::metrics::Ended;
use crate::settings::out_of_reach;
use crate::spool::{Entry, Fate, Kept, Progress, SpoolError};

/// The next transaction of the same message waits for leave no longer than this; then others go first.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long before the removal of a delivered message is tried again, when the disk refuses it.
const REMOVAL: Duration = Duration::from_secs(5);

/// Most settled messages that wait for the disk while others have taken their places: beyond it a slow disk slows
/// delivery down, where it would otherwise fill the memory.
const SETTLED: usize = 64;

/// A message that nobody else may take. Gives it back when it is dropped without a word, as after a panic.
pub(super) struct Taken {
    queue: Arc<Queue>,
    id: Option<QueueId>,
    /// What was known of it.
    record: Record,
    /// Whether the worker counts it.
    counted: bool,
}

impl Taken {
    /// A message taken beside the worker.
    pub(super) fn new(queue: &Arc<Queue>, id: QueueId, record: Record) -> Self {
        Self { queue: Arc::clone(queue), id: Some(id), record, counted: false }
    }

    /// A message taken by the worker.
    pub(super) fn counted(queue: &Arc<Queue>, id: QueueId, record: Record) -> Self {
        queue.state().flying += 1;
        let mut taken = Self::new(queue, id, record);
        taken.counted = true;
        taken
    }

    pub(super) const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Tries a message once for each group of its waiting recipients. `leave` is for the first.
    pub(super) async fn fly(self, leave: Leave) {
        let Some(Kept { entry, mut progress, body, .. }) = self.load().await else { return };
        let before = progress.fates.clone();
        let most = usize::try_from(leave.route().limits.max_recipients).unwrap_or(usize::MAX);
        let (waiting, beyond) = in_reach(leave.route(), &entry, fates::waiting(&progress));
        let groups = split::groups(&entry.envelope.recipients, &waiting, most);
        let (mut leave, mut after) = (Some(leave), None);
        for group in groups {
            let recipients = group.len() as u64;
            let granted = match leave.take() {
                Some(first) => Some(first),
                None => self.leave_for_more(recipients).await,
            };
            let Some(granted) = granted else {
                after = Some(After::Hold);
                break;
            };
            let step = self.transaction(granted, &entry, &mut progress, &body, &group).await;
            after = graver(after, step.after);
            if after == Some(After::Hold) {
                break;
            }
        }
        if let Some(leave) = leave {
            leave.unused();
        }
        if let Some(why) = beyond {
            after = graver(after, Some(fates::put_off(&mut progress, why, clock::timestamp())));
        }
        // What follows may wait for the disk, and needs no octets.
        drop(body);
        self.settle(entry, progress, before, after).await;
    }

    /// Leave for the next transaction of the same message.
    async fn leave_for_more(&self, recipients: u64) -> Option<Leave> {
        let active = self.queue.dispatch.active()?;
        self.queue.dispatch.leave_until(&active, recipients, clock::now() + PATIENCE).await.ok()
    }

    async fn transaction(
        &self,
        leave: Leave,
        entry: &Entry,
        progress: &mut Progress,
        body: &Body,
        group: &[usize],
    ) -> Step {
        let envelope = fates::part(entry, group);
        let number = progress.attempts.saturating_add(1);
        let origin = if self.record.by_hand { Origin::ByHand(number) } else { Origin::Queue(number) };
        let attempt =
            self.queue.dispatch.attempt(leave, &envelope, body, Partial::Always, (origin, None)).await;
        let step = fates::apply(progress, group, &attempt, clock::timestamp());
        // A recipient that has the message must not get it again, whatever happens to the others. Where nobody waits
        // the end of the message says the same.
        if step.delivered > 0 && progress.waiting() > 0 {
            self.queue.write_down(&entry.envelope.id, progress).await;
        }
        step
    }

    /// Takes in an attempt that was made for all recipients at once.
    pub(super) async fn attempted(self, entry: Entry, mut progress: Progress, attempt: &Attempt) {
        let before = progress.fates.clone();
        let all: Vec<usize> = (0..before.len()).collect();
        let step = fates::apply(&mut progress, &all, attempt, clock::timestamp());
        self.settle(entry, progress, before, step.after).await;
    }

    /// Gives up what waits, since its time is over and the route still does not work.
    pub(super) async fn give_up(self) {
        let Some(Kept { entry, progress, .. }) = self.load().await else { return };
        let before = progress.fates.clone();
        self.settle(entry, progress, before, Some(After::Hold)).await;
    }

    /// The message as it is on disk; nothing when it is not to be tried now, or not any more.
    async fn load(&self) -> Option<Kept> {
        let id = self.id.as_ref()?;
        let error = match self.queue.spool.load(id).await {
            Ok(mut kept) => {
                if let Some(newer) = self.queue.state().unwritten.get(id) {
                    kept.progress = newer.clone();
                }
                return Some(kept);
            }
            Err(error) => error,
        };
        tracing::error!(queue_id = %id, error = chain(&error), "a queued message cannot be read");
        if matches!(error, SpoolError::Damaged { .. } | SpoolError::Unknown(_)) {
            let mut state = self.queue.state();
            // A person may have brought it back meanwhile.
            if state.index.record(id).is_some_and(|record| record.taken) {
                state.index.remove(id);
            }
        }
        None
    }

    /// What follows once an attempt, or the lack of one, has changed the fates from `before`.
    async fn settle(mut self, entry: Entry, mut progress: Progress, before: Vec<Fate>, after: Option<After>) {
        let (now, active) = (self.queue.now(), self.queue.dispatch.active());
        let max_age = active
            .as_ref()
            .map_or(Duration::MAX, |active| Duration::from_secs(active.route.delivery.max_age_seconds));
        let expires = later(self.record.since, max_age);
        if progress.waiting() > 0 && now >= expires {
            fates::expire(&mut progress, clock::timestamp());
        }
        let failed = newly_failed(&before, &progress);
        if let Some(active) = active.filter(|_| !failed.is_empty()) {
            notify::sender(&self.queue, &active.route, (&entry, &progress), &failed, clock::timestamp())
                .await;
        }
        if progress.waiting() == 0 {
            let dead = progress.fates.iter().any(|fate| matches!(fate, Fate::Failed(_)));
            return self.gone(&entry, dead.then_some(&progress)).await;
        }
        let after = self.own_trouble(after.unwrap_or(After::Again), &mut progress);
        let due = self.queue.pace.next(after, progress.attempts, now, expires, clock::chance());
        progress.next = self.queue.ahead().system(due);
        self.queue.write_down(&entry.envelope.id, &progress).await;
        self.give_back(after == After::Hold, due, &progress);
    }

    /// Trouble of the route that this message meets while others get through is its own after all: it must neither stop
    /// the others again and again, nor be asked about without end.
    fn own_trouble(&self, after: After, progress: &mut Progress) -> After {
        let through = self.queue.dispatch.delivered();
        let others = self.record.stopped_after.is_some_and(|before| through > before);
        if after == After::Hold && others {
            progress.attempts = progress.attempts.saturating_add(1);
            return After::Again;
        }
        after
    }

    /// The message leaves the queue: to the dead letters with its `last` progress, or for good.
    async fn gone(self, entry: &Entry, last: Option<&Progress>) {
        let (queue, age) = (Arc::clone(&self.queue), until(clock::timestamp(), entry.accepted));
        let ended = if last.is_some() { Ended::DeadLetter } else { Ended::Delivered };
        if let Some(progress) = last {
            log_dead(entry, progress);
        }
        self.clear_away(last).await;
        queue.metrics.left_queue(ended, age);
    }

    /// Takes the message off the disk, or moves it to the dead letters. Nobody tries it again.
    pub(super) async fn clear_away(mut self, last: Option<&Progress>) {
        let Some(id) = self.id.clone() else { return };
        let queue = Arc::clone(&self.queue);
        let landed = self.land_early();
        let mut failed_before = false;
        loop {
            let left = match last {
                Some(progress) => {
                    queue.spool.bury(&id, progress).await.map(|removed| log_removed(&queue, &removed))
                }
                None => queue.spool.remove(&id).await,
            };
            match left {
                Ok(()) | Err(SpoolError::Unknown(_)) => break,
                Err(error) if !failed_before => {
                    // Not given back: it would be delivered again.
                    failed_before = true;
                    tracing::error!(queue_id = %id, error = chain(&error), "a finished message cannot be moved; trying again");
                }
                Err(_) => {}
            }
            tokio::time::sleep(REMOVAL).await;
        }
        let mut state = queue.state();
        state.settled -= usize::from(landed);
        state.index.remove(&id);
        state.unwritten.remove(&id);
        self.id = None;
    }

    /// The message is gone already.
    pub(super) fn forget(mut self) {
        if let Some(id) = self.id.take() {
            let mut state = self.queue.state();
            state.index.remove(&id);
            state.unwritten.remove(&id);
        }
    }

    fn give_back(&mut self, held: bool, due: Timestamp, progress: &Progress) {
        let Some(id) = self.id.take() else { return };
        let through = self.queue.dispatch.delivered();
        self.queue.state().index.put_back(&id, |record| {
            record.due = due;
            record.recipients = u32::try_from(progress.waiting()).unwrap_or(u32::MAX);
            record.held = held;
            if held {
                record.stopped_after = Some(through);
            }
        });
    }

    /// Frees the place before the disk has done its part, as the upstream need not wait for it; unless too many wait for
    /// the disk already.
    fn land_early(&mut self) -> bool {
        let mut state = self.queue.state();
        let early = self.counted && state.settled < SETTLED;
        state.settled += usize::from(early);
        drop(state);
        if early {
            self.land();
        }
        early
    }

    /// The place among the flights is free again.
    fn land(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.queue.state().flying -= 1;
            self.queue.nudge();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let again = later(self.queue.now(), self.queue.pace.patient);
        if let Some(id) = self.id.take() {
            self.queue.state().index.put_back(&id, |record| (record.due, record.held) = (again, false));
        }
        self.land();
        self.queue.news();
    }
}

/// Those of the waiting recipients whom the route's method can reach, and why it cannot reach the others.
fn in_reach(route: &RouteFile, entry: &Entry, waiting: Vec<usize>) -> (Vec<usize>, Option<String>) {
    let (mut within, mut beyond) = (waiting, None);
    within.retain(|&position| {
        let to = entry.envelope.recipients.get(position);
        let why = to.and_then(|to| out_of_reach(route, &entry.envelope.reverse_path, to));
        let reached = why.is_none();
        beyond = why.or(beyond.take());
        reached
    });
    (within, beyond)
}

/// What follows for the message when two of its transactions ask for different things: the slower.
fn graver(one: Option<After>, other: Option<After>) -> Option<After> {
    let rank = |after: &After| match after {
        After::GoOn => 0,
        After::Again => 1,
        After::Patiently => 2,
        After::Hold => 3,
    };
    one.into_iter().chain(other).max_by_key(rank)
}

fn newly_failed(before: &[Fate], progress: &Progress) -> Vec<usize> {
    let both = before.iter().zip(&progress.fates).enumerate();
    both.filter(|(_, (before, now))| **before == Fate::Waiting && matches!(now, Fate::Failed(_)))
        .map(|(position, _)| position)
        .collect()
}

/// Dead letters that had to go, since more were given up than are kept.
fn log_removed(queue: &Queue, removed: &[QueueId]) {
    for id in removed {
        queue.metrics.dead_letter_removed();
        tracing::error!(queue_id = %id, "removed a dead letter, because there are more than spec.delivery.deadLetter.keep");
    }
}

fn log_dead(entry: &Entry, progress: &Progress) {
    let failed = progress.fates.iter().filter_map(|fate| match fate {
        Fate::Failed(trouble) => Some(trouble),
        _ => None,
    });
    let last = failed.clone().next_back();
    tracing::error!(
        queue_id = %entry.envelope.id,
        message_id = entry.envelope.message_id,
        recipients = entry.envelope.recipients.len(),
        failed = failed.count(),
        attempt = progress.attempts,
        outcome = last.map(|trouble| trouble.outcome.as_str()),
        reason = last.and_then(|trouble| trouble.reason).map(mailroute_route::condition::Reason::as_str),
        reply = last.map(|trouble| trouble.text.as_str()),
        "given up: stored as a dead letter"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_transactions_decides() {
        assert_eq!(graver(Some(After::Again), Some(After::GoOn)), Some(After::Again));
        assert_eq!(graver(None, Some(After::Hold)), Some(After::Hold));
        assert_eq!(graver(None, None), None);
    }
}
