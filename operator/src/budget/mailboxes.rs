//! The ledgers of all mailboxes, by a key that does not tell the address.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use super::ledger::Ledger;

/// A mailbox of a tenant, as a digest: an address is personal data, and this is written down where many may read. By default
/// that of no mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key of a mailbox. Spelling in capitals or not makes no difference.
    pub fn of(tenant: &str, mailbox: &str) -> Self {
        let subject = format!("{}\n{}", tenant.to_ascii_lowercase(), mailbox.to_ascii_lowercase());
        let digest = ring::digest::digest(&ring::digest::SHA256, subject.as_bytes());
        let mut key = String::with_capacity(32);
        for octet in digest.as_ref().iter().take(16) {
            // Writing to a String cannot fail.
            let _ = write!(key, "{octet:02x}");
        }
        Self(key)
    }

    /// The digest in hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of so many places it belongs to.
    pub fn place(&self, places: u32) -> u32 {
        self.0.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default() % places
    }
}

/// The ledgers that this leader has read.
#[derive(Debug, Default)]
pub struct Mailboxes {
    ledgers: HashMap<Key, Ledger>,
}

impl Mailboxes {
    /// The ledger of a mailbox, if it was read.
    pub fn ledger(&mut self, key: &Key) -> Option<&mut Ledger> {
        self.ledgers.get_mut(key)
    }

    /// The ledger of a mailbox was read.
    pub fn insert(&mut self, key: Key, ledger: Ledger) {
        self.ledgers.entry(key).or_insert(ledger);
    }

    /// What is known of a mailbox may be wrong; it has to be read again.
    pub fn remove(&mut self, key: &Key) {
        self.ledgers.remove(key);
    }

    /// Everything has to be read again.
    pub fn clear(&mut self) {
        self.ledgers.clear();
    }

    /// Every ledger.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Ledger)> {
        self.ledgers.iter_mut()
    }

    /// Drops ledgers with nothing to remember.
    pub fn tidy(&mut self, now: Duration) {
        self.ledgers.retain(|_, ledger| !ledger.is_empty(now));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ledgers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ledgers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_make_two_mailboxes_and_the_address_is_not_told() {
        let key = Key::of("72F988BF-0000", "NoReply@Contoso.com");
        assert_eq!(key, Key::of("72f988bf-0000", "noreply@contoso.com"));
        assert_ne!(key, Key::of("72f988bf-0001", "noreply@contoso.com"));
        assert!(key.as_str().len() == 32 && key.place(8) < 8);
        assert!(!key.as_str().contains("contoso"));
    }
}
