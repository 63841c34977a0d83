//! Smaller limits for a while after Microsoft throttled the mailbox.
//!
//! What was counted was within the limit, so somebody else sends as the mailbox, or the limit is lower than the route says. Either
//! way the share of the limit in use is halved, and an eighth comes back with every quiet minute.

use std::time::Duration;

/// The smallest share that is ever used.
const LEAST: f64 = 0.125;

/// What comes back in one minute.
const GROWTH: f64 = 0.125;

/// When Microsoft throttled last, and the share after that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastThrottle {
    /// When.
    pub at: Duration,
    /// The share from then on, before it grows.
    pub share: f64,
}

/// The share of one mailbox's limits that is in use. `minute` is the limit's window, which tests shorten.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throttle {
    last: Option<LastThrottle>,
}

impl Throttle {
    /// As it was stored.
    pub const fn restored(last: Option<LastThrottle>) -> Self {
        Self { last }
    }

    /// What has to be stored.
    pub const fn last(&self) -> Option<LastThrottle> {
        self.last
    }

    /// Halves the share. Replies within the twelfth part of a minute count as one.
    pub fn throttled(&mut self, now: Duration, minute: Duration) {
        let share = match self.last {
            Some(last) if now < last.at + minute / 12 => last.share,
            _ => (self.share(now, minute) / 2.0).max(LEAST),
        };
        self.last = Some(LastThrottle { at: now, share });
    }

    /// The share that may be used at `now`, above 0 and at most 1.
    pub fn share(&self, now: Duration, minute: Duration) -> f64 {
        let Some(LastThrottle { at, share }) = self.last else { return 1.0 };
        (share + GROWTH * now.saturating_sub(at).as_secs_f64() / minute.as_secs_f64()).min(1.0)
    }

    /// What is left of a limit, at least one.
    // The product is at most the limit, which came from a u32.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn of(&self, limit: u64, now: Duration, minute: Duration) -> u64 {
        let share = self.share(now, minute);
        if share >= 1.0 { limit } else { ((limit as f64 * share) as u64).max(1).min(limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_halved_once_for_one_excess_and_grows_back() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.of(30, MINUTE, MINUTE), 30);
        throttle.throttled(MINUTE, MINUTE);
        throttle.throttled(MINUTE + Duration::from_secs(4), MINUTE);
        assert_eq!(throttle.of(30, MINUTE + Duration::from_secs(4), MINUTE), 15);
        assert_eq!(throttle.of(3, MINUTE + Duration::from_secs(4), MINUTE), 1);
        assert_eq!(throttle.of(30, 6 * MINUTE, MINUTE), 30);
    }

    #[test]
    fn something_always_goes() {
        let mut throttle = Throttle::default();
        for round in 1..50 {
            throttle.throttled(round * MINUTE / 6, MINUTE);
        }
        assert_eq!(throttle.of(1, 9 * MINUTE, MINUTE), 1);
        assert!(throttle.share(9 * MINUTE, MINUTE) >= LEAST);
        assert_eq!(throttle.of(0, 9 * MINUTE, MINUTE), 0, "but never more than the limit");
    }
}
