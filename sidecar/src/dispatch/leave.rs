//! Leave to send one message: from the breaker, which knows whether the way works, and from the budget, which knows what
//! the mailbox may still send.
//!
//! Owns the order in which new and waiting messages come to the mailbox's limits. Refuses to know what is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;

use super::{Active, Dispatch};
use crate::budget::gate::{Denied, SendPermit as Ticket};
use crate::budget::{Amount, Why, condition_reason};
use crate::clock::{self, Instant};
use crate::delivery::outcome::{Met, Outcome, Verdict};

/// How long a message that has just come waits for a lease before it is kept.
const MOMENT: Duration = Duration::from_secs(2);

/// Leave to make one attempt, now.
pub struct Leave {
    pub(super) active: Arc<Active>,
    pub(super) ticket: Ticket,
}

impl Leave {
    /// The route to try.
    pub fn route(&self) -> &RouteFile {
        &self.active.route
    }

    /// Gives it back: nothing is sent.
    pub fn unused(self) {
        self.ticket.settle(Amount::NOTHING, false);
    }
}

/// No leave for now.
#[derive(Clone, Debug)]
pub struct Held {
    /// Why, as if it had been tried.
    pub verdict: Verdict,
    /// When to ask again. It may be worth it sooner when [`Dispatch::passage`] changes.
    pub until: Instant,
    /// What of the mailbox's limits it waits for, when it is these.
    pub limits: Option<Why>,
}

impl Held {
    /// Whether the operator was asked for a lease, and may answer at any time before `until`.
    pub fn may_end_sooner(&self) -> bool {
        self.limits == Some(Why::Lease)
    }
}

impl Dispatch {
    /// Leave to send one message of the route `active` to so many recipients.
    ///
    /// # Errors
    /// While the route is known not to work, or the mailbox may not send more.
    pub async fn leave(&self, active: &Arc<Active>, recipients: u64) -> Result<Leave, Held> {
        self.known_fault()?;
        let ticket = self.budget.take(recipients).await.map_err(|denied| self.beyond_limits(denied))?;
        Ok(Leave { active: Arc::clone(active), ticket })
    }

    /// The same for a message that has just come: it does not overtake what has been waiting for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Dispatch::leave`], and while the queue waits for the limits. A lease that has to be asked for first is waited for
    /// a moment: usually it is there at once.
    pub async fn leave_for_new(&self, active: &Arc<Active>, recipients: u64) -> Result<Leave, Held> {
        if self.queue_waits.load(Ordering::Relaxed) {
            let text = "messages that came earlier wait for the limits of the mailbox";
            let verdict = Verdict::without_reply(Outcome::Quota(Reason::RateExceeded), text);
            return Err(Held { verdict, until: clock::now(), limits: Some(Why::Pace) });
        }
        self.known_fault()?;
        let ticket = match self.budget.take(recipients).await {
            Err(denied) if denied.why == Why::Lease => {
                self.budget.take_until(recipients, clock::now() + MOMENT).await
            }
            outcome => outcome,
        };
        let ticket = ticket.map_err(|denied| self.beyond_limits(denied))?;
        Ok(Leave { active: Arc::clone(active), ticket })
    }

    /// The same for somebody who can wait until `deadline` for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Dispatch::leave`], at `deadline` at the latest.
    pub async fn leave_until(
        &self,
        active: &Arc<Active>,
        recipients: u64,
        deadline: Instant,
    ) -> Result<Leave, Held> {
        self.known_fault()?;
        let ticket = self.budget.take_until(recipients, deadline).await;
        let ticket = ticket.map_err(|denied| self.beyond_limits(denied))?;
        let leave = Leave { active: Arc::clone(active), ticket };
        // It may have turned out meanwhile.
        match self.known_fault() {
            Ok(()) => Ok(leave),
            Err(held) => {
                leave.unused();
                Err(held)
            }
        }
    }

    /// Lets the next message try whether a known fault is over, as a person asks.
    pub fn hurry(&self) {
        self.breaker().hurry(clock::now());
    }

    /// What is known to keep every message from being tried now.
    ///
    /// # Errors
    /// While there is something.
    pub(crate) fn known_fault(&self) -> Result<(), Held> {
        let now = clock::now();
        let breaker = self.breaker();
        match (breaker.blocks(now), breaker.until()) {
            (Some(verdict), Some(until)) => Err(Held { verdict: verdict.clone(), until, limits: None }),
            _ => Ok(()),
        }
    }

    /// What is told when the budget says no. A day that is used up is trouble that people should see, though Microsoft
    /// was not asked; the smoothing of a burst is none.
    fn beyond_limits(&self, denied: Denied) -> Held {
        let text = format!("limits of the mailbox: {}", denied.why.sentence());
        if denied.why == Why::Day {
            self.board.record(&[Met::new(Reason::DailyQuotaExceeded, text.clone())]);
        }
        let reason = condition_reason(denied.why).unwrap_or(Reason::RateExceeded);
        let verdict = Verdict::without_reply(Outcome::Quota(reason), text);
        Held { verdict, until: denied.until, limits: Some(denied.why) }
    }

    /// Says whether the queue waits for the mailbox's limits.
    pub fn queue_waits(&self, waits: bool) {
        self.queue_waits.store(waits, Ordering::Relaxed);
    }
}
