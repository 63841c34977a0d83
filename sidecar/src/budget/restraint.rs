//! Smaller and slower for a while, after Microsoft has said that it was too much.
//!
//! Our own count kept the limit, so somebody else sends as the mailbox, or the limit is lower than we were told. Either
//! way the share of the limit that is used is halved, and grows back by an eighth with every minute that stays quiet.

use std::time::Duration;

/// What Microsoft said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Too many messages a minute: `421 4.4.2 Message submission rate …`.
    Rate,
    /// Too many connections at a time: `432 4.3.2 Concurrent connections limit exceeded`.
    Connections,
}

impl Throttle {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Connections => "connections",
        }
    }
}

/// The least share of the limit that is ever used.
const LEAST: f64 = 0.125;

/// How much of the limit comes back in one minute.
const GROWTH: f64 = 0.125;

/// The restraint in force.
#[derive(Clone, Debug)]
pub struct Restraint {
    /// The minute of the limit, which tests shorten.
    minute: Duration,
    last: Option<Last>,
}

#[derive(Clone, Debug)]
struct Last {
    at: Duration,
    share: f64,
    quiet_until: Duration,
}

impl Restraint {
    /// No restraint.
    pub const fn new(minute: Duration) -> Self {
        Self { minute, last: None }
    }

    /// Learns of a refusal. Several for one excess, as by messages that were already under way, count once.
    pub fn throttled(&mut self, what: Throttle, now: Duration) {
        let share = self.share(now);
        let halved = match &self.last {
            Some(last) if now < last.at + self.minute / 12 => last.share,
            _ => (share / 2.0).max(LEAST),
        };
        // A rate is counted by the minute; a connection is free again when another message has ended.
        let quiet = match what {
            Throttle::Rate => self.minute / 2,
            Throttle::Connections => self.minute / 20,
        };
        let quiet_until = (now + quiet).max(self.quiet_until());
        self.last = Some(Last { at: now, share: halved, quiet_until });
    }

    /// The share of the limit that may be used at `now`, above 0 and at most 1.
    pub fn share(&self, now: Duration) -> f64 {
        let Some(last) = &self.last else { return 1.0 };
        let minutes = now.saturating_sub(last.at).as_secs_f64() / self.minute.as_secs_f64();
        (last.share + GROWTH * minutes).min(1.0)
    }

    /// Until when nothing is sent.
    pub fn quiet_until(&self) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| last.quiet_until)
    }

    /// What is left of a limit, at least one.
    pub fn of(&self, limit: u64, now: Duration) -> u64 {
        let share = self.share(now);
        if share >= 1.0 {
            return limit;
        }
        // The product is at most the limit, which came from a u32.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let left = (limit as f64 * share) as u64;
        left.max(1).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_refusal_halves_the_limit_and_it_grows_back() {
        let mut restraint = Restraint::new(MINUTE);
        assert_eq!(restraint.of(30, MINUTE), 30);
        restraint.throttled(Throttle::Rate, MINUTE);
        assert_eq!(restraint.of(30, MINUTE), 15);
        assert_eq!(restraint.of(30, 2 * MINUTE), 18);
        assert_eq!(restraint.of(30, 5 * MINUTE), 30);
    }

    #[test]
    fn a_rate_is_followed_by_half_a_minute_of_silence_and_a_connection_by_seconds() {
        let mut restraint = Restraint::new(MINUTE);
        restraint.throttled(Throttle::Connections, MINUTE);
        assert_eq!(restraint.quiet_until(), MINUTE + Duration::from_secs(3));
        restraint.throttled(Throttle::Rate, MINUTE);
        assert_eq!(restraint.quiet_until(), MINUTE + Duration::from_secs(30));
    }

    #[test]
    fn refusals_of_one_excess_count_once_and_later_ones_go_on_down_to_a_bound() {
        let (mut restraint, mut now) = (Restraint::new(MINUTE), MINUTE);
        for _ in 0..3 {
            restraint.throttled(Throttle::Rate, now);
            now += Duration::from_secs(1);
        }
        assert_eq!(restraint.of(30, now), 15);
        for _ in 0..10 {
            now += Duration::from_secs(10);
            restraint.throttled(Throttle::Rate, now);
        }
        assert!(restraint.share(now) >= LEAST);
        assert_eq!(restraint.of(30, now), 3);
        assert_eq!(restraint.of(1, now), 1, "something always goes");
    }
}
