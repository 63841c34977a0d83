//! An application's own certificate: what Entra keeps of it, and a built-in one to sign with.
//!
//! Pure. The built-in certificate's key is a **public test key** that ships with the program. Source: Microsoft identity
//! platform, "Microsoft identity platform application authentication certificate credentials".

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::{digest, signature::RsaKeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, public_key::PublicKey};

use super::jws::{self, Algorithm, Header};
use crate::random;

/// Why a certificate cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Not PEM, or not a certificate.
    #[error("it is not a certificate in PEM")]
    Malformed,
    /// A key that PS256 and RS256 cannot be made with.
    #[error("its key is not an RSA key")]
    Key,
}

/// What is kept of a registered certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredKey {
    /// `x5t#S256`: SHA-256 of the certificate, base64url.
    pub sha256: String,
    /// `x5t`: SHA-1 of the certificate, base64url.
    pub sha1: String,
    /// First second of its validity, since 1970.
    pub start: i64,
    /// Last second of its validity, since 1970.
    pub end: i64,
    /// `RSAPublicKey` of RFC 8017, DER.
    pub public_key: Vec<u8>,
}

impl RegisteredKey {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::Malformed)?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| CertificateError::Malformed)?;
        let key = certificate.public_key();
        if !matches!(key.parsed(), Ok(PublicKey::RSA(_))) {
            return Err(CertificateError::Key);
        }
        Ok(Self {
            sha256: thumbprint(&digest::SHA256, &der),
            sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, &der),
            start: certificate.validity().not_before.timestamp(),
            end: certificate.validity().not_after.timestamp(),
            public_key: key.subject_public_key.data.to_vec(),
        })
    }

    /// Whether the header of an assertion means this certificate.
    #[must_use]
    pub fn is_meant_by(&self, header: &Header) -> bool {
        match (&header.x5t_sha256, &header.x5t) {
            (Some(thumbprint), _) => *thumbprint == self.sha256,
            (None, Some(thumbprint)) => *thumbprint == self.sha1,
            (None, None) => false,
        }
    }

    /// Whether it may be used now.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        (self.start..=self.end).contains(&now.as_second())
    }
}

fn thumbprint(algorithm: &'static digest::Algorithm, der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(algorithm, der))
}

/// A certificate with its key, to sign assertions with.
pub struct ClientCertificate {
    certificate_pem: String,
    key_pem: &'static str,
    pair: RsaKeyPair,
    registered: RegisteredKey,
}

static STAND_IN: LazyLock<ClientCertificate> = LazyLock::new(|| {
    ClientCertificate::issue(include_str!("../../keys/public-test-key-3.pem"))
        .expect("the shipped key can sign a certificate")
});

/// The built-in certificate, whose key is public.
pub fn stand_in() -> &'static ClientCertificate {
    &STAND_IN
}

impl ClientCertificate {
    /// Self-signed, as certificates of applications may be.
    fn issue(key_pem: &'static str) -> Option<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mailroute (public test key)");
        let certificate_pem = params.self_signed(&KeyPair::from_pem(key_pem).ok()?).ok()?.pem();
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).ok()?;
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?;
        let registered = RegisteredKey::read(&certificate_pem).ok()?;
        Some(Self { certificate_pem, key_pem, pair, registered })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its public test key, PKCS #8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> &'static str {
        self.key_pem
    }

    /// Signs any claims with PS256 under `x5t#S256`.
    #[must_use]
    pub fn sign(&self, claims: &impl Serialize) -> String {
        let header = Header {
            alg: Algorithm::Ps256,
            x5t_sha256: Some(self.registered.sha256.clone()),
            ..Header::default()
        };
        jws::sign_with(claims, &self.pair, &header).expect("the shipped key can sign JSON")
    }

    /// An assertion as an application makes it for itself, valid for five minutes.
    #[must_use]
    pub fn assertion(&self, client_id: &str, audience: &str, now: Timestamp) -> String {
        let now = now.as_second();
        self.sign(&json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": random::guid(),
            "nbf": now,
            "iat": now,
            "exp": now + 300,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_certificate_can_be_registered() {
        let key = RegisteredKey::read(stand_in().certificate_pem()).unwrap();
        // 32 and 20 bytes in base64url without padding.
        assert_eq!((key.sha256.len(), key.sha1.len()), (43, 27));
        assert!(key.is_in_force(Timestamp::from_second(1_790_000_000).unwrap()));
        assert!(!key.is_in_force(Timestamp::from_second(key.end + 1).unwrap()));
    }

    #[test]
    fn an_elliptic_key_and_no_certificate_are_told_apart() {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::default().self_signed(&key).unwrap().pem();
        assert_eq!(RegisteredKey::read(&pem).unwrap_err(), CertificateError::Key);
        assert_eq!(RegisteredKey::read("hello").unwrap_err(), CertificateError::Malformed);
    }

    #[test]
    fn a_header_means_a_certificate_by_either_thumbprint() {
        let key = RegisteredKey::read(stand_in().certificate_pem()).unwrap();
        let by = |sha256: Option<&str>, sha1: Option<&str>| Header {
            x5t_sha256: sha256.map(str::to_owned),
            x5t: sha1.map(str::to_owned),
            ..Header::default()
        };
        assert!(key.is_meant_by(&by(Some(&key.sha256), None)));
        assert!(key.is_meant_by(&by(None, Some(&key.sha1))));
        assert!(!key.is_meant_by(&by(Some("other"), Some(&key.sha1))));
        assert!(!key.is_meant_by(&by(None, None)));
    }
}
