//! What an application proves itself with at the token endpoint, from the files that the kubelet keeps.
//!
//! Owns reading them, each time they are needed, since they are renewed and rotated, and saying what was presented
//! without showing it. Refuses to know how it is sent and what the authority makes of it.

use std::path::PathBuf;

use async_trait::async_trait;
pub use mailroute_entra::Kind;
use mailroute_entra::Shown;
use mailroute_entra::federated::{Assertion, Federated};
use mailroute_route::condition::Reason;
use mailroute_route::file::{Authority, CertificateFiles, Credential};

use super::Failure;
use super::signed::{self, Statement};
use crate::clock;
use crate::net::certificate::{self, Certificate, CertificateError};
use crate::secret::{self, Secret};

/// Where the proof is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A projected service-account token.
    Federated(Federated),
    /// A client secret.
    Secret(PathBuf),
    /// A certificate with its key.
    Certificate(CertificateFiles),
}

impl Proof {
    /// The application and the proof of a credential; none for a password, which no token is had with, and for the
    /// operator's identity, which the operator proves.
    pub fn of(credential: &Credential) -> Option<(String, Self)> {
        match credential {
            Credential::WorkloadIdentity { client_id, token_file } => {
                let proof = Federated { file: token_file.clone(), whose: "the pod's" };
                Some((client_id.clone(), Self::Federated(proof)))
            }
            Credential::ClientSecret { client_id, secret_file } => {
                Some((client_id.clone(), Self::Secret(secret_file.clone())))
            }
            Credential::ClientCertificate { client_id, files } => {
                Some((client_id.clone(), Self::Certificate(files.clone())))
            }
            Credential::Operator { .. } | Credential::Password { .. } => None,
        }
    }
}

#[async_trait]
impl mailroute_entra::Proof for Proof {
    type Presented = Presented;

    async fn read(&self) -> Result<Presented, Failure> {
        match self {
            Self::Federated(proof) => proof.read().await.map(Presented::Federated),
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
    Federated(Assertion),
    /// The client secret.
    Secret(Secret),
    /// The certificate that signs.
    Certificate(Certificate),
}

impl mailroute_entra::Presented for Presented {
    fn kind(&self) -> Kind {
        match self {
            Self::Federated(_) => Kind::Federated,
            Self::Secret(_) => Kind::Secret,
            Self::Certificate(_) => Kind::Certificate,
        }
    }

    fn shown(&self, authority: &Authority, client_id: &str) -> Option<Shown> {
        match self {
            Self::Federated(assertion) => assertion.shown(authority, client_id),
            Self::Secret(secret) => Some(Shown::Secret(secret.clone())),
            Self::Certificate(certificate) => {
                let statement = Statement {
                    audience: &format!("https://{}/{}/oauth2/v2.0/token", authority.host, authority.tenant),
                    client_id,
                    now: clock::unix_seconds(),
                    nonce: clock::nonce(),
                };
                signed::sign(certificate, &statement).map(Shown::Assertion)
            }
        }
    }

    fn described_for(&self, reason: Reason) -> Option<String> {
        match (self, reason) {
            (Self::Federated(assertion), reason) => assertion.described_for(reason),
            (
                Self::Certificate(certificate),
                Reason::CertificateNotRegistered | Reason::AssertionRejected,
            ) => Some(format!("{} with thumbprint {}", certificate.leaf, signed::thumbprint(certificate))),
            _ => None,
        }
    }

    fn redact(&self, text: &str) -> String {
        match self {
            Self::Federated(assertion) => assertion.redact(text),
            Self::Secret(secret) => secret.redact(text),
            // The key never leaves; what it signed is long enough to be noticed by its shape.
            Self::Certificate(_) => text.to_owned(),
        }
    }
}

/// Whether the files hold the same as before.
impl PartialEq for Presented {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Federated(one), Self::Federated(other)) => one == other,
            (Self::Secret(one), Self::Secret(other)) => one == other,
            (Self::Certificate(one), Self::Certificate(other)) => one.signer.cert == other.signer.cert,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailroute_entra::aadsts::ErrorAnswer;
    use mailroute_entra::{Presented as _, Proof as _};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::super::signed::tests::rsa;
    use super::*;
    use crate::net::certificate::tests::{files, issue};

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

    #[test]
    fn an_unregistered_certificate_is_named_with_its_thumbprint() {
        let (chain, key) = rsa();
        let read = certificate::parse(&files(Path::new("/c")), chain.as_bytes(), key.as_bytes()).unwrap();
        let thumbprint = signed::thumbprint(&read);
        let shown = Presented::Certificate(read).described_for(Reason::CertificateNotRegistered).unwrap();
        assert!(shown.ends_with(&format!("thumbprint {thumbprint}")), "{shown}");
    }

    #[test]
    fn an_echoed_client_secret_is_not_passed_on() {
        let secret = "canary~Secret.8Q+ value";
        // Once more where the text is cut.
        let padding = "xy ".repeat(47);
        let body = serde_json::json!({
            "error": format!("invalid_client {secret}"),
            "error_description":
                format!("AADSTS7000215: Invalid client secret {secret} or canary~Secret.8Q%2B+value {padding} {secret}"),
            "error_codes": [7_000_215],
        });
        let presented = Presented::Secret(Secret::new(secret.into()));
        let answer = ErrorAnswer::parse(401, body.to_string().as_bytes());
        let summary = answer.summary(|text| presented.redact(text));
        assert!(summary.contains("AADSTS7000215") && !summary.contains("canary"), "{summary}");
    }
}
