//! Tokens had with the operator's identity: its control service hands them out, and nothing in the pod could ask Entra.
//!
//! Owns one question to the service and the meaning of its answer. Where the service is, is looked up in the configuration
//! at each question, since its address and its authority change while a token is in use. Refuses to know when a token is
//! needed: that is the store's, which goes on with the one it has while the operator is away.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mailroute_entra::{Failure, Token, TokenSource};
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::{TOKEN_PATH, TokenRefusal, TokenReply, TokenRequest};
use mailroute_route::file::ControlService;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::lock;
use crate::net::control_service::{self, plain};
use crate::net::https::Answer;
use crate::secret::Secret;

/// The operator, as a source of tokens.
pub struct Broker {
    config: watch::Receiver<Config>,
    /// Fingerprint of the token that the upstream refused last.
    refused: Mutex<Option<String>>,
}

impl Broker {
    /// Asks the control service that `config` names.
    pub const fn new(config: watch::Receiver<Config>) -> Self {
        Self { config, refused: Mutex::new(None) }
    }

    /// The name of the route and its control service.
    fn service(&self) -> Option<(String, ControlService)> {
        let config = self.config.borrow();
        let route = config.route.as_ref()?;
        Some((route.name.clone(), route.control.clone()?))
    }
}

#[async_trait]
impl TokenSource for Broker {
    async fn fetch(&self) -> Result<Token, Failure> {
        let nowhere = || unavailable("the route names no control service yet");
        let (route, service) = self.service().ok_or_else(nowhere)?;
        let refused = lock(&self.refused).clone();
        let request = serde_json::to_vec(&TokenRequest { route, refused });
        let body = Bytes::from(request.map_err(|error| unavailable(error.to_string()))?);
        let obtained = clock::now();
        let answer = control_service::post(&service, None, TOKEN_PATH, body).await;
        let reply = read(&answer.map_err(|error| unavailable(error.to_string()))?)?;
        Ok(Token {
            secret: Secret::new(reply.access_token),
            obtained,
            expires: obtained + Duration::from_secs(reply.expires_in),
        })
    }

    fn refused(&self, token: &Token) {
        *lock(&self.refused) = Some(fingerprint(&token.secret));
    }
}

/// What names a token without being one: the operator has the same token, and nobody else can tell it from this.
fn fingerprint(token: &Secret) -> String {
    let digest = digest(&SHA256, token.expose().as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(answer: &Answer) -> Result<TokenReply, Failure> {
    if answer.status == 200 {
        // The error would quote what it did not understand.
        return serde_json::from_slice(&answer.body)
            .map_err(|_| unavailable("the operator's answer is not understood"));
    }
    let status = answer.status;
    let refusal: TokenRefusal = serde_json::from_slice(&answer.body)
        .map_err(|_| unavailable(format!("the operator answered HTTP {status}")))?;
    if refusal.reason.condition() != ConditionType::CredentialReady || refusal.reason.holds() {
        return Err(unavailable(format!("the operator answered HTTP {status} {}", refusal.reason)));
    }
    let retry_after = refusal.retry_after_seconds.map(Duration::from_secs);
    Err(Failure { reason: refusal.reason, message: plain(&refusal.message), retry_after })
}

fn unavailable(what: impl Into<String>) -> Failure {
    Failure::new(Reason::OperatorUnavailable, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[tokio::test]
    async fn a_route_without_a_control_service_says_so() {
        let (_config, read) = watch::channel(Config::default());
        let failure = Broker::new(read).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::OperatorUnavailable);
        assert!(failure.message.contains("no control service"), "{failure}");
    }

    #[test]
    fn entras_error_passes_through_the_operator() {
        let body =
            r#"{"reason":"FederationNotTrusted","message":"HTTP 401 AADSTS700213\n","retryAfterSeconds":7}"#;
        let failure = read(&answer(502, body)).unwrap_err();
        assert_eq!(failure.reason, Reason::FederationNotTrusted);
        assert_eq!(
            (failure.message.as_str(), failure.retry_after),
            ("HTTP 401 AADSTS700213 ", Some(Duration::from_secs(7)))
        );
    }

    #[test]
    fn what_is_not_understood_is_an_operator_that_is_not_available() {
        for (status, body) in [
            (200, r#"{"accessToken": "canary"}"#),
            (404, ""),
            (502, r#"{"reason":"OfTomorrow","message":""}"#),
            (502, r#"{"reason":"SendAsDenied","message":""}"#),
            (502, r#"{"reason":"TokenAcquired","message":""}"#),
        ] {
            let failure = read(&answer(status, body)).unwrap_err();
            assert_eq!(failure.reason, Reason::OperatorUnavailable, "{status} {body}");
            assert!(!failure.message.contains("canary"), "{failure}");
        }
    }

    #[test]
    fn an_echoed_token_is_not_passed_on() {
        let body = format!(r#"{{"reason":"CredentialRejected","message":"{}"}}"#, "eyJhbGci".repeat(40));
        assert_eq!(read(&answer(502, &body)).unwrap_err().message, "[removed]");
    }
}
