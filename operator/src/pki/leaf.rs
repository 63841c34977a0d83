//! The server certificate of this replica: when to sign a new one, and serving the one at hand.
//!
//! The decision is a function of values. Hot-swapping is a pointer behind a lock that is held for a clone.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::{Authority, CaCertificate, Error};
use super::bundle::Bundle;

/// A server certificate with its key, and who signed it.
#[derive(Clone, Debug)]
pub struct Leaf {
    certified: Arc<CertifiedKey>,
    issuer: CaCertificate,
    not_after: Timestamp,
    renew_at: Timestamp,
}

impl Leaf {
    /// Signs a leaf for these names, to be renewed when a third of its life is left.
    ///
    /// # Errors
    /// As [`Authority::sign`], or when rustls cannot use the key.
    pub fn sign(
        authority: &Authority,
        names: &[String],
        now: Timestamp,
        life: Duration,
    ) -> Result<Self, LeafError> {
        let signed = authority.sign(names, now, life)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&signed.key)?;
        let lives = Duration::try_from(signed.not_after.duration_since(now)).unwrap_or_default();
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(signed.chain, key)),
            issuer: authority.certificate().clone(),
            not_after: signed.not_after,
            renew_at: now + lives / 3 * 2,
        })
    }

    /// Whether a client that trusts `live` accepts it at `now`.
    pub fn is_trusted(&self, live: &Bundle, now: Timestamp) -> bool {
        now < self.not_after && live.contains(&self.issuer)
    }

    /// Whether a new leaf by `signing` is to replace `served`. Never by an authority that has ended.
    ///
    /// A leaf that is trusted is not given up for one that is not trusted yet: the API server may still have to learn
    /// of the authority, however the two writes were ordered.
    pub fn is_wanted(served: Option<&Self>, signing: &CaCertificate, live: &Bundle, now: Timestamp) -> bool {
        match served {
            _ if signing.not_after() <= now => false,
            None => true,
            Some(served) if served.issuer == *signing => served.renew_at <= now,
            Some(served) => live.contains(signing) || !served.is_trusted(live, now),
        }
    }

    /// What to serve.
    pub const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// When to renew it.
    pub const fn renew_at(&self) -> Timestamp {
        self.renew_at
    }

    /// End of life.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

/// Why a leaf cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// Signing failed.
    #[error("cannot sign a server certificate")]
    Sign(#[from] Error),
    /// The TLS library does not take the key.
    #[error("cannot use the new key for TLS")]
    Key(#[from] rustls::Error),
}

/// What TLS connections are served with; empty until the first leaf is signed.
#[derive(Debug, Default)]
pub struct ServedLeaf(RwLock<Option<Arc<CertifiedKey>>>);

impl ServedLeaf {
    /// Serves this certificate from the next handshake on.
    pub fn swap(&self, certified: &Arc<CertifiedKey>) {
        // The lock guards one assignment, so a poisoned one still holds a whole value.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(certified));
    }
}

impl ResolvesServerCert for ServedLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn hour(n: u32) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap() + n * HOUR
    }

    fn authority() -> Authority {
        Authority::mint(hour(0), 300 * HOUR).unwrap()
    }

    fn leaf(authority: &Authority) -> Leaf {
        Leaf::sign(authority, &["mailroute.mail.svc".to_owned()], hour(0), 9 * HOUR).unwrap()
    }

    fn bundle(of: &[&Authority]) -> Bundle {
        of.iter().map(|authority| authority.certificate().clone()).collect()
    }

    #[test]
    fn the_first_leaf_is_signed_even_before_anyone_trusts_it() {
        assert!(Leaf::is_wanted(None, authority().certificate(), &Bundle::default(), hour(0)));
    }

    #[test]
    fn a_leaf_is_renewed_when_a_third_of_its_life_is_left() {
        let ca = authority();
        let served = leaf(&ca);
        let wanted = |n| Leaf::is_wanted(Some(&served), ca.certificate(), &bundle(&[&ca]), hour(n));
        assert!(!wanted(5));
        assert!(wanted(6));
    }

    #[test]
    fn a_trusted_leaf_waits_for_the_new_authority_to_be_published() {
        let (old, new) = (authority(), authority());
        let served = leaf(&old);
        let wanted =
            |live: &[&Authority]| Leaf::is_wanted(Some(&served), new.certificate(), &bundle(live), hour(1));
        assert!(!wanted(&[&old]), "the new one is not published");
        assert!(wanted(&[&old, &new]));
        assert!(wanted(&[]), "the old one is worth nothing");
    }

    #[test]
    fn an_authority_that_has_ended_signs_nothing() {
        let ca = authority();
        let served = leaf(&ca);
        assert!(!Leaf::is_wanted(None, ca.certificate(), &bundle(&[&ca]), hour(300)));
        assert!(!Leaf::is_wanted(Some(&served), ca.certificate(), &bundle(&[&ca]), hour(300)));
    }

    #[test]
    fn trust_ends_with_the_life_or_the_authority() {
        let (ca, other) = (authority(), authority());
        let served = leaf(&ca);
        assert!(served.is_trusted(&bundle(&[&other, &ca]), hour(8)));
        assert!(!served.is_trusted(&bundle(&[&other]), hour(8)));
        assert!(!served.is_trusted(&bundle(&[&ca]), hour(9)));
    }
}
