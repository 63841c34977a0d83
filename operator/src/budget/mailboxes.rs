//! Which mailbox: a key that does not tell the address.

use std::fmt::Write;

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

    /// The key that a digest is, as [`Key::as_str`] gives it; nothing when it is none.
    pub fn parse(digest: &str) -> Option<Self> {
        let is_digit = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
        (digest.len() == 32 && digest.bytes().all(is_digit)).then(|| Self(digest.to_owned()))
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
        assert_eq!(Key::parse(key.as_str()), Some(key.clone()));
        assert_eq!((Key::parse(""), Key::parse(&key.as_str().to_uppercase())), (None, None));
        assert!(!key.as_str().contains("contoso"));
    }
}
