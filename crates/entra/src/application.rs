//! One application at one token authority: reads its proof, makes the exchange, and says what stands in the way.
//!
//! Owns the one repetition that helps at once: a proof that was refused may have been replaced in its file meanwhile.
//! Refuses to know when a token is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::file::Authority;

use crate::clock::{self, Instant};
use crate::exchange::{Refusal, Transport, exchange};
use crate::{Failure, Presented, Proof, Token, TokenSource};

/// An application that can prove itself.
#[derive(Debug)]
pub struct Application<P> {
    authority: Authority,
    client_id: String,
    proof: P,
    transport: Arc<dyn Transport>,
    /// Since when every exchange has failed for want of a federated credential.
    unmatched_since: Mutex<Option<Instant>>,
}

impl<P: Proof> Application<P> {
    /// The application `client_id`, as `proof` proves it to `authority`, which is reached by `transport`.
    pub const fn new(
        authority: Authority,
        client_id: String,
        proof: P,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self { authority, client_id, proof, transport, unmatched_since: Mutex::new(None) }
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

    fn explain(&self, refusal: Refusal, presented: &P::Presented) -> Failure {
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

    async fn exchange(&self, presented: &P::Presented) -> Result<Token, Refusal> {
        let shown = presented.shown(&self.authority, &self.client_id);
        exchange(&self.authority, &self.client_id, shown, &self.transport).await
    }
}

/// Whether a newer proof may do better.
fn is_stale(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Answer { answer, .. } if answer.is_stale_proof())
}

#[async_trait]
impl<P: Proof> TokenSource for Application<P> {
    async fn fetch(&self) -> Result<Token, Failure> {
        let mut presented = self.proof.read().await?;
        let mut outcome = self.exchange(&presented).await;
        if outcome.as_ref().is_err_and(is_stale) {
            // The kubelet may have replaced the file in between.
            let newer = self.proof.read().await?;
            if newer != presented {
                presented = newer;
                outcome = self.exchange(&presented).await;
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
    use std::path::Path;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use mailroute_route::condition::Reason;

    use super::*;
    use crate::aadsts::{ErrorAnswer, PROPAGATION};
    use crate::exchange::{Answer, Post, unavailable};
    use crate::federated::Federated;

    /// An authority that cannot be reached.
    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl Transport for Nowhere {
        async fn post(&self, post: Post<'_>) -> Result<Answer, Failure> {
            Err(unavailable(format!("cannot connect to {}:{}", post.host, post.port)))
        }
    }

    fn application(tenant: &str, file: &Path) -> Application<Federated> {
        let authority = Authority {
            host: "login.example:8443".into(),
            tenant: tenant.into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
            proxy: None,
        };
        let proof = Federated { file: file.into(), whose: "the pod's" };
        Application::new(authority, "1b2c3d4e".into(), proof, Arc::new(Nowhere))
    }

    fn assertion() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let claims = r#"{"aud":"api://AzureADTokenExchange","iss":"i","sub":"s"}"#;
        std::fs::write(file.path(), format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap();
        file
    }

    fn unmatched() -> Refusal {
        let body = br#"{"error":"invalid_client","error_codes":[700213]}"#;
        Refusal::Answer { answer: ErrorAnswer::parse(401, body), retry_after: None }
    }

    #[tokio::test]
    async fn a_missing_assertion_is_its_own_reason() {
        let failure = application("contoso.com", Path::new("/nonexistent/token")).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::AssertionUnavailable);
    }

    #[tokio::test]
    async fn an_authority_out_of_reach_is_unavailable() {
        let file = assertion();
        let failure = application("contoso.com", file.path()).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::TokenServiceUnavailable, "{failure}");
        assert!(failure.message.contains("cannot connect to login.example:8443"), "{failure}");
    }

    #[tokio::test]
    async fn a_malformed_tenant_is_said_without_sending_anything() {
        let file = assertion();
        let failure = application("contoso.com/../x", file.path()).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::CredentialRejected, "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_propagation_ends_after_a_quarter_of_an_hour() {
        let file = assertion();
        let application = application("contoso.com", file.path());
        let shown = application.proof.read().await.unwrap();
        assert_eq!(application.explain(unmatched(), &shown).reason, Reason::WaitingForPropagation);
        tokio::time::advance(PROPAGATION).await;
        assert_eq!(application.explain(unmatched(), &shown).reason, Reason::FederationNotTrusted);
        application.unmatched_for(false);
        assert_eq!(application.explain(unmatched(), &shown).reason, Reason::WaitingForPropagation);
    }
}
