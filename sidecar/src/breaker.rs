//! Fails fast while the route is known not to work, so that every message of a busy application is not one more refused
//! log-in at Microsoft.
//!
//! Pure: time is passed in. Only what concerns the route opens it, never one message's or recipient's fate.

use std::time::Duration;

use mailroute_route::condition::Reason;

use crate::clock::Instant;
use crate::delivery::outcome::{Outcome, Verdict};

/// Longest pause that repeated failures grow to, in units; pauses that begin longer stay as they are.
const LONGEST: u32 = 120;

/// The breaker of one route.
#[derive(Debug)]
pub struct Breaker {
    /// Length of one unit of pause.
    unit: Duration,
    open: Option<Open>,
    /// Failures for the same reason in a row.
    times: u32,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    verdict: Verdict,
}

impl Breaker {
    /// A closed breaker. `unit` is a second; tests take less.
    pub const fn new(unit: Duration) -> Self {
        Self { unit, open: None, times: 0 }
    }

    /// The verdict to give without trying, while there is one.
    pub fn blocks(&self, now: Instant) -> Option<&Verdict> {
        self.open.as_ref().filter(|open| now < open.until).map(|open| &open.verdict)
    }

    /// Learns from a verdict.
    pub fn learn(&mut self, verdict: &Verdict, now: Instant) {
        let Some(units) = pause(verdict.outcome) else {
            if verdict.outcome == Outcome::Delivered {
                self.close();
            }
            return;
        };
        let same = self.open.as_ref().is_some_and(|open| open.verdict.outcome == verdict.outcome);
        self.times = if same { self.times + 1 } else { 1 };
        let grown = match verdict.outcome {
            Outcome::RouteFault(_) => {
                units.saturating_mul(1 << (self.times - 1).min(16)).min(LONGEST.max(units))
            }
            _ => units,
        };
        self.open = Some(Open { until: now + self.unit * grown, verdict: verdict.clone() });
    }

    /// Learns that the way up to the log-in is open. What only a message can clear stays.
    pub fn learn_open(&mut self) {
        let of_mail = |open: &Open| open.verdict.outcome.reason().is_some_and(Reason::is_met_by_mail);
        if !self.open.as_ref().is_some_and(of_mail) {
            self.close();
        }
    }

    /// Forgets everything, as after a change of configuration.
    pub fn close(&mut self) {
        self.open = None;
        self.times = 0;
    }
}

/// How long to leave the upstream alone, in units. Nothing for what may be different with the next message.
const fn pause(outcome: Outcome) -> Option<u32> {
    match outcome {
        // Each further try prolongs what Exchange imposed for continuous errors.
        Outcome::RouteFault(Reason::SenderThrottled) => Some(600),
        Outcome::RouteFault(Reason::MailboxRestricted | Reason::TenantBlocked | Reason::MailboxFull) => {
            Some(60)
        }
        Outcome::RouteFault(_) => Some(10),
        // Messages are counted by the minute.
        Outcome::Quota(Reason::RateExceeded) => Some(20),
        Outcome::Quota(_) => Some(300),
        // A token failure carries its own back-off in the store; a broken connection is tried anew at once.
        Outcome::Transient(Some(
            Reason::NameNotResolved | Reason::ConnectFailed | Reason::UpstreamUnavailable,
        )) => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict::without_reply(outcome, "")
    }

    #[test]
    fn a_route_fault_is_answered_from_memory_for_some_seconds() {
        let (mut breaker, now) = (Breaker::new(SECOND), clock::now());
        breaker.learn(&verdict(Outcome::RouteFault(Reason::SmtpAuthDisabledTenant)), now);
        assert!(breaker.blocks(now + 9 * SECOND).is_some());
        assert!(breaker.blocks(now + 10 * SECOND).is_none());
    }

    #[test]
    fn the_pause_grows_while_the_same_fault_stays_and_has_a_bound() {
        let (mut breaker, mut now) = (Breaker::new(SECOND), clock::now());
        let fault = verdict(Outcome::RouteFault(Reason::LoginFailed));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            breaker.learn(&fault, now);
            let open = breaker.open.as_ref().unwrap().until;
            pauses.push((open - now).as_secs());
            now = open;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 120, 120]);
    }

    #[test]
    fn a_message_or_recipient_refused_leaves_it_closed() {
        let (mut breaker, now) = (Breaker::new(SECOND), clock::now());
        for outcome in [
            Outcome::RejectRecipient,
            Outcome::RejectMessage(Some(Reason::SendAsDenied)),
            Outcome::Transient(None),
            Outcome::Transient(Some(Reason::UpstreamProtocolError)),
        ] {
            breaker.learn(&verdict(outcome), now);
            assert!(breaker.blocks(now).is_none(), "{outcome:?}");
        }
    }

    #[test]
    fn a_delivery_closes_it() {
        let (mut breaker, now) = (Breaker::new(SECOND), clock::now());
        breaker.learn(&verdict(Outcome::Quota(Reason::RateExceeded)), now);
        breaker.learn(&verdict(Outcome::Delivered), now);
        assert!(breaker.blocks(now).is_none());
    }

    #[test]
    fn a_log_in_clears_what_stood_before_it_and_not_a_quota() {
        let (mut breaker, now) = (Breaker::new(SECOND), clock::now());
        breaker.learn(&verdict(Outcome::Quota(Reason::RateExceeded)), now);
        breaker.learn_open();
        assert!(breaker.blocks(now).is_some());
        breaker.learn(&verdict(Outcome::RouteFault(Reason::TenantNotFound)), now);
        breaker.learn_open();
        assert!(breaker.blocks(now).is_none());
    }
}
