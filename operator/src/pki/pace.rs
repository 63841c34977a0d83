//! How soon to repeat a write that failed or was undone: quickly after a quiet time, then ever slower, so that neither a failing API
//! server nor two actors who disagree about an object cause a storm of writes. A function of the times passed in.

use std::time::Duration;

use jiff::Timestamp;

/// Longest sleep: a clock that was set, or a machine that slept, is noticed within this time.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Shortest sleep, so that a wake-up a moment too early does not spin.
pub(super) const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// First wait after a write.
const SHORTEST: Duration = Duration::from_millis(500);
/// Longest wait: a rewritten `caBundle` is repaired within this time, however stubborn the other writer.
const LONGEST: Duration = Duration::from_secs(15);

/// The pace of one kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    wait: Duration,
    next: Timestamp,
}

impl Pace {
    /// Nothing was written yet.
    pub const fn new() -> Self {
        Self { wait: Duration::ZERO, next: Timestamp::UNIX_EPOCH }
    }

    /// When the next write may happen.
    pub const fn next(&self) -> Timestamp {
        self.next
    }

    /// Remembers a try at `now` that may have to be repeated.
    pub fn tried(&mut self, now: Timestamp) {
        let quiet = self.next + 4 * LONGEST < now;
        self.wait = if quiet { SHORTEST } else { (self.wait * 2).clamp(SHORTEST, LONGEST) };
        self.next = now + self.wait;
    }
}

/// How long to sleep until `next`, within bounds.
pub(super) fn sleep_until(next: Timestamp, now: Timestamp) -> Duration {
    // What is past is negative, and due.
    let until = Duration::try_from(next.duration_since(now)).unwrap_or_default();
    until.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_dispute_slows_down_to_the_longest_wait() {
        let mut pace = Pace::new();
        let begin = Timestamp::from_second(1_700_000_000).unwrap();
        let mut now = begin;
        for _ in 0..100 {
            pace.tried(now);
            now = pace.next();
        }
        assert!(now >= begin + 90 * LONGEST);
        assert_eq!(pace.wait, LONGEST);
    }

    #[test]
    fn after_a_quiet_time_it_is_quick_again() {
        let mut pace = Pace::new();
        let mut now = Timestamp::from_second(1_700_000_000).unwrap();
        for _ in 0..10 {
            pace.tried(now);
        }
        now += 10 * LONGEST;
        pace.tried(now);
        assert_eq!(pace.next(), now + SHORTEST);
    }
}
