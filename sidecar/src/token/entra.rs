//! One application at one token authority: reads its proof, makes the exchange, and says what stands in the way.
//!
//! Owns the one repetition that helps at once: a proof that was refused may have been replaced in its file meanwhile.
//! Refuses to know when a token is needed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::file::Authority;

use super::credential::{Presented, Proof};
use super::exchange::{Refusal, exchange};
use super::{Failure, Token, TokenSource};
use crate::clock::{self, Instant};

/// An application that can prove itself.
#[derive(Debug)]
pub struct Entra {
    authority: Authority,
    client_id: String,
    proof: Proof,
    /// Since when every exchange has failed for want of a federated credential.
    unmatched_since: Mutex<Option<Instant>>,
}

impl Entra {
    /// The application `client_id`, as `proof` proves it to `authority`.
    pub const fn new(authority: Authority, client_id: String, proof: Proof) -> Self {
        Self { authority, client_id, proof, unmatched_since: Mutex::new(None) }
    }

    /// How long every exchange has failed for want of a federated credential, this one included.
    fn unmatched_for(&self, unmatched: bool) -> Duration {
        let mut since = self.unmatched_since.lock().unwrap_or_else(PoisonError::into_inner);
        if !unmatched {
            *since = None;
            return Duration::ZERO;
        }
        clock::now() - *since.get_or_insert_with(clock::now)
    }

    fn explain(&self, refusal: Refusal, presented: &Presented) -> Failure {
        let (answer, retry_after) = match refusal {
            Refusal::Answer { answer, retry_after } => (answer, retry_after),
            Refusal::Failure(failure) => return failure,
        };
        let reason = answer.reason(presented.kind(), self.unmatched_for(answer.is_unmatched()));
        let mut message = answer.summary(|text| presented.redact(text));
        if let Some(shown) = presented.described_for(reason) {
            message = format!("{shown}; {message}");
        }
        Failure { reason, message, retry_after }
    }
}

/// Whether a newer proof may do better.
fn is_stale(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Answer { answer, .. } if answer.is_stale_proof())
}

#[async_trait]
impl TokenSource for Entra {
    async fn fetch(&self) -> Result<Token, Failure> {
        let mut presented = self.proof.read().await?;
        let mut outcome = exchange(&self.authority, &self.client_id, &presented).await;
        if outcome.as_ref().is_err_and(is_stale) {
            // The kubelet may have replaced the file in between.
            let newer = self.proof.read().await?;
            if newer != presented {
                presented = newer;
                outcome = exchange(&self.authority, &self.client_id, &presented).await;
            }
        }
        match outcome {
            Ok(token) => {
                self.unmatched_for(false);
                Ok(token)
            }
            Err(refusal) => Err(self.explain(refusal, &presented)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use mailroute_route::condition::Reason;

    use super::super::aadsts::{ErrorAnswer, PROPAGATION};
    use super::super::signed::tests::rsa;
    use super::*;
    use crate::certificate;
    use crate::certificate::tests::files;
    use crate::secret::Secret;

    fn entra(proof: Proof) -> Entra {
        let authority = Authority {
            host: "127.0.0.1:1".into(),
            tenant: "contoso.com".into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
        };
        Entra::new(authority, "1b2c3d4e".into(), proof)
    }

    fn federated(path: &Path) -> Entra {
        entra(Proof::Federated(path.into()))
    }

    fn refused(status: u16, body: &str) -> Refusal {
        Refusal::Answer { answer: ErrorAnswer::parse(status, body.as_bytes()), retry_after: None }
    }

    #[tokio::test]
    async fn a_missing_assertion_is_its_own_reason() {
        let failure = federated(Path::new("/nonexistent/token")).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::AssertionUnavailable);
    }

    #[tokio::test]
    async fn an_authority_out_of_reach_is_unavailable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "e30.e30.c2ln").unwrap();
        for proof in [Proof::Federated(file.path().into()), Proof::Secret(file.path().into())] {
            let failure = entra(proof).fetch().await.unwrap_err();
            assert_eq!(failure.reason, Reason::TokenServiceUnavailable, "{failure}");
            assert!(failure.message.contains("cannot connect to 127.0.0.1"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_malformed_tenant_is_said_without_sending_anything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "e30.e30.c2ln").unwrap();
        let mut entra = federated(file.path());
        entra.authority.tenant = "contoso.com/../x".into();
        let failure = entra.fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::CredentialRejected, "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_propagation_ends_after_a_quarter_of_an_hour() {
        let entra = federated(&PathBuf::new());
        let refusal = || refused(401, r#"{"error":"invalid_client","error_codes":[700213]}"#);
        let assertion = Presented::Federated(Secret::new(String::new()));
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::WaitingForPropagation);
        tokio::time::advance(PROPAGATION).await;
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::FederationNotTrusted);
        entra.unmatched_for(false);
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::WaitingForPropagation);
    }

    #[test]
    fn an_unregistered_certificate_is_named_with_its_thumbprint() {
        let (chain, key) = rsa();
        let read = certificate::parse(&files(Path::new("/c")), chain.as_bytes(), key.as_bytes()).unwrap();
        let thumbprint = super::super::signed::thumbprint(&read);
        let refusal = refused(
            401,
            r#"{"error":"invalid_client","error_codes":[700027],"error_description":"AADSTS700027: x"}"#,
        );
        let failure = federated(Path::new("")).explain(refusal, &Presented::Certificate(read));
        assert_eq!(failure.reason, Reason::CertificateNotRegistered);
        assert!(failure.message.contains(&format!("thumbprint {thumbprint}; HTTP 401")), "{failure}");
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
        let failure = federated(Path::new("")).explain(refused(401, &body.to_string()), &presented);
        assert_eq!(failure.reason, Reason::SecretRejected);
        assert!(!failure.message.contains("canary"), "{failure}");
    }
}
