//! One message on its way from the queue: as many transactions as its recipients need, each recipient's status written
//! down before more is done, and what follows.

mod settled;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mailroute_route::text::chain;
use tokio::sync::watch;

pub(super) use self::settled::log_removed;
use super::Queue;
use super::index::QueueRecord;
use super::recipients::{self, GroupResult};
use super::schedule::{NextAttempt, later};
use super::split::{self, Reach};
use crate::attempt::{Active, Attempt, Attempts, Origin, SendPermit};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::{Address, QueueId};
use crate::outcome::{AttemptResult, PartialDelivery};
use crate::spool::{Entry, Kept, Progress, SpoolError};

/// The next transaction of the same message waits for its permit no longer than this; then others go first.
const PERMIT_WAIT: Duration = Duration::from_secs(60);

/// Most settled messages that wait for the disk while others have taken their places: beyond it a slow disk slows
/// delivery down, where it would otherwise fill the memory.
const SETTLED: usize = 64;

/// A message that nobody else may take. Gives it back when it is dropped without a word, as after a panic.
pub(super) struct ClaimedMessage {
    queue: Arc<Queue>,
    id: Option<QueueId>,
    /// What was known of it.
    record: QueueRecord,
    /// The lane whose worker counts it.
    counted: Option<usize>,
    /// Its attempts are to end.
    cut_off: watch::Receiver<()>,
}

impl ClaimedMessage {
    /// A message taken beside the worker.
    pub(super) fn new(queue: &Arc<Queue>, id: QueueId, record: QueueRecord) -> Self {
        let cut_off = queue.cut_off.subscribe();
        Self { queue: Arc::clone(queue), id: Some(id), record, counted: None, cut_off }
    }

    /// A message taken by the worker.
    pub(super) fn counted(queue: &Arc<Queue>, lane: usize, id: QueueId, record: QueueRecord) -> Self {
        let mut taken = Self::new(queue, id, record);
        taken.counted = Some(lane);
        taken.count(1);
        taken
    }

    /// Counts it in or out, where a worker counts it.
    fn count(&self, by: isize) {
        let mut state = self.queue.state();
        if let Some(lane) = self.counted.and_then(|lane| state.lanes.get_mut(lane)) {
            lane.in_delivery = lane.in_delivery.saturating_add_signed(by);
        }
    }

    /// Makes its attempts.
    fn attempts(&self) -> &Arc<Attempts> {
        self.queue.attempts(&self.record)
    }

    pub(super) const fn id(&self) -> Option<&QueueId> {
        self.id.as_ref()
    }

    /// Whether it was left to another pod.
    pub(super) fn is_reserved(&self) -> bool {
        self.record.is_reserved(self.queue.now())
    }

    pub(super) const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Tries a message by the route `active`, once for each group of its waiting recipients. `permit` is for the first.
    pub(super) async fn deliver(self, active: Arc<Active>, permit: SendPermit) {
        let Some(Kept { entry, mut progress, body, .. }) = self.load().await else { return };
        let before = progress.statuses.clone();
        let Reach { within, beyond } =
            split::reach(&active.route, &entry.envelope, recipients::waiting(&progress));
        let groups = split::groups(&active.route, &entry.envelope.recipients, within);
        let (mut first, mut after) = (Some((active, permit)), None);
        for group in groups {
            let granted = match first.take() {
                Some(first) => Some(Some(first)),
                None => self.unless_cut_off(self.permit_for_more(group.len() as u64)).await,
            };
            // Cut off: what is settled is written down, and the rest waits again.
            let Some(granted) = granted else { return };
            let Some((active, permit)) = granted else {
                after = Some(NextAttempt::Hold);
                break;
            };
            let result = self.transaction(&active, permit, &entry, &mut progress, &body, &group).await;
            let Some(result) = result else { return };
            after = graver(after, result.after);
            if after == Some(NextAttempt::Hold) {
                break;
            }
        }
        if let Some((_, permit)) = first {
            permit.unused();
        }
        if let Some(why) = beyond {
            after = graver(after, Some(recipients::put_off(&mut progress, why, clock::timestamp())));
        }
        // What follows may wait for the disk, and needs no octets.
        drop(body);
        self.settle(entry, progress, before, after).await;
    }

    /// The route as it is now, and a permit for the next transaction of the same message.
    async fn permit_for_more(&self, recipients: u64) -> Option<(Arc<Active>, SendPermit)> {
        let attempts = self.attempts();
        let active = attempts.active()?;
        let permit = attempts.permit_until(recipients, clock::now() + PERMIT_WAIT).await.ok()?;
        Some((active, permit))
    }

    /// What comes of a step, unless attempts are cut off before. Whatever follows an attempt is not cut off: a message that was
    /// delivered would be tried again.
    pub(super) async fn unless_cut_off<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let mut cut_off = self.cut_off.clone();
        tokio::select! {
            biased;
            result = step => Some(result),
            Ok(()) = cut_off.changed() => None,
        }
    }

    /// One transaction; nothing when it was cut off.
    async fn transaction(
        &self,
        active: &Active,
        permit: SendPermit,
        entry: &Entry,
        progress: &mut Progress,
        body: &Body,
        group: &[usize],
    ) -> Option<GroupResult> {
        let envelope = &recipients::part(entry, group);
        let number = progress.attempts.saturating_add(1);
        let origin = if self.record.by_command { Origin::Command(number) } else { Origin::Queue(number) };
        let attempt = Attempt { envelope, body, partial: PartialDelivery::Always, origin, timeout: None };
        let result = self.unless_cut_off(self.attempts().make(active, permit, attempt)).await?;
        let result = recipients::apply(progress, group, &result, clock::timestamp());
        // A recipient that has the message must not get it again, whatever happens to the others. Where nobody waits
        // the end of the message says the same.
        if result.delivered > 0 && progress.waiting() > 0 {
            self.queue.write_down(&entry.envelope.id, progress).await;
        }
        Some(result)
    }

    /// Takes in an attempt that was made for all recipients at once.
    pub(super) async fn attempted(self, entry: Entry, mut progress: Progress, attempt: &AttemptResult) {
        let before = progress.statuses.clone();
        let all: Vec<usize> = (0..before.len()).collect();
        let result = recipients::apply(&mut progress, &all, attempt, clock::timestamp());
        self.settle(entry, progress, before, result.after).await;
    }

    /// Gives up what waits, since its time is over and the route still does not work.
    pub(super) async fn give_up(self) {
        let Some(Kept { entry, progress, .. }) = self.load().await else { return };
        let before = progress.statuses.clone();
        self.settle(entry, progress, before, Some(NextAttempt::Hold)).await;
    }

    /// The message as it is on disk; nothing when it is not to be tried now, or not any more.
    pub(super) async fn load(&self) -> Option<Kept> {
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

    /// The message waits as before, but for the mailbox that serves its sender by now.
    pub(super) async fn reassign(mut self) {
        let Some(Kept { entry: Entry { envelope, .. }, .. }) = self.load().await else { return };
        let Some(id) = self.id.take() else { return };
        let mailbox = self.queue.lanes.serving(envelope.mailbox.as_ref(), &envelope.reverse_path);
        tracing::info!(
            queue_id = %id,
            mailbox = mailbox.as_ref().map(Address::as_str),
            "the route does not name the message's mailbox any more; another one sends it"
        );
        let mut state = self.queue.state();
        let number = state.number(mailbox.as_ref(), &self.queue.lanes);
        state.index.put_back(&id, |record| record.mailbox = number);
    }

    /// The message was not tried: it waits as before.
    pub(super) fn put_back(mut self) {
        if let Some(id) = self.id.take() {
            self.queue.state().index.put_back(&id, |_| {});
        }
    }

    /// The same, and nobody here tries it for as long as `time`, or longer where it was left to another pod for longer before.
    pub(super) fn put_off(mut self, time: Duration) {
        if let Some(id) = self.id.take() {
            let until = Some(later(self.queue.now(), time));
            let put_off =
                |record: &mut QueueRecord| *record = record.reserved(record.reserved_until.max(until));
            self.queue.state().index.put_back(&id, put_off);
        }
    }

    /// The message was not tried, and is left to no other pod any more.
    pub(super) fn stay(mut self) {
        if let Some(id) = self.id.take() {
            let now = self.queue.now();
            self.queue.state().index.put_back(&id, |record| record.end_reservation(now));
        }
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
        let through = self.attempts().delivered();
        self.queue.state().index.put_back(&id, |record| {
            (record.due, record.reserved_until) = (due, None);
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
        let early = self.counted.is_some() && state.settled < SETTLED;
        state.settled += usize::from(early);
        drop(state);
        if early {
            self.land();
        }
        early
    }

    /// The place among the flights is free again.
    fn land(&mut self) {
        if self.counted.is_some() {
            self.count(-1);
            self.counted = None;
            self.queue.nudge();
        }
    }
}

impl Drop for ClaimedMessage {
    fn drop(&mut self) {
        let again = later(self.queue.now(), self.queue.pace.patient);
        if let Some(id) = self.id.take() {
            self.queue.state().index.put_back(&id, |record| {
                record.due = record.reserved_until.map_or(again, |until| until.max(again));
                record.held = false;
            });
        }
        self.land();
        self.queue.news();
    }
}

/// What follows for the message when two of its transactions ask for different things: the slower.
fn graver(one: Option<NextAttempt>, other: Option<NextAttempt>) -> Option<NextAttempt> {
    let rank = |after: &NextAttempt| match after {
        NextAttempt::GoOn => 0,
        NextAttempt::Again => 1,
        NextAttempt::Patiently => 2,
        NextAttempt::Hold => 3,
    };
    one.into_iter().chain(other).max_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_transactions_decides() {
        assert_eq!(graver(Some(NextAttempt::Again), Some(NextAttempt::GoOn)), Some(NextAttempt::Again));
        assert_eq!(graver(None, Some(NextAttempt::Hold)), Some(NextAttempt::Hold));
        assert_eq!(graver(None, None), None);
    }
}
