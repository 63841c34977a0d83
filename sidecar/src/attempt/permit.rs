//! Permission to send one message: from the circuit breaker, which knows whether the route works, and from the budget,
//! which knows what the mailbox may still send.
//!
//! Owns the order in which new and waiting messages come to the mailbox's limits. Refuses to know what is sent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroute_route::condition::Reason;

use super::Attempts;
use crate::budget::limiter::{self, SendPermit};
use crate::budget::{WaitReason, condition_reason};
use crate::clock::{self, Instant};
use crate::outcome::{DeliveryOutcome, Observation, Verdict};

/// How long a message that has just come waits for a lease before it is queued.
const LEASE_WAIT: Duration = Duration::from_secs(2);

/// No permit for now.
#[derive(Clone, Debug)]
pub struct NoPermit {
    /// When to ask again. It may be worth it sooner when [`Attempts::route_state`] changes.
    pub until: Instant,
    /// Why.
    pub cause: Obstruction,
}

/// Why there is no permit.
#[derive(Clone, Debug)]
pub enum Obstruction {
    /// The route is known not to work; what the attempt that found out met.
    Route(Verdict),
    /// A limit of the mailbox.
    Limit(WaitReason),
    /// Messages that came earlier wait for the limits of the mailbox.
    EarlierMessages,
}

impl NoPermit {
    /// Whether it is a limit of the mailbox, rather than a fault of the route.
    pub const fn is_limit(&self) -> bool {
        matches!(self.cause, Obstruction::Limit(_) | Obstruction::EarlierMessages)
    }

    /// Whether the operator was asked for a lease, and may answer at any time before `until`.
    pub const fn may_end_sooner(&self) -> bool {
        matches!(self.cause, Obstruction::Limit(WaitReason::Lease))
    }

    /// The reason to show to people, when there is something to show: the smoothing of a burst is no trouble.
    pub fn reason(&self) -> Option<Reason> {
        match &self.cause {
            Obstruction::Route(verdict) => verdict.outcome.reason(),
            Obstruction::Limit(why) => condition_reason(*why),
            Obstruction::EarlierMessages => None,
        }
    }

    /// The verdict on a message, as if it had been tried.
    pub fn verdict(&self) -> Verdict {
        match &self.cause {
            Obstruction::Route(verdict) => verdict.clone(),
            Obstruction::Limit(why) => {
                let reason = condition_reason(*why).unwrap_or(Reason::RateExceeded);
                Verdict::without_reply(DeliveryOutcome::Quota(reason), limit_text(*why))
            }
            Obstruction::EarlierMessages => {
                let text = "messages that came earlier wait for the limits of the mailbox";
                Verdict::without_reply(DeliveryOutcome::Quota(Reason::RateExceeded), text)
            }
        }
    }
}

impl Attempts {
    /// Permission to send one message to so many recipients.
    ///
    /// # Errors
    /// While the route is known not to work, or the mailbox may not send more.
    pub async fn permit(&self, recipients: u64) -> Result<SendPermit, NoPermit> {
        self.known_fault().map_or(Ok(()), Err)?;
        self.budget.take(recipients).await.map_err(|denied| self.beyond_limits(denied))
    }

    /// The same for a message that has just come: it does not overtake what has been waiting for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Attempts::permit`], and while the queue waits for the limits. A lease that has to be requested first is awaited
    /// for a moment: usually it is there at once.
    pub async fn permit_for_new(&self, recipients: u64) -> Result<SendPermit, NoPermit> {
        if self.queue_waits.load(Ordering::Relaxed) {
            return Err(NoPermit { until: clock::now(), cause: Obstruction::EarlierMessages });
        }
        self.known_fault().map_or(Ok(()), Err)?;
        let permit = match self.budget.take(recipients).await {
            Err(denied) if denied.why == WaitReason::Lease => {
                self.budget.take_until(recipients, clock::now() + LEASE_WAIT).await
            }
            outcome => outcome,
        };
        permit.map_err(|denied| self.beyond_limits(denied))
    }

    /// The same for a message that can wait until `deadline` for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Attempts::permit`], at `deadline` at the latest.
    pub async fn permit_until(&self, recipients: u64, deadline: Instant) -> Result<SendPermit, NoPermit> {
        self.known_fault().map_or(Ok(()), Err)?;
        let permit = self.budget.take_until(recipients, deadline).await;
        let permit = permit.map_err(|denied| self.beyond_limits(denied))?;
        // It may have turned out meanwhile.
        match self.known_fault() {
            None => Ok(permit),
            Some(fault) => {
                permit.unused();
                Err(fault)
            }
        }
    }

    /// Lets the next message try whether a known fault is over, as a person asks.
    pub fn end_pause(&self) {
        self.breaker().end_pause(clock::now());
    }

    /// The fault of the route that keeps every message from being tried now, if one is known.
    pub fn known_fault(&self) -> Option<NoPermit> {
        let breaker = self.breaker();
        let verdict = breaker.blocks(clock::now())?.clone();
        Some(NoPermit { until: breaker.until()?, cause: Obstruction::Route(verdict) })
    }

    /// What keeps a permit that is out from being used, because it was met since.
    pub(super) fn obstruction(&self) -> Option<NoPermit> {
        self.known_fault().or_else(|| self.budget.pause().map(|denied| self.beyond_limits(denied)))
    }

    /// A day that is used up is trouble that people should see, though Microsoft was not asked.
    fn beyond_limits(&self, denied: limiter::Denied) -> NoPermit {
        if denied.why == WaitReason::Day {
            self.health.record(&[Observation::new(Reason::DailyQuotaExceeded, limit_text(denied.why))]);
        }
        NoPermit { until: denied.until, cause: Obstruction::Limit(denied.why) }
    }

    /// Says whether the queue waits for the mailbox's limits.
    pub fn queue_waits(&self, waits: bool) {
        self.queue_waits.store(waits, Ordering::Relaxed);
    }
}

fn limit_text(why: WaitReason) -> String {
    format!("limits of the mailbox: {}", why.sentence())
}
