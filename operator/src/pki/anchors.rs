//! Trust anchors that somebody else maintains, as PEM or DER, and whether a chain is valid under them.
//!
//! Unlike a [`super::bundle::Bundle`], which holds authorities of our own making, this takes what others put there: an
//! authority without a name, or a server certificate that is its own root, as a self-signing issuer makes them.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::bundle::pem_block;

/// Certificates that are trusted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors(Vec<CertificateDer<'static>>);

/// Why a chain is not trusted.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Distrust {
    /// No anchor is valid now.
    #[error("the caBundle contains no certificate that is valid now")]
    Empty,
    /// A name that is no DNS name.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// What a TLS client would report.
    #[error("{0}")]
    Certificate(rustls::Error),
}

impl Anchors {
    /// Reads PEM text, each certificate once, in their order. Blocks that are not certificates are passed over; text
    /// that is damaged trusts nobody.
    pub fn from_pem(pem: &str) -> Self {
        let blocks: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        blocks.unwrap_or_default().into_iter().collect()
    }

    /// The PEM text, one block per certificate.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| pem_block("CERTIFICATE", certificate)).collect()
    }

    /// Whether nothing is trusted.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The certificates, DER.
    pub fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter()
    }

    /// Whether a TLS client that trusts these accepts the chain (leaf first) for `name` at `now`.
    ///
    /// # Errors
    /// What the client would report.
    pub fn admit(
        &self,
        chain: &[CertificateDer<'static>],
        name: &str,
        now: Timestamp,
    ) -> Result<(), Distrust> {
        let mut roots = RootCertStore::empty();
        // API servers refuse a root that has ended, which this verifier would not look at.
        let alive = self.0.iter().filter(|der| end(der).is_some_and(|end| now < end));
        roots.add_parsable_certificates(alive.cloned());
        let ([leaf, between @ ..], false) = (chain, roots.is_empty()) else { return Err(Distrust::Empty) };
        let name = ServerName::try_from(name).map_err(|_| Distrust::Name(name.to_owned()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| Distrust::Empty)?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier.verify_server_cert(leaf, between, &name, &[], now).map(drop).map_err(Distrust::Certificate)
    }
}

/// End of life; none when it is not an X.509 certificate.
pub(super) fn end(der: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

impl FromIterator<CertificateDer<'static>> for Anchors {
    fn from_iter<I: IntoIterator<Item = CertificateDer<'static>>>(certificates: I) -> Self {
        let mut anchors = Vec::new();
        for certificate in certificates {
            if !anchors.contains(&certificate) {
                anchors.push(certificate);
            }
        }
        Self(anchors)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::authority::Authority;
    use super::*;

    const NAME: &str = "mailroute.mail.svc";
    const HOUR: Duration = Duration::from_secs(3600);

    fn chain(authority: &Authority, now: Timestamp) -> Vec<CertificateDer<'static>> {
        authority.sign(&[NAME.to_owned()], now, HOUR).unwrap().chain
    }

    #[test]
    fn a_chain_is_let_in_by_its_own_authority_for_its_names_and_its_time() {
        let now = Timestamp::now();
        let (own, other) = (Authority::mint(now, 9 * HOUR).unwrap(), Authority::mint(now, HOUR).unwrap());
        let trusts = |it: &Authority| Anchors::from_iter([it.certificate().der().clone()]);
        let chain = chain(&own, now);
        assert_eq!(trusts(&own).admit(&chain, NAME, now), Ok(()));
        let refused = |anchors: Anchors, name, at| {
            matches!(anchors.admit(&chain, name, at), Err(Distrust::Certificate(_)))
        };
        assert!(refused(trusts(&other), NAME, now));
        assert!(refused(trusts(&own), "other.mail.svc", now));
        assert!(refused(trusts(&own), NAME, now + 2 * HOUR));
        assert_eq!(Anchors::default().admit(&chain, NAME, now), Err(Distrust::Empty));
    }

    #[test]
    fn a_certificate_that_is_its_own_root_is_let_in() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let der = params.self_signed(&key).unwrap().der().clone();
        let anchors = Anchors::from_iter([der.clone()]);
        assert_eq!(anchors.admit(&[der], NAME, Timestamp::now()), Ok(()));
    }

    #[test]
    fn a_root_that_has_ended_lets_nobody_in() {
        let begin = Timestamp::now();
        let root = Authority::mint(begin, HOUR).unwrap();
        let anchors = Anchors::from_iter([root.certificate().der().clone()]);
        let late = begin + 2 * HOUR;
        assert_eq!(anchors.admit(&chain(&root, begin), NAME, late), Err(Distrust::Empty));
    }

    #[test]
    fn what_is_written_is_read_back_and_damage_trusts_nobody() {
        let now = Timestamp::now();
        let both = [Authority::mint(now, HOUR).unwrap(), Authority::mint(now, HOUR).unwrap()];
        let anchors: Anchors = both.iter().map(|it| it.certificate().der().clone()).collect();
        assert_eq!(Anchors::from_pem(&anchors.to_pem()), anchors);
        let twice = format!("{0}{0}", anchors.to_pem());
        assert_eq!(Anchors::from_pem(&twice).iter().count(), 2);
        assert!(Anchors::from_pem(&anchors.to_pem().replace("-----END", "-----ENDE")).is_empty());
    }
}
