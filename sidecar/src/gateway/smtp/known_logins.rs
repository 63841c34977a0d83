//! Logins that were right lately: a client that logs in for each message does not wait for a password hash or a review each time.
//!
//! Pure: time is passed in. Known by a keyed digest, so that no password is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long a login is known.
pub(super) const KNOWN: Duration = Duration::from_secs(60);

/// Most that are known.
const MAX_KNOWN: usize = 512;

/// What proves a login: a digest over all that it rests on.
pub(super) type Proof = [u8; 32];

/// The logins, each with the name of who it is.
#[derive(Debug, Default)]
pub(super) struct KnownLogins(HashMap<Proof, (Arc<str>, Instant)>);

impl KnownLogins {
    /// Whose login it is, if it was right less than a minute ago.
    pub(super) fn get(&self, proof: &Proof, now: Instant) -> Option<Arc<str>> {
        self.0.get(proof).filter(|(_, until)| *until > now).map(|(name, _)| Arc::clone(name))
    }

    /// A login was right.
    pub(super) fn add(&mut self, proof: Proof, name: Arc<str>, now: Instant) {
        if self.0.len() >= MAX_KNOWN {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() < MAX_KNOWN {
            self.0.insert(proof, (name, now + KNOWN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_known_for_a_minute_and_their_number_is_bounded() {
        let (mut known, now) = (KnownLogins::default(), Instant::now());
        known.add([1; 32], "ann".into(), now);
        assert_eq!(known.get(&[1; 32], now).as_deref(), Some("ann"));
        assert_eq!(known.get(&[2; 32], now), None);
        assert_eq!(known.get(&[1; 32], now + KNOWN), None);
        for number in 0..2 * MAX_KNOWN {
            let mut proof = [0; 32];
            proof[..8].copy_from_slice(&number.to_be_bytes());
            known.add(proof, "x".into(), now);
        }
        assert_eq!(known.0.len(), MAX_KNOWN);
        known.add([3; 32], "ann".into(), now + KNOWN);
        assert_eq!(known.0.len(), 1, "what is over makes room");
    }
}
