//! What an application proves itself with at the token endpoint, from the files that the kubelet keeps.
//!
//! Owns reading them, each time they are needed, since they are renewed and rotated, and saying what was presented
//! without showing it. Refuses to know how it is sent and what the authority makes of it.

use std::path::PathBuf;

use mailroute_route::condition::Reason;
use mailroute_route::file::{CertificateFiles, Credential};

use super::Failure;
use super::assertion::{self, Claims};
use super::signed;
use crate::certificate::{self, Certificate, CertificateError};
use crate::clock;
use crate::secret::{self, Secret};

/// Where the proof is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A projected service-account token.
    Federated(PathBuf),
    /// A client secret.
    Secret(PathBuf),
    /// A certificate with its key.
    Certificate(CertificateFiles),
}

/// The kind of a proof: the authority's errors mean different things to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Proof::Federated`]
    Federated,
    /// [`Proof::Secret`]
    Secret,
    /// [`Proof::Certificate`]
    Certificate,
}

impl Proof {
    /// The application and the proof of a credential; none for a password, which no token is had with.
    pub fn of(credential: &Credential) -> Option<(String, Self)> {
        match credential {
            Credential::WorkloadIdentity { client_id, token_file } => {
                Some((client_id.clone(), Self::Federated(token_file.clone())))
            }
            Credential::ClientSecret { client_id, secret_file } => {
                Some((client_id.clone(), Self::Secret(secret_file.clone())))
            }
            Credential::ClientCertificate { client_id, files } => {
                Some((client_id.clone(), Self::Certificate(files.clone())))
            }
            Credential::Password { .. } => None,
        }
    }

    /// Reads the proof as it is now.
    ///
    /// # Errors
    /// With a reason that says what is missing or of no use.
    pub async fn read(&self) -> Result<Presented, Failure> {
        match self {
            Self::Federated(path) => assertion::read(path).await.map(Presented::Federated),
            Self::Secret(path) => {
                let missing = |error| {
                    let what = format!("cannot read the client secret {}: {error}", path.display());
                    Failure::new(Reason::SecretMissing, what)
                };
                secret::read_file(path).await.map(Presented::Secret).map_err(missing)
            }
            Self::Certificate(files) => certificate(files).await.map(Presented::Certificate),
        }
    }
}

async fn certificate(files: &CertificateFiles) -> Result<Certificate, Failure> {
    let unusable = |error: CertificateError| Failure::new(error.reason(), error.to_string());
    let certificate = certificate::read(files).await.map_err(unusable)?;
    if !signed::can_sign(&certificate) {
        let what =
            "the key of the client certificate is not RSA, and Entra takes assertions signed with RSA only";
        return Err(Failure::new(Reason::CertificateInvalid, what));
    }
    match certificate.leaf.standing(clock::unix_seconds()) {
        reason @ Reason::CertificateExpired => Err(Failure::new(reason, certificate.leaf.to_string())),
        _ => Ok(certificate),
    }
}

/// A proof as it was read.
#[derive(Clone, Debug)]
pub enum Presented {
    /// The service-account token.
    Federated(Secret),
    /// The client secret.
    Secret(Secret),
    /// The certificate that signs.
    Certificate(Certificate),
}

impl Presented {
    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Federated(_) => Kind::Federated,
            Self::Secret(_) => Kind::Secret,
            Self::Certificate(_) => Kind::Certificate,
        }
    }

    /// What the authority was shown, in words, where a person has to compare it for `reason`.
    pub fn described_for(&self, reason: Reason) -> Option<String> {
        match (self, reason) {
            (
                Self::Federated(assertion),
                Reason::FederationNotTrusted | Reason::WaitingForPropagation | Reason::AssertionRejected,
            ) => Claims::of(assertion).map(|claims| format!("the pod's token has {claims}")),
            (
                Self::Certificate(certificate),
                Reason::CertificateNotRegistered | Reason::AssertionRejected,
            ) => Some(format!("{} with thumbprint {}", certificate.leaf, signed::thumbprint(certificate))),
            _ => None,
        }
    }

    /// Takes what is secret in it out of text that the authority wrote.
    pub fn redact(&self, text: &str) -> String {
        match self {
            Self::Federated(secret) | Self::Secret(secret) => secret.redact(text),
            // The key never leaves; what it signed is long enough to be noticed by its shape.
            Self::Certificate(_) => text.to_owned(),
        }
    }
}

/// Whether the files hold the same as before.
impl PartialEq for Presented {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Federated(one), Self::Federated(other)) | (Self::Secret(one), Self::Secret(other)) => {
                one == other
            }
            (Self::Certificate(one), Self::Certificate(other)) => one.signer.cert == other.signer.cert,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::certificate::tests::{files, issue};

    #[test]
    fn a_password_is_no_proof_for_a_token() {
        assert_eq!(Proof::of(&Credential::Password { password_file: "/c/secret".into() }), None);
    }

    #[tokio::test]
    async fn a_missing_client_secret_is_named() {
        let failure = Proof::Secret("/nonexistent/secret".into()).read().await.unwrap_err();
        assert_eq!(failure.reason, Reason::SecretMissing);
        assert!(failure.message.contains("/nonexistent/secret"), "{failure}");
    }

    #[tokio::test]
    async fn a_missing_certificate_and_one_of_another_key_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let proof = Proof::Certificate(files(directory.path()));
        assert_eq!(proof.read().await.unwrap_err().reason, Reason::CertificateMissing);
        std::fs::write(directory.path().join("tls.crt"), "x").unwrap();
        std::fs::write(directory.path().join("tls.key"), "x").unwrap();
        assert_eq!(proof.read().await.unwrap_err().reason, Reason::CertificateInvalid);
    }

    #[tokio::test]
    async fn an_elliptic_curve_key_is_refused_with_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = issue(&["a.example"], KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        std::fs::write(directory.path().join("tls.crt"), chain).unwrap();
        std::fs::write(directory.path().join("tls.key"), key).unwrap();
        let failure = Proof::Certificate(files(directory.path())).read().await.unwrap_err();
        assert_eq!(failure.reason, Reason::CertificateInvalid);
        assert!(failure.message.contains("not RSA"), "{failure}");
    }
}
