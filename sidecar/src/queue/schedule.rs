//! When a kept message is tried next.
//!
//! Pure: outcome, time and chance come in, a time goes out. A message's own trouble makes its pauses grow; trouble of
//! the whole route ([`NextAttempt::Hold`]) is not counted against a message, since it says nothing about it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What the last attempt says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAttempt {
    /// Part of the recipients got through, and the rest was only too many at once: go on.
    GoOn,
    /// The same may work later.
    Again,
    /// The same may work much later: the upstream tests whether the sender is patient (grey-listing, 4.7.5xx).
    Patiently,
    /// The route does not work now, whatever the message: wait until it does.
    Hold,
}

/// Lengths of pauses.
#[derive(Clone, Copy, Debug)]
pub struct RetrySchedule {
    /// First pause of a message; doubles with each attempt that changed nothing.
    pub first: Duration,
    /// First pause where patience is asked for.
    pub patient: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// How soon a held message may be tried, if nothing else tells that the route works again.
    pub hold: Duration,
}

/// Longest time for which a message that another pod is trying is left to it.
pub const MAX_RESERVATION: Duration = Duration::from_secs(300);

/// A pause is between these parts of its length.
const LEAST_SPREAD: f64 = 0.75;
const MOST_SPREAD: f64 = 1.25;

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(30),
            // "Minutes, then an hour" is what Microsoft's servers expect of those they do not know yet.
            patient: Duration::from_secs(300),
            longest: Duration::from_secs(3600),
            // The breaker says how long the upstream is left alone.
            hold: Duration::from_secs(1),
        }
    }
}

impl RetrySchedule {
    /// When to try next after `attempts` attempts that counted. `chance` in `0.0..1.0` spreads messages that failed
    /// together. Never later than `expires`: the last attempt is made then.
    pub fn next(
        &self,
        after: NextAttempt,
        attempts: u32,
        now: Timestamp,
        expires: Timestamp,
        chance: f64,
    ) -> Timestamp {
        let spread = LEAST_SPREAD + (MOST_SPREAD - LEAST_SPREAD) * chance.clamp(0.0, 1.0);
        later(now, self.pause(after, attempts).mul_f64(spread)).min(expires.max(now))
    }

    fn pause(&self, after: NextAttempt, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let pause = match after {
            NextAttempt::GoOn => Duration::ZERO,
            NextAttempt::Hold => self.hold,
            NextAttempt::Again => self.first.saturating_mul(1 << doublings),
            NextAttempt::Patiently => self.patient.saturating_mul(1 << doublings),
        };
        pause.min(self.longest)
    }

    /// The longest pause after so many attempts, whatever came of the last one.
    fn most(&self, attempts: u32) -> Duration {
        let all = [NextAttempt::GoOn, NextAttempt::Hold, NextAttempt::Again, NextAttempt::Patiently];
        let longest = all.into_iter().map(|after| self.pause(after, attempts)).max();
        longest.unwrap_or(self.longest).mul_f64(MOST_SPREAD)
    }
}

/// Due times are counted by a clock that does not step: when the system's clock is set back by hours, or was wrong when
/// the program started, no message may wait for it to catch up, nor be given up early. On disk and before people's eyes
/// times are the system's. This is how far the former is ahead of the latter, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    now: Timestamp,
    by: SignedDuration,
}

impl Ahead {
    /// By both clocks, read at the same moment.
    pub fn new(steady: Timestamp, system: Timestamp) -> Self {
        Self { now: steady, by: steady.duration_since(system) }
    }

    /// A time of the system's clock by the steady one.
    pub fn steady(&self, at: Timestamp) -> Timestamp {
        at.checked_add(self.by).unwrap_or(at)
    }

    /// A time of the steady clock by the system's.
    pub fn system(&self, at: Timestamp) -> Timestamp {
        at.checked_sub(self.by).unwrap_or(at)
    }

    /// By the steady clock, since when a message is tried that has been tried since `since` by the system's. Never in the
    /// future, as it would be when the system's clock was set back in between.
    pub fn since(&self, since: Timestamp) -> Timestamp {
        self.steady(since).min(self.now)
    }

    /// By the steady clock, when a message is due that is due at `next` by the system's, after so many attempts. No later
    /// than it could be if the system's clock was not set back in between.
    pub fn due(&self, next: Timestamp, pace: &RetrySchedule, attempts: u32) -> Timestamp {
        self.steady(next).min(later(self.now, pace.most(attempts)))
    }

    /// By the steady clock, until when a message is left to another pod that is left to it until `until` by the system's.
    pub fn reserved(&self, until: Option<Timestamp>) -> Option<Timestamp> {
        Some(self.steady(reservation(until, self.system(self.now))?))
    }
}

/// Until when a message is left to another pod, which asks for it until `until`: no longer than [`MAX_RESERVATION`], whatever that pod
/// or its clock says, and not at all when that time has passed.
pub fn reservation(until: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    until.map(|until| until.min(later(now, MAX_RESERVATION))).filter(|until| *until > now)
}

/// `at` and so much more; the end of time where there is no more.
pub fn later(at: Timestamp, pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    at.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// How long from `now` until `at`; nothing when it has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pause(after: NextAttempt, attempts: u32, chance: f64) -> u64 {
        let expires = later(NOW, Duration::from_secs(48 * 3600));
        until(RetrySchedule::default().next(after, attempts, NOW, expires, chance), NOW).as_secs()
    }

    #[test]
    fn pauses_double_from_half_a_minute_to_an_hour() {
        let pauses = [1, 2, 3, 4, 8, 9, 1000].map(|attempts| pause(NextAttempt::Again, attempts, 0.5));
        assert_eq!(pauses, [30, 60, 120, 240, 3600, 3600, 3600]);
    }

    #[test]
    fn patience_begins_with_minutes() {
        assert_eq!([1, 2, 5].map(|attempts| pause(NextAttempt::Patiently, attempts, 0.5)), [300, 600, 3600]);
    }

    #[test]
    fn a_held_message_is_not_put_off() {
        assert_eq!([0, 1, 50].map(|attempts| pause(NextAttempt::Hold, attempts, 0.5)), [1, 1, 1]);
    }

    #[test]
    fn what_was_only_too_many_goes_on_at_once() {
        assert_eq!(pause(NextAttempt::GoOn, 7, 0.99), 0);
    }

    #[test]
    fn messages_that_failed_together_come_back_apart() {
        assert_eq!([0.0, 0.999_999].map(|chance| pause(NextAttempt::Again, 1, chance)), [22, 37]);
    }

    /// The clocks, when the system's was set back by `hours` since the program started.
    fn set_back(hours: i64) -> Ahead {
        Ahead::new(NOW, NOW - SignedDuration::from_hours(hours))
    }

    #[test]
    fn what_a_clock_set_back_promises_for_later_is_due_after_the_longest_pause_at_most() {
        let pace = RetrySchedule::default();
        let written = later(NOW, Duration::from_secs(5 * 3600));
        let clocks = Ahead::new(NOW, NOW);
        let wait = |attempts| until(clocks.due(written, &pace, attempts), NOW).as_secs();
        assert_eq!([1, 2, 20].map(wait), [375, 750, 4500]);
        assert_eq!(clocks.since(written), NOW, "its age counts from now on, not from the future");
        let soon = later(NOW, Duration::from_secs(20));
        assert_eq!(clocks.due(soon, &pace, 1), soon);
    }

    #[test]
    fn a_message_is_left_to_another_pod_for_five_minutes_at_most() {
        let later = |seconds| later(NOW, Duration::from_secs(seconds));
        let reserved = |until| reservation(Some(until), NOW);
        assert_eq!(reserved(later(60)), Some(later(60)));
        assert_eq!(reserved(later(3600)), Some(later(300)), "of a pod whose clock is an hour ahead");
        assert_eq!([reserved(NOW), reserved(Timestamp::MIN), reservation(None, NOW)], [None; 3]);
        assert_eq!(reserved(Timestamp::MAX), Some(later(300)));
        for hours in [-30, 0, 5] {
            let clocks = set_back(hours);
            let until = clocks.system(later(60));
            assert_eq!(clocks.reserved(Some(until)), Some(later(60)), "{hours}");
            assert_eq!(clocks.reserved(Some(Timestamp::MAX)), Some(later(300)), "{hours}");
        }
    }

    #[test]
    fn times_by_the_systems_clock_are_the_same_moments_by_the_other() {
        for hours in [-30, 0, 5] {
            let clocks = set_back(hours);
            let system = NOW - SignedDuration::from_hours(hours);
            let (next, since) =
                (later(system, Duration::from_secs(30)), system - SignedDuration::from_mins(7));
            assert_eq!(until(clocks.due(next, &RetrySchedule::default(), 1), NOW).as_secs(), 30);
            assert_eq!(until(NOW, clocks.since(since)).as_secs(), 7 * 60);
            assert_eq!(clocks.system(clocks.steady(next)), next);
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_its_time() {
        let expires = later(NOW, Duration::from_secs(20));
        assert_eq!(RetrySchedule::default().next(NextAttempt::Again, 1, NOW, expires, 0.5), expires);
        let over = later(NOW, Duration::from_secs(100));
        assert_eq!(
            RetrySchedule::default().next(NextAttempt::Again, 1, over, expires, 0.5),
            over,
            "never in the past"
        );
    }
}
