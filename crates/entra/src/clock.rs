//! Time and chance, read in one place.
//!
//! Decisions elsewhere are functions of values: they get `now` and a random fraction handed in. This file is where the
//! async shells take both from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
pub use tokio::time::Instant;

/// Time since the Unix epoch that does not run backwards in this process, whatever becomes of the system's clock.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    start: Instant,
    since_epoch: Duration,
}

impl Steady {
    /// A clock that goes on from the system's time.
    pub fn start() -> Self {
        Self::start_at(since_epoch())
    }

    /// A clock that goes on from this time since the epoch.
    pub fn start_at(since_epoch: Duration) -> Self {
        Self { start: now(), since_epoch }
    }

    /// Now, since the epoch.
    pub fn now(&self) -> Duration {
        self.since_epoch + self.start.elapsed()
    }

    /// When it will be so late, for sleeping; what is before the start counts as the start.
    pub fn instant(&self, at: Duration) -> Instant {
        self.start + at.saturating_sub(self.since_epoch)
    }
}

/// Monotonic now; follows tokio's paused clock in tests.
pub fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch, for what outlives the process.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// Seconds since the Unix epoch, for what leaves the process: reports, metrics, comparisons with `exp` of a token.
pub fn unix_seconds() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// Now, for messages: in headers, in what is kept, in what a person reads.
pub fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A random fraction in `0.0..1.0`, for jitter. One half when the system has no randomness: jitter is a courtesy, and
/// its lack no reason to stop.
pub fn chance() -> f64 {
    let mut bytes = [0_u8; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

/// Octets that nobody can foresee, for identifiers that must not repeat. All zero when the system has no randomness.
pub fn nonce() -> [u8; 16] {
    let mut bytes = [0_u8; 16];
    // What rests on them only has to differ from one request to the next, and the request carries the time, too.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// How long a `Retry-After` of `value` asks to wait (RFC 9110 §10.2.3): seconds, or until the date at which they are over.
/// `now` in seconds since the epoch.
pub fn retry_after(value: &str, now: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let left = date.timestamp().as_second().saturating_sub(now);
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_steady_clock_goes_on_from_the_systems_time_and_tells_when_to_wake() {
        let clock = Steady::start();
        let began = clock.now();
        assert!(began <= since_epoch());
        tokio::time::sleep_until(clock.instant(began + Duration::from_secs(90))).await;
        assert_eq!(clock.now(), began + Duration::from_secs(90));
        assert_eq!(clock.instant(Duration::ZERO), clock.instant(began));
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        assert_ne!(nonce(), nonce());
    }

    #[test]
    fn chance_stays_below_one() {
        assert!((0..1000).map(|_| chance()).all(|x| (0.0..1.0).contains(&x)));
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        // 2026-11-21 07:27:00 UTC
        let asked = |value| retry_after(value, 1_795_246_020);
        assert_eq!(asked(" 60"), Some(Duration::from_secs(60)));
        assert_eq!(asked("Sat, 21 Nov 2026 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(asked("Sat, 21 Nov 2026 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }
}
