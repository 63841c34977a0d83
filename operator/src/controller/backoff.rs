//! How long to wait after a failure, for each route by itself. Pure, apart from the lock.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::cache::route::RouteRef;
use crate::lock;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// The routes that fail at present.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<RouteRef, Streak>>);

#[derive(Clone, Copy, Debug)]
struct Streak {
    failures: u32,
    label: &'static str,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// When to try again.
    pub wait: Duration,
    /// Whether this kind of failure is new for the route, and so worth an Event.
    pub is_news: bool,
}

impl Backoff {
    /// A route failed, with an error of this static label.
    pub fn failed(&self, route: RouteRef, label: &'static str) -> Retry {
        let mut streaks = lock(&self.0);
        let old = streaks.get(&route).copied();
        let failures = old.map_or(1, |old| old.failures.saturating_add(1));
        streaks.insert(route, Streak { failures, label });
        let wait = FIRST.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(LONGEST);
        Retry { wait, is_news: old.is_none_or(|old| old.label != label) }
    }

    /// A route succeeded, or is gone.
    pub fn succeeded(&self, route: &RouteRef) {
        lock(&self.0).remove(route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str) -> RouteRef {
        RouteRef::new(name).within("shop")
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.failed(route("a"), "apply").wait.as_secs()).collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(waits[10..].iter().all(|wait| *wait == 300));
    }

    #[test]
    fn routes_wait_each_for_themselves_and_a_success_ends_the_streak() {
        let backoff = Backoff::default();
        backoff.failed(route("a"), "apply");
        assert_eq!(backoff.failed(route("b"), "apply").wait, FIRST);
        backoff.succeeded(&route("a"));
        assert_eq!(backoff.failed(route("a"), "apply"), Retry { wait: FIRST, is_news: true });
    }

    #[test]
    fn the_same_failure_is_news_once() {
        let backoff = Backoff::default();
        let news: Vec<_> = ["apply", "apply", "status", "status"]
            .map(|label| backoff.failed(route("a"), label).is_news)
            .to_vec();
        assert_eq!(news, [true, false, true, false]);
    }
}
