//! How often each caller may call: one token bucket each. Time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Calls of a pod that may come at once. A sidecar reports every change, at most once a second, and asks for a lease and gives it back
/// for each message at most.
const BURST: u32 = 20;

/// Time after which one more call is allowed.
const REFILL: Duration = Duration::from_millis(500);

/// Buckets kept at most before full ones are dropped.
const SWEEP_ABOVE: usize = 1024;

/// The buckets of all callers. A bucket that is full again is the same as none, and is dropped.
#[derive(Debug)]
pub struct RateLimit<K = String> {
    /// For each caller: the instant at which its bucket is full again.
    full_at: HashMap<K, Instant>,
    burst: u32,
    refill: Duration,
    sweep_above: usize,
}

impl Default for RateLimit {
    /// For reports and leases.
    fn default() -> Self {
        Self::new(BURST, REFILL)
    }
}

impl<K: Eq + Hash> RateLimit<K> {
    /// `burst` calls at once, and one more after each `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        Self { full_at: HashMap::new(), burst, refill, sweep_above: 0 }
    }

    /// Whether this caller may call now; takes one from its bucket if so.
    pub fn allows<Q>(&mut self, caller: &Q, now: Instant) -> bool
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.sweep(now);
        let full_at = self.full_at.get(caller).copied().unwrap_or(now).max(now) + self.refill;
        if full_at > now + self.refill * self.burst {
            return false;
        }
        self.full_at.insert(caller.to_owned(), full_at);
        true
    }

    fn sweep(&mut self, now: Instant) {
        if self.full_at.len() > self.sweep_above.max(SWEEP_ABOVE) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_above = 2 * self.full_at.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_more_is_refused_until_time_has_gone_by() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        assert!((0..BURST).all(|_| limit.allows("a", start)));
        assert!(!limit.allows("a", start));
        assert!(limit.allows("a", start + REFILL));
        assert!(!limit.allows("a", start + REFILL));
    }

    #[test]
    fn one_caller_does_not_use_up_the_calls_of_another() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        while limit.allows("a", start) {}
        assert!(limit.allows("b", start));
    }

    #[test]
    fn callers_that_went_quiet_are_forgotten() {
        let (mut limit, start) = (RateLimit::default(), Instant::now());
        for caller in 0..5000 {
            limit.allows(&caller.to_string(), start + REFILL * caller);
        }
        assert!(limit.full_at.len() <= SWEEP_ABOVE + 1, "{}", limit.full_at.len());
    }
}
