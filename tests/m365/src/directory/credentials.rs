//! What an application or a mailbox may prove itself with, as an administrator registers it.
//!
//! A secret or password is in no `Debug`. It refuses to know how a credential is presented.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::client_certificate::{self, CertificateError, RegisteredKey};

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

/// A client secret of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSecret {
    /// Its description.
    pub name: String,
    /// The secret value (not the secret id).
    pub value: Hidden,
    /// When it ends; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A certificate that was uploaded to an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisteredCertificate {
    /// Its description.
    pub name: String,
    /// The certificate, without its key.
    pub certificate: CertificateSource,
}

/// Where a certificate is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateSource {
    /// The built-in certificate with a public test key.
    StandIn,
    /// The certificate itself, PEM.
    Pem(String),
}

impl Hidden {
    /// Whether `given` is the same text.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        self.0 == given
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hidden")
    }
}

impl ClientSecret {
    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

impl RegisteredCertificate {
    /// Its public key, thumbprints and times.
    ///
    /// # Errors
    /// It is not a PEM certificate with an RSA key.
    pub fn read(&self) -> Result<RegisteredKey, CertificateError> {
        match &self.certificate {
            CertificateSource::StandIn => {
                RegisteredKey::read(client_certificate::stand_in().certificate_pem())
            }
            CertificateSource::Pem(pem) => RegisteredKey::read(pem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = ClientSecret { name: "one".into(), value: "s3cret".into(), expires: None };
        assert!(!format!("{secret:?}").contains("s3cret"));
        assert!(secret.value.is("s3cret") && !secret.value.is("S3cret"));
    }

    #[test]
    fn a_secret_ends_at_its_time() {
        let end = Timestamp::from_second(1_000).unwrap();
        let secret = ClientSecret { name: "one".into(), value: "s".into(), expires: Some(end) };
        assert!(!secret.is_expired(Timestamp::from_second(999).unwrap()));
        assert!(secret.is_expired(end));
    }
}
