//! How failed logins slow down those that follow.
//!
//! Each failure doubles the pause before the next attempt of the same address, whose attempts are verified one after another, and of the
//! same user name, up to [`LONGEST`]. Pure: time is passed in. Memory is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause. Short enough that nobody can lock a user out.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a failure counts.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// Most addresses, and most user names, that are remembered.
const MAX_REMEMBERED: usize = 2048;

/// The failures of addresses and user names. A user name is known by a digest.
#[derive(Debug, Default)]
pub(super) struct FailedLogins {
    addresses: Failures<IpAddr>,
    users: Failures<[u8; 8]>,
}

impl FailedLogins {
    /// When an attempt may be verified.
    pub(super) fn turn(&mut self, address: IpAddr, user: [u8; 8], now: Instant) -> Instant {
        let of_user = now + self.users.pause(&user, now);
        let of_address = self.addresses.get(&address, now).map_or(now, |failure| failure.next);
        of_user.max(of_address)
    }

    /// An attempt has failed.
    pub(super) fn failed(&mut self, address: IpAddr, user: [u8; 8], now: Instant) {
        self.addresses.add(address, now);
        self.users.add(user, now);
    }
}

#[derive(Debug)]
struct Failures<K>(HashMap<K, Failure>);

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[derive(Debug)]
struct Failure {
    times: u32,
    last: Instant,
    /// When the next attempt may be verified.
    next: Instant,
}

impl Failure {
    fn counts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < REMEMBERED
    }
}

impl<K: Eq + Hash + Copy> Failures<K> {
    fn get(&mut self, key: &K, now: Instant) -> Option<&mut Failure> {
        self.0.get_mut(key).filter(|failure| failure.counts(now))
    }

    fn pause(&mut self, key: &K, now: Instant) -> Duration {
        self.get(key, now).map_or(Duration::ZERO, |failure| pause(failure.times))
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let failure = self.0.entry(key).or_insert(Failure { times: 0, last: now, next: now });
        if !failure.counts(now) {
            failure.times = 0;
        }
        failure.times += 1;
        failure.last = now;
        failure.next = failure.next.max(now + pause(failure.times));
    }

    /// Forgets what no longer counts, or else what is oldest.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, failure| failure.counts(now));
        if self.0.len() >= MAX_REMEMBERED {
            let oldest = self.0.iter().min_by_key(|(_, failure)| failure.last).map(|(key, _)| *key);
            oldest.map(|key| self.0.remove(&key));
        }
    }
}

/// The pause after so many failures.
fn pause(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const USER: [u8; 8] = [7; 8];

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn each_failure_of_an_address_makes_the_next_attempt_wait_longer_up_to_a_bound() {
        let (mut failed, now) = (FailedLogins::default(), Instant::now());
        assert_eq!(failed.turn(address(1), USER, now), now);
        let mut waits = Vec::new();
        for user in 0..7 {
            failed.failed(address(1), [user; 8], now + 60 * SECOND * u32::from(user));
            let at = now + 60 * SECOND * u32::from(user);
            waits.push(failed.turn(address(1), [99; 8], at).duration_since(at).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(failed.turn(address(2), [99; 8], now), now, "others do not wait");
    }

    #[test]
    fn a_user_name_is_slowed_whatever_the_address_and_never_locked_out() {
        let (mut failed, now) = (FailedLogins::default(), Instant::now());
        for last in 0..200 {
            failed.failed(address(last), USER, now);
        }
        for last in 201..250 {
            assert_eq!(failed.turn(address(last), USER, now), now + LONGEST);
        }
    }

    #[test]
    fn failures_are_forgotten_and_bounded() {
        let (mut failed, now) = (FailedLogins::default(), Instant::now());
        failed.failed(address(1), USER, now);
        let later = now + REMEMBERED;
        assert_eq!(failed.turn(address(1), USER, later), later);
        for number in 0..3 * u32::try_from(MAX_REMEMBERED).unwrap() {
            let user = u64::from(number).to_be_bytes();
            failed.failed(IpAddr::V4(number.into()), user, later + Duration::from_millis(number.into()));
        }
        assert_eq!((failed.addresses.0.len(), failed.users.0.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
