//! Ids of mailboxes and sidecars: digests, which do not reveal an address and fit in a ledger.

use std::fmt::Write;
use std::time::Duration;

use mailroute_quota::server::limits::{Namespace, SidecarId};
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_quota::slots::unregistered_index;

/// A mailbox of a tenant, as a digest: an address is personal data, and this is the name of an object that many may read. By
/// default that of no mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxKey(String);

impl MailboxKey {
    /// The key of a mailbox. Upper and lower case make no difference.
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

    /// The digest in hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a digest as [`MailboxKey::as_str`] gives it; nothing if it is none.
    pub fn parse(digest: &str) -> Option<Self> {
        let is_digit = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
        (digest.len() == 32 && digest.bytes().all(is_digit)).then(|| Self(digest.to_owned()))
    }
}

/// An Entra application of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationKey(String);

impl ApplicationKey {
    /// The key of an application by its client id. Upper and lower case make no difference.
    pub fn of(tenant: &str, client_id: &str) -> Self {
        Self(format!("{tenant}\n{client_id}").to_ascii_lowercase())
    }
}

/// The sidecar of the pod with this uid.
pub fn sidecar_id(uid: &str) -> SidecarId {
    let digest = ring::digest::digest(&ring::digest::SHA256, uid.as_bytes());
    let first = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    SidecarId(u64::from_be_bytes(first))
}

/// The sidecar of the pod with this uid in this namespace, which was created at `since`.
pub fn running_sidecar(namespace: &Namespace, uid: &str, since: Duration) -> RunningSidecar {
    RunningSidecar {
        id: sidecar_id(uid),
        namespace: Namespace::clone(namespace),
        unregistered_index: unregistered_index(uid),
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_make_two_mailboxes_and_the_address_is_not_told() {
        let key = MailboxKey::of("72F988BF-0000", "NoReply@Contoso.com");
        assert_eq!(key, MailboxKey::of("72f988bf-0000", "noreply@contoso.com"));
        assert_ne!(key, MailboxKey::of("72f988bf-0001", "noreply@contoso.com"));
        assert_eq!(MailboxKey::parse(key.as_str()), Some(key.clone()));
        assert_eq!((MailboxKey::parse(""), MailboxKey::parse(&key.as_str().to_uppercase())), (None, None));
        assert!(!key.as_str().contains("contoso"));
    }

    #[test]
    fn the_id_of_a_sidecar_is_the_same_in_every_release() {
        assert_eq!(sidecar_id("6c9e8e0a-1f7b-4b62-9d0e-000000000001").0, 0x55db_33a6_dc55_3d97);
    }
}
