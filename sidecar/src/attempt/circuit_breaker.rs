//! Fails fast while the upstream is known to refuse, so that every message of a busy application is not one more refused
//! log-in at Microsoft, and so that a few bad messages do not cost the mailbox all of its mail.
//!
//! * For the whole route, here: open for a while after trouble that no message is to blame for, longer each time. What
//!   opens it, and for how long, is written in [`effect`].
//! * For single messages, in [`super::rejection_cache`]: what was refused for good is not asked about again for a while, and when there
//!   is too much of it only what is known to be good goes on. Exchange counts such errors, and bars a mailbox with too
//!   many of them for hours.
//!
//! Pure: time is passed in. [`super::author`] is the one file that reads.

use std::time::Duration;

use mailroute_route::condition::Reason;

use super::rejection_cache::{MessageParties, RejectionCache};
use crate::clock::Instant;
use crate::outcome::effect::{Growth, Pause, effect};
use crate::outcome::{AttemptResult, DeliveryOutcome, Observation, Verdict};

/// Longest `Retry-After` that is obeyed: an absurd one must not silence a route until a restart.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The breaker of one route.
#[derive(Debug)]
pub struct CircuitBreaker {
    /// Length of one unit of pause.
    unit: Duration,
    open: Option<Open>,
    /// Failures for the same reason in a row.
    times: u32,
    /// When the first of them was met.
    since: Instant,
    offences: RejectionCache,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    /// Until when the upstream asked to be left alone.
    asked: Option<Instant>,
    verdict: Verdict,
}

impl CircuitBreaker {
    /// A closed breaker. `unit` is a second; tests take less.
    pub fn new(unit: Duration, now: Instant) -> Self {
        Self { unit, open: None, times: 0, since: now, offences: RejectionCache::new(unit, now) }
    }

    /// The verdict to give without trying, while there is one.
    pub fn blocks(&self, now: Instant) -> Option<&Verdict> {
        self.open.as_ref().filter(|open| now < open.until).map(|open| &open.verdict)
    }

    /// When it lets somebody through again, if it is open.
    pub fn until(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.until)
    }

    /// Ends the pause now, as a person asks: the next message is tried. Should it meet the same, the pauses grow on.
    pub fn end_pause(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// Learns from a verdict. The upstream is left alone as long as it asks, also where it took the message.
    pub fn learn(&mut self, verdict: &Verdict, now: Instant) {
        let asked = verdict.retry_after.map(|asked| self.unit * whole_seconds(asked));
        let pause = effect(verdict.outcome).pause;
        if verdict.outcome == DeliveryOutcome::Delivered {
            self.let_through();
        }
        if pause.is_none() && asked.is_none() {
            return;
        }
        // What is said of one message is not to be said of the others.
        let is_of_all = pause.is_some() || matches!(verdict.outcome, DeliveryOutcome::Quota(_));
        let verdict = if is_of_all { verdict.clone() } else { throttled(verdict) };
        let same = self.open.as_ref().is_some_and(|open| open.verdict.outcome == verdict.outcome);
        (self.times, self.since) = if same { (self.times.saturating_add(1), self.since) } else { (1, now) };
        let lasts = now.saturating_duration_since(self.since);
        let own = pause.map_or(Duration::ZERO, |pause| grown(pause, self.unit, self.times, lasts));
        let until = now + own.max(asked.unwrap_or_default());
        self.open = Some(Open { until, asked: asked.map(|asked| now + asked), verdict });
    }

    /// Learns that conditions hold, as from a probe. What those conditions say nothing of stays: no log-in clears what
    /// only a message can. What the upstream asked for is kept to all the same.
    pub fn learn_observed(&mut self, observations: &[Observation], now: Instant) {
        let Some(open) = &self.open else { return };
        let condition = effect(open.verdict.outcome).reason.map(Reason::condition);
        let last = observations.iter().rev().find(|it| Some(it.condition()) == condition);
        if last.is_some_and(|it| it.reason.holds()) && open.asked.is_none_or(|asked| asked <= now) {
            self.let_through();
        }
    }

    /// Whether something is known about single messages, so that it matters who their author is.
    pub fn watches_authors(&self) -> bool {
        self.offences.watches_authors()
    }

    /// What will come of trying this message, as far as that is known already.
    pub fn foresees(&mut self, message: &MessageParties<'_>, now: Instant) -> Option<AttemptResult> {
        self.offences.foresees(message, now)
    }

    /// Learns what became of this message.
    pub fn learn_message(&mut self, message: &MessageParties<'_>, attempt: &AttemptResult, now: Instant) {
        self.offences.learn(message, attempt, now);
    }

    /// Forgets everything, as after a change of configuration.
    pub fn close(&mut self) {
        self.let_through();
        self.offences.forget();
    }

    fn let_through(&mut self) {
        self.open = None;
        self.times = 0;
    }
}

/// What the messages meet that come after one which was answered with a `Retry-After`.
fn throttled(answered: &Verdict) -> Verdict {
    let text = format!("asked to wait after another message: {}", answered.text);
    Verdict::without_reply(DeliveryOutcome::Quota(Reason::GraphThrottled), text)
}

/// Seconds of a `Retry-After`, no more than are obeyed.
fn whole_seconds(asked: Duration) -> u32 {
    u32::try_from(asked.min(RETRY_AFTER_MAX).as_secs()).unwrap_or(u32::MAX)
}

/// The pause after so many times in a row, which were met over this time.
fn grown(pause: Pause, unit: Duration, times: u32, lasts: Duration) -> Duration {
    let grown = match pause.growth {
        Growth::Doubling => unit * pause.first.saturating_mul(1 << times.saturating_sub(1).min(16)),
        Growth::Quarter => lasts / 4,
    };
    grown.clamp(unit * pause.first, unit * pause.longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn verdict(outcome: DeliveryOutcome) -> Verdict {
        Verdict::without_reply(outcome, "")
    }

    #[test]
    fn a_route_fault_is_answered_from_memory_for_some_seconds() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        breaker.learn(&verdict(DeliveryOutcome::RouteFault(Reason::SmtpAuthDisabledTenant)), now);
        assert!(breaker.blocks(now + 9 * SECOND).is_some());
        assert!(breaker.blocks(now + 10 * SECOND).is_none());
    }

    #[test]
    fn the_pause_grows_while_the_same_fault_stays_and_has_a_bound() {
        let mut now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let fault = verdict(DeliveryOutcome::RouteFault(Reason::LoginFailed));
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
    fn an_upstream_that_is_away_is_asked_within_a_quarter_of_the_time_after_it_is_back() {
        let (start, mut asked) = (clock::now(), 0);
        let (mut now, mut breaker) = (start, CircuitBreaker::new(SECOND, start));
        while now < start + 600 * SECOND {
            // Several messages on their way meet the same.
            for _ in 0..3 {
                breaker.learn(&verdict(DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable))), now);
            }
            let (until, quarter) = (breaker.until().unwrap(), (now - start) / 4);
            assert_eq!(until - now, quarter.clamp(SECOND, 30 * SECOND));
            (now, asked) = (until, asked + 1);
        }
        assert!(asked < 40, "{asked} in ten minutes");
    }

    #[test]
    fn the_upstream_is_left_alone_as_long_as_it_asks_whatever_it_did_with_the_message() {
        let now = clock::now();
        for (outcome, reason) in [
            (DeliveryOutcome::Delivered, Reason::GraphThrottled),
            (DeliveryOutcome::Quota(Reason::ConnectionsExceeded), Reason::ConnectionsExceeded),
            (DeliveryOutcome::Quota(Reason::GraphThrottled), Reason::GraphThrottled),
        ] {
            let mut breaker = CircuitBreaker::new(SECOND, now);
            breaker.learn(&Verdict { retry_after: Some(30 * SECOND), ..verdict(outcome) }, now);
            let blocks = breaker.blocks(now + 29 * SECOND).expect("half a minute was asked for");
            assert_eq!(blocks.outcome, DeliveryOutcome::Quota(reason));
            assert!(breaker.blocks(now + 30 * SECOND).is_none());
        }
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let absurd = Verdict { retry_after: Some(Duration::MAX), ..verdict(DeliveryOutcome::Delivered) };
        breaker.learn(&absurd, now);
        assert_eq!(breaker.until(), Some(now + RETRY_AFTER_MAX));
    }

    #[test]
    fn a_person_ends_a_pause_and_not_its_growth() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let quota = verdict(DeliveryOutcome::Quota(Reason::DailyQuotaExceeded));
        breaker.learn(&quota, now);
        assert!(breaker.blocks(now).is_some());
        breaker.end_pause(now);
        assert!(breaker.blocks(now).is_none());
        breaker.learn(&quota, now);
        assert_eq!(breaker.until(), Some(now + 240 * SECOND));
    }

    #[test]
    fn a_message_or_recipient_refused_leaves_it_closed() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        for outcome in [
            DeliveryOutcome::RejectRecipient,
            DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)),
            DeliveryOutcome::Transient(None),
            DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError)),
        ] {
            breaker.learn(&verdict(outcome), now);
            assert!(breaker.blocks(now).is_none(), "{outcome:?}");
        }
    }

    #[test]
    fn a_delivery_closes_it() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        breaker.learn(&verdict(DeliveryOutcome::Quota(Reason::DailyQuotaExceeded)), now);
        assert!(breaker.blocks(now).is_some());
        breaker.learn(&verdict(DeliveryOutcome::Delivered), now);
        assert!(breaker.blocks(now).is_none());
    }

    #[test]
    fn a_rate_is_left_to_the_budget() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        breaker.learn(&verdict(DeliveryOutcome::Quota(Reason::RateExceeded)), now);
        assert!(breaker.blocks(now).is_none());
    }

    #[test]
    fn what_exchange_throttles_is_asked_about_ever_more_seldom() {
        let mut now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let throttled = verdict(DeliveryOutcome::RouteFault(Reason::SenderThrottled));
        let minutes: Vec<_> = (0..6)
            .map(|_| {
                breaker.learn(&throttled, now);
                let until = breaker.until().unwrap();
                let pause = until - now;
                now = until;
                pause.as_secs() / 60
            })
            .collect();
        assert_eq!(minutes, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_mailbox_that_is_full_is_asked_a_handful_of_times_in_an_hour() {
        let start = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, start);
        let (mut now, mut asked) = (start, 0);
        while now < start + 3600 * SECOND {
            if breaker.blocks(now).is_none() {
                asked += 1;
                breaker.learn(&verdict(DeliveryOutcome::RouteFault(Reason::MailboxFull)), now);
            }
            now += SECOND;
        }
        assert!((3..10).contains(&asked), "{asked}");
    }

    #[test]
    fn a_probe_clears_what_it_has_seen_and_nothing_behind_it() {
        let now = clock::now();
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let observations = [Reason::TokenAcquired, Reason::Connected, Reason::LoggedIn]
            .map(|reason| Observation::new(reason, ""));
        breaker.learn(&verdict(DeliveryOutcome::Quota(Reason::DailyQuotaExceeded)), now);
        breaker.learn_observed(&observations, now);
        assert!(breaker.blocks(now).is_some());
        breaker.learn(&verdict(DeliveryOutcome::RouteFault(Reason::TenantNotFound)), now);
        breaker.learn_observed(&observations, now);
        assert!(breaker.blocks(now).is_none());
        // A probe on port 25 ends before the connector is matched.
        breaker.learn(&verdict(DeliveryOutcome::RouteFault(Reason::ConnectorMismatch)), now);
        breaker.learn_observed(&observations[..2], now);
        assert!(breaker.blocks(now).is_some());
    }

    #[test]
    fn what_the_upstream_asked_for_is_kept_to_by_probes_and_said_of_no_other_message() {
        let now = clock::now();
        for outcome in [
            DeliveryOutcome::RejectMessage(None),
            DeliveryOutcome::RejectMessage(Some(Reason::GraphCannotCarry)),
            DeliveryOutcome::Transient(None),
        ] {
            let mut breaker = CircuitBreaker::new(SECOND, now);
            breaker.learn(&Verdict { retry_after: Some(600 * SECOND), ..verdict(outcome) }, now);
            let met = breaker.blocks(now).unwrap();
            assert_eq!((met.outcome, &met.reply), (DeliveryOutcome::Quota(Reason::GraphThrottled), &None));
        }
        let mut breaker = CircuitBreaker::new(SECOND, now);
        let busy = verdict(DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable)));
        breaker.learn(&Verdict { retry_after: Some(600 * SECOND), ..busy }, now);
        breaker.learn_observed(&[Observation::new(Reason::Connected, "")], now);
        assert!(breaker.blocks(now + 599 * SECOND).is_some() && breaker.blocks(now + 600 * SECOND).is_none());
    }
}
