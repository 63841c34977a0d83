//! One attempt, made with leave: cut off when it takes too long, and what it teaches told to all who learn from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroute_route::condition::Reason;

use super::passage::{Passage, concerns_the_route};
use super::{Dispatch, Leave, Origin, log};
use crate::body::Body;
use crate::breaker::author;
use crate::breaker::offences::Message;
use crate::budget::gate::SendPermit as Ticket;
use crate::clock;
use crate::delivery::effect::{effect, used};
use crate::delivery::outcome::{Attempt, Met, Outcome, Partial, Verdict};
use crate::envelope::Envelope;
use crate::logging::faults::{self, Due};

impl Dispatch {
    /// Makes one attempt, cut off after `patience` where somebody waits for it. Dropped, it leaves the fate of the
    /// message unknown.
    pub async fn attempt(
        &self,
        leave: Leave,
        envelope: &Envelope,
        body: &Body,
        partial: Partial,
        (origin, patience): (Origin, Option<Duration>),
    ) -> Attempt {
        let started = clock::now();
        let author = self.author(body).await;
        let (mailbox, recipients) =
            (leave.active.route.method.mailbox().map(str::to_owned), &envelope.recipients);
        let (mailbox, reverse_path) = (mailbox.as_deref(), envelope.reverse_path.address());
        let mut message = Message { mailbox, reverse_path, author: author.as_deref(), recipients };
        let foreseen = self.breaker().foresees(&message, clock::now());
        if let Some(attempt) = foreseen.filter(|_| !matches!(origin, Origin::ByHand(_))) {
            return self.spared(leave, envelope, body, attempt, origin);
        }
        // Fewer for a while after Exchange counted too many.
        leave.active.deliver.resize(usize::try_from(self.budget.connections()).unwrap_or(usize::MAX));
        let delivery = leave.active.deliver.deliver(envelope, body, partial);
        let attempt = self.cut_short(delivery, &leave.ticket, patience).await;
        let took = started.elapsed();
        // Read only where it matters: at the first refusal that may be about it.
        let late = if is_refused(&attempt) && author.is_none() { author::of(body).await } else { None };
        message.author = author.as_deref().or(late.as_deref());
        self.learn(&attempt, &message, body, took);
        let due = self.fault_line(attempt.verdict.outcome);
        log::attempt(&leave.active.route, envelope, body, &attempt, (origin, took), due);
        let delivered = attempt.verdict.outcome == Outcome::Delivered;
        leave.ticket.settle(used(&attempt, recipients.len() as u64), delivered);
        attempt
    }

    /// What comes of a delivery that ends when nobody waits for it any longer, or the leave for it is over.
    async fn cut_short(
        &self,
        delivery: impl Future<Output = Attempt>,
        ticket: &Ticket,
        patience: Option<Duration>,
    ) -> Attempt {
        let impatience = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            attempt = delivery => attempt,
            () = impatience => cut_off(&format!("no verdict from the upstream within {} seconds", patience.unwrap_or_default().as_secs())),
            () = self.budget.overdue(ticket) => cut_off("the operator that shares out the mailbox's limits was not reached for too long"),
        }
    }

    /// Whom the message says it is from, while that makes a difference.
    async fn author(&self, body: &Body) -> Option<String> {
        let matters = self.breaker().watches_authors();
        if matters { author::of(body).await } else { None }
    }

    /// An attempt that is not made, since what will come of it is known.
    fn spared(
        &self,
        leave: Leave,
        envelope: &Envelope,
        body: &Body,
        attempt: Attempt,
        origin: Origin,
    ) -> Attempt {
        self.board.record(&attempt.met);
        self.metrics.failed_fast();
        log::attempt(&leave.active.route, envelope, body, &attempt, (origin, Duration::ZERO), None);
        leave.unused();
        attempt
    }

    /// Whether it is time to write of the fault that this outcome tells, and that others are over where it tells none.
    fn fault_line(&self, outcome: Outcome) -> Option<Due> {
        let (mut faults, now) = (self.faults(), clock::now());
        match outcome.reason().filter(|_| concerns_the_route(outcome)) {
            Some(reason) => faults.met(reason, now),
            None if outcome == Outcome::Delivered => {
                faults::write(faults.works(now));
                None
            }
            None => None,
        }
    }

    fn learn(&self, attempt: &Attempt, message: &Message<'_>, body: &Body, took: Duration) {
        let (outcome, now) = (attempt.verdict.outcome, clock::now());
        {
            let mut breaker = self.breaker();
            breaker.learn(&attempt.verdict, now);
            breaker.learn_message(message, attempt, now);
        }
        self.board.record(&attempt.met);
        self.metrics.attempted(attempt, accepted(attempt, message.recipients.len()), body.len(), took);
        if outcome == Outcome::Delivered {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(throttle) = effect(outcome).throttle {
            self.budget.throttled(throttle);
        }
        self.notice(if concerns_the_route(outcome) { Passage::Shut } else { Passage::Open });
    }
}

/// Whether the sender or a recipient was refused for good.
fn is_refused(attempt: &Attempt) -> bool {
    let refused = attempt.refused.iter().map(|refused| refused.verdict.outcome);
    refused.chain([attempt.verdict.outcome]).any(|outcome| {
        matches!(outcome, Outcome::RejectRecipient | Outcome::RejectMessage(Some(Reason::SendAsDenied)))
    })
}

/// How many recipients the upstream took the message for.
fn accepted(attempt: &Attempt, recipients: usize) -> u64 {
    let delivered = (0..recipients).filter(|at| attempt.fate(*at).outcome == Outcome::Delivered);
    delivered.count() as u64
}

/// The attempt that was cut off. Its connection ended with it, so it goes no further.
fn cut_off(why: &str) -> Attempt {
    let text = format!("{why}; whether the message was accepted is unknown");
    let reason = Reason::UpstreamUnavailable;
    let met = vec![Met::new(reason, text.clone())];
    let verdict = Verdict::without_reply(Outcome::Transient(Some(reason)), text);
    Attempt { verdict, refused: vec![], met, host: None }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::budget::Spans;
    use crate::delivery::outcome::Refused;
    use crate::health::Board;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_fault_that_is_met_again_with_another_configuration_has_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let (metrics, (_active, active)) = (Metrics::new().unwrap().into(), watch::channel(None));
        let times = (Spans::default(), Duration::from_secs(1));
        let dispatch = Dispatch::new(active, Board::default(), metrics, directory.path(), times);
        let fault = Outcome::RouteFault(Reason::MailboxFull);
        assert!(dispatch.fault_line(fault).is_some() && dispatch.fault_line(fault).is_none());
        dispatch.reset();
        assert!(dispatch.fault_line(fault).is_some());
    }

    #[test]
    fn recipients_that_were_refused_do_not_count() {
        let verdict = |outcome| Verdict::without_reply(outcome, "");
        let refused = vec![Refused { recipient: 1, verdict: verdict(Outcome::RejectRecipient) }];
        let partial = Attempt { verdict: verdict(Outcome::Delivered), refused, met: vec![], host: None };
        assert_eq!(accepted(&partial, 3), 2);
    }
}
