//! A certificate authority of our own: its certificate, its key, and the leaves it signs.
//!
//! ECDSA P-256 throughout: every API server accepts it, and a leaf is made in well under a millisecond. Owns minting,
//! signing and reading certificates; refuses to know where they are stored, who serves them and what time it is. The
//! private key leaves this module only as the PEM text that goes into the Secret, and never into `Debug` output.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How far a certificate's life reaches into the past, so that a peer whose clock is slow accepts a new one.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// Why a certificate or key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making a key or a signature failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The text is not one PEM certificate.
    #[error("not a PEM certificate: {0}")]
    Pem(String),
    /// The certificate is not an X.509 CA certificate with a name.
    #[error("not a CA certificate: {0}")]
    NotAuthority(&'static str),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// The public half of an authority: what others trust.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    common_name: String,
    not_after: Timestamp,
}

impl CaCertificate {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// [`Error::NotAuthority`] when it is not an X.509 certificate that may sign others.
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, Error> {
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| Error::NotAuthority("it is not X.509"))?;
        if !parsed.is_ca() {
            return Err(Error::NotAuthority("it may not sign certificates"));
        }
        let common_name = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .ok_or(Error::NotAuthority("it has no common name"))?
            .to_owned();
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|_| Error::NotAuthority("its end of life is out of range"))?;
        Ok(Self { der, common_name, not_after })
    }

    /// Reads one PEM certificate.
    ///
    /// # Errors
    /// As [`Self::from_der`], and [`Error::Pem`] when the text is not PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Pem(e.to_string()))?;
        Self::from_der(der)
    }

    /// The certificate in DER.
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// End of life; every leaf it signed ends no later.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate({}, until {})", self.common_name, self.not_after)
    }
}

/// A certificate authority that can sign.
#[derive(Clone)]
pub struct Authority {
    certificate: CaCertificate,
    key_pem: String,
}

impl Authority {
    /// Makes a new authority that lives for `life` from `now` on. Draws from the system's random source.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn mint(now: Timestamp, life: Duration) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - BACKDATE, now + life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name(&format!("mailroute CA {}", fingerprint(key.public_key_raw())));
        let der = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate: CaCertificate::from_der(der)?, key_pem: key.serialize_pem() })
    }

    /// Reads an authority from its certificate and its private key (PKCS #8), both PEM.
    ///
    /// # Errors
    /// When either cannot be read or they do not belong together. The key's content is in no error.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let certificate = CaCertificate::from_pem(certificate)?;
        let pair = KeyPair::from_pem(key)?;
        let (_, parsed) = X509Certificate::from_der(&certificate.der)
            .map_err(|_| Error::NotAuthority("it is not X.509"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(Error::KeyMismatch);
        }
        Ok(Self { certificate, key_pem: key.to_owned() })
    }

    /// The public half.
    pub const fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The private key, PKCS #8 PEM. For the Secret only.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Signs a server certificate with a new key for the DNS names, valid for `life` from `now` on, but never longer
    /// than the authority itself: when the authority has ended, so has everything it signed.
    ///
    /// # Errors
    /// When a name is not a DNS name, or the random source fails.
    pub fn sign(&self, names: &[String], now: Timestamp, life: Duration) -> Result<SignedLeaf, Error> {
        let key = KeyPair::generate()?;
        let (mut params, not_after) = self.leaf("mailroute operator", now, life);
        params.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let chain = vec![params.signed_by(&key, &self.issuer()?)?.der().clone()];
        Ok(SignedLeaf { chain, key: PrivateKeyDer::from(key), not_after })
    }

    /// What all leaves have in common, and when this one ends: never after the authority.
    pub(super) fn leaf(
        &self,
        common_name: &str,
        now: Timestamp,
        life: Duration,
    ) -> (CertificateParams, Timestamp) {
        let not_after = (now + life).min(self.certificate.not_after);
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - BACKDATE, not_after);
        params.distinguished_name = name(common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params, Timestamp::from_second(not_after.as_second()).unwrap_or(not_after))
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&self.certificate.common_name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Issuer::new(params, KeyPair::from_pem(&self.key_pem)?))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A server certificate just signed, with its key.
pub struct SignedLeaf {
    /// The chain to send, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key; lives in memory only.
    pub key: PrivateKeyDer<'static>,
    /// End of life.
    pub not_after: Timestamp,
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Eight hexadecimal digits that tell authorities apart in their names: peers look issuers up by name first.
fn fingerprint(public_key: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, public_key);
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| Duration::from_secs(at.as_second().max(0).unsigned_abs());
    params.not_before = epoch + since_epoch(from);
    params.not_after = epoch + since_epoch(until);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_authority_survives_its_pem_form() {
        let made = Authority::mint(at(1_000_000_000), DAY).unwrap();
        let pem = super::super::bundle::Bundle::from_iter([made.certificate().clone()]).to_pem();
        let read = Authority::from_pem(&pem, made.key_pem()).unwrap();
        assert_eq!(read.certificate(), made.certificate());
        assert_eq!(read.certificate().not_after(), at(1_000_000_000) + DAY);
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (one, two) = (Authority::mint(at(0), DAY).unwrap(), Authority::mint(at(0), DAY).unwrap());
        let pem = super::super::bundle::Bundle::from_iter([one.certificate().clone()]).to_pem();
        assert!(matches!(Authority::from_pem(&pem, two.key_pem()), Err(Error::KeyMismatch)));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = Authority::mint(at(1_000), DAY).unwrap();
        let names = ["mailroute.mail.svc".to_owned()];
        let leaf = authority.sign(&names, at(1_000), 7 * DAY).unwrap();
        assert_eq!(leaf.not_after, at(1_000) + DAY);
    }

    #[test]
    fn a_clock_that_is_minutes_behind_trusts_what_was_just_issued() {
        const NOW: u64 = 1_800_000_000;
        let now = at(1_800_000_000);
        let authority = Authority::mint(now, DAY).unwrap();
        let leaf = authority.sign(&["mailroute.mail.svc".to_owned()], now, DAY).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().to_vec().into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from("mailroute.mail.svc").unwrap();
        let is_trusted = |behind: u64| {
            let clock = UnixTime::since_unix_epoch(Duration::from_secs(NOW - behind));
            verifier.verify_server_cert(&leaf.chain[0], &[], &name, &[], clock).is_ok()
        };
        assert!(is_trusted(0) && is_trusted(4 * 60));
        assert!(!is_trusted(6 * 60));
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let authority = Authority::mint(at(1_000), DAY).unwrap();
        let leaf = authority.sign(&["mailroute.mail.svc".to_owned()], at(1_000), DAY).unwrap();
        let error = CaCertificate::from_der(leaf.chain[0].clone()).unwrap_err();
        assert_eq!(error.to_string(), "not a CA certificate: it may not sign certificates");
    }

    #[test]
    fn the_key_is_not_in_debug_output() {
        let authority = Authority::mint(at(1_000), DAY).unwrap();
        let shown = format!("{authority:?} {:?}", Authority::from_pem("nonsense", authority.key_pem()));
        assert!(!shown.contains("PRIVATE") && !shown.contains(&authority.key_pem()[40..60]), "{shown}");
    }
}
