//! Smaller and slower for a while, after Microsoft has said that it was too much.
//!
//! How much smaller is [`mailroute_limits::restraint`]'s to say; here is how long nothing is sent at all.

use std::time::Duration;

use mailroute_limits::restraint;

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

/// The restraint in force: a smaller share of each limit, and silence before that.
#[derive(Clone, Debug)]
pub struct Restraint {
    /// The minute of the limit, which tests shorten.
    minute: Duration,
    share: restraint::Restraint,
    quiet_until: Duration,
}

impl Restraint {
    /// No restraint.
    pub fn new(minute: Duration) -> Self {
        Self { minute, share: restraint::Restraint::default(), quiet_until: Duration::ZERO }
    }

    /// Learns of a refusal.
    pub fn throttled(&mut self, what: Throttle, now: Duration) {
        self.share.throttled(now, self.minute);
        // A rate is counted by the minute; a connection is free again when another message has ended.
        let quiet = match what {
            Throttle::Rate => self.minute / 2,
            Throttle::Connections => self.minute / 20,
        };
        self.quiet_until = self.quiet_until.max(now + quiet);
    }

    /// The share of the limit that may be used at `now`, above 0 and at most 1.
    pub fn share(&self, now: Duration) -> f64 {
        self.share.share(now, self.minute)
    }

    /// Until when nothing is sent.
    pub const fn quiet_until(&self) -> Duration {
        self.quiet_until
    }

    /// What is left of a limit, at least one.
    pub fn of(&self, limit: u64, now: Duration) -> u64 {
        self.share.of(limit, now, self.minute)
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
        assert_eq!(restraint.of(30, now), 3);
        assert_eq!(restraint.of(1, now), 1, "something always goes");
    }
}
