//! Less for a while, after Microsoft has found it too much.
//!
//! What was counted was within the limit, so somebody else sends as the mailbox, or the limit is lower than was said. Either
//! way the share of the limit that is used is halved, and an eighth comes back with every minute that stays quiet.

use std::time::Duration;

/// The least share that is ever used.
const LEAST: f64 = 0.125;

/// How much comes back in one minute.
const GROWTH: f64 = 0.125;

/// The restraint of one mailbox. A minute is that of the limit, which tests shorten.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Restraint {
    last: Option<(Duration, f64)>,
}

impl Restraint {
    /// As it was written down.
    pub const fn restored(last: Option<(Duration, f64)>) -> Self {
        Self { last }
    }

    /// When it was found too much last, and the share after that.
    pub const fn last(&self) -> Option<(Duration, f64)> {
        self.last
    }

    /// Learns that it was too much. What comes within the twelfth part of a minute is the same excess.
    pub fn throttled(&mut self, now: Duration, minute: Duration) {
        let share = match self.last {
            Some((at, share)) if now < at + minute / 12 => share,
            _ => (self.share(now, minute) / 2.0).max(LEAST),
        };
        self.last = Some((now, share));
    }

    /// The share that may be used at `now`, above 0 and at most 1.
    pub fn share(&self, now: Duration, minute: Duration) -> f64 {
        let Some((at, share)) = self.last else { return 1.0 };
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
        let mut restraint = Restraint::default();
        assert_eq!(restraint.of(30, MINUTE, MINUTE), 30);
        restraint.throttled(MINUTE, MINUTE);
        restraint.throttled(MINUTE + Duration::from_secs(4), MINUTE);
        assert_eq!(restraint.of(30, MINUTE + Duration::from_secs(4), MINUTE), 15);
        assert_eq!(restraint.of(3, MINUTE + Duration::from_secs(4), MINUTE), 1);
        assert_eq!(restraint.of(30, 6 * MINUTE, MINUTE), 30);
    }

    #[test]
    fn something_always_goes() {
        let mut restraint = Restraint::default();
        for round in 1..50 {
            restraint.throttled(round * MINUTE / 6, MINUTE);
        }
        assert_eq!(restraint.of(1, 9 * MINUTE, MINUTE), 1);
        assert!(restraint.share(9 * MINUTE, MINUTE) >= LEAST);
        assert_eq!(restraint.of(0, 9 * MINUTE, MINUTE), 0, "but never more than the limit");
    }
}
