//! What follows once an attempt, or the lack of one, has changed what became of a message's recipients: its sender hears of it, and
//! it is tried again, moved to the dead letters, or removed.

use std::sync::Arc;
use std::time::Duration;

use mailroute_route::text::chain;

use super::super::notify::{self, Failure};
use super::super::schedule::{NextAttempt, later, until};
use super::super::{Queue, recipients};
use super::ClaimedMessage;
use crate::attempt::Active;
use crate::clock;
use crate::message::envelope::QueueId;
use crate::outcome::queued::QueueExit;
use crate::spool::{Entry, Progress, RecipientStatus, SpoolError};

/// How long before the removal of a delivered message is tried again, when the disk refuses it.
const REMOVAL: Duration = Duration::from_secs(5);

impl ClaimedMessage {
    /// What follows once an attempt, or the lack of one, has changed the statuses from `before`.
    pub(super) async fn settle(
        mut self,
        entry: Entry,
        mut progress: Progress,
        before: Vec<RecipientStatus>,
        after: Option<NextAttempt>,
    ) {
        let (now, active) = (self.queue.now(), self.attempts().active());
        let max_age = active
            .as_ref()
            .map_or(Duration::MAX, |active| Duration::from_secs(active.route.delivery.max_age_seconds));
        let expires = later(self.record.since, max_age);
        if progress.waiting() > 0 && now >= expires {
            recipients::expire(&mut progress, clock::timestamp());
        }
        self.notify(active.as_deref(), &entry, &before, &progress).await;
        if progress.waiting() == 0 {
            let last = progress.has_failed().then_some(&progress);
            return self.gone(&entry, last).await;
        }
        let after = self.own_trouble(after.unwrap_or(NextAttempt::Again), &mut progress);
        let due = self.queue.pace.next(after, progress.attempts, now, expires, clock::chance());
        (progress.next, progress.reserved_until) = (self.queue.ahead().system(due), None);
        self.queue.write_down(&entry.envelope.id, &progress).await;
        self.give_back(after == NextAttempt::Hold, due, &progress);
    }

    /// Takes in the progress that another pod has made. The sender hears of the recipients that have failed since `before`.
    pub(in crate::queue) async fn replaced(
        mut self,
        entry: Entry,
        before: Vec<RecipientStatus>,
        progress: Progress,
    ) {
        let active = self.attempts().active();
        self.notify(active.as_deref(), &entry, &before, &progress).await;
        if progress.waiting() == 0 {
            let last = progress.has_failed().then_some(&progress);
            return self.gone(&entry, last).await;
        }
        self.queue.write_down(&entry.envelope.id, &progress).await;
        let due = self.queue.record_of(&entry, entry.accepted, &progress).due;
        self.give_back(recipients::waits_for_route(&progress), due, &progress);
    }

    /// Tells the sender of the recipients that have failed since `before`. The archive is none of the sender's.
    async fn notify(
        &self,
        active: Option<&Active>,
        entry: &Entry,
        before: &[RecipientStatus],
        progress: &Progress,
    ) {
        let mut failed = newly_failed(before, progress);
        failed.retain(|&position| Some(position) != entry.envelope.archive_position());
        if let Some(active) = active.filter(|_| !failed.is_empty()) {
            let failure = Failure { entry, progress, failed: &failed };
            notify::sender(&self.queue, &active.route, failure, clock::timestamp()).await;
        }
    }

    /// Trouble of the route that this message meets while others get through is its own after all: it must neither stop
    /// the others again and again, nor be asked about without end.
    fn own_trouble(&self, after: NextAttempt, progress: &mut Progress) -> NextAttempt {
        let through = self.attempts().delivered();
        let others = self.record.stopped_after.is_some_and(|before| through > before);
        if after == NextAttempt::Hold && others {
            progress.attempts = progress.attempts.saturating_add(1);
            return NextAttempt::Again;
        }
        after
    }

    /// The message leaves the queue: to the dead letters with its `last` progress, or for good.
    async fn gone(self, entry: &Entry, last: Option<&Progress>) {
        let (queue, age) = (Arc::clone(&self.queue), until(clock::timestamp(), entry.accepted));
        let ended = if last.is_some() { QueueExit::DeadLetter } else { QueueExit::Delivered };
        if let Some(progress) = last {
            log_dead(entry, progress);
        }
        self.clear_away(last).await;
        queue.metrics.left_queue(ended, age);
    }

    /// Takes the message off the disk, or moves it to the dead letters. Nobody tries it again.
    pub(in crate::queue) async fn clear_away(mut self, last: Option<&Progress>) {
        let Some(id) = self.id.clone() else { return };
        let queue = Arc::clone(&self.queue);
        let landed = self.land_early();
        let mut failed_before = false;
        loop {
            let left = match last {
                Some(progress) => {
                    queue.spool.bury(&id, progress).await.map(|removed| log_removed(&queue, &removed))
                }
                None => queue.spool.finish(&id).await,
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
}

fn newly_failed(before: &[RecipientStatus], progress: &Progress) -> Vec<usize> {
    let both = before.iter().zip(&progress.statuses).enumerate();
    both.filter(|(_, (before, now))| {
        **before == RecipientStatus::Waiting && matches!(now, RecipientStatus::Failed(_))
    })
    .map(|(position, _)| position)
    .collect()
}

/// Dead letters that had to go, since more were given up than are kept.
pub(in crate::queue) fn log_removed(queue: &Queue, removed: &[QueueId]) {
    for id in removed {
        queue.metrics.dead_letter_removed();
        tracing::error!(queue_id = %id, "removed a dead letter, because there are more than spec.delivery.deadLetter.keep");
    }
}

fn log_dead(entry: &Entry, progress: &Progress) {
    let failed = progress.statuses.iter().filter_map(|status| match status {
        RecipientStatus::Failed(problem) => Some(problem),
        _ => None,
    });
    let last = failed.clone().next_back();
    tracing::error!(
        queue_id = %entry.envelope.id,
        message_id = entry.envelope.message_id,
        recipients = entry.envelope.recipients.len(),
        failed = failed.count(),
        attempt = progress.attempts,
        outcome = last.map(|problem| problem.outcome.as_str()),
        reason = last.and_then(|problem| problem.reason).map(mailroute_route::condition::Reason::as_str),
        reply = last.map(|problem| problem.text.as_str()),
        "given up: stored as a dead letter"
    );
}
