//! One exchange with Entra: the projected service-account token in, an access token out.
//!
//! The exchange itself is `azure_identity`'s; this file owns what stands around it, because of how that crate behaves:
//! * its cache cannot be cleared, so the credential is built anew for each exchange and [`super::store`] keeps the token;
//! * its retries are many and long, so they are off;
//! * it loses the HTTP status of an answer that is not JSON, and `Retry-After`, so our transport notes both;
//! * it remembers the assertion for minutes, so ours is read from the file each time.
//!
//! Refuses to know when a token is needed. Neither the assertion nor an answer's body ever reaches an error or a log.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{
    AsyncRawResponse, Body, ClientMethodOptions, ClientOptions, HttpClient, Request, RetryOptions,
    StatusCode, Transport,
};
use azure_core::time::OffsetDateTime;
use azure_identity::{ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions};
use bytes::Bytes;
use mailroute_route::condition::Reason;
use mailroute_route::file::Authority;

use super::aadsts::ErrorAnswer;
use super::assertion::{self, Claims};
use super::{Failure, Token, TokenSource};
use crate::clock::{self, Instant};
use crate::net::https::{self, Post};
use crate::net::tls::Trust;
use crate::secret::Secret;

/// Workload identity at one authority.
#[derive(Debug)]
pub struct Entra {
    authority: Authority,
    client_id: String,
    token_file: PathBuf,
    /// Since when every exchange has failed for want of a federated credential.
    unmatched_since: Mutex<Option<Instant>>,
}

impl Entra {
    /// The identity of `client_id`, proven by the assertion in `token_file`.
    pub fn new(authority: Authority, client_id: String, token_file: PathBuf) -> Self {
        Self { authority, client_id, token_file, unmatched_since: Mutex::new(None) }
    }

    /// One exchange with the given assertion.
    async fn exchange(&self, assertion: &Secret) -> Result<Token, Refusal> {
        let wire = Arc::new(Wire {
            trust: Trust::from_file(self.authority.ca_file.as_ref()),
            seen: Mutex::default(),
        });
        let obtained = clock::now();
        let outcome = match self.credential(assertion, &wire) {
            Ok(credential) => credential.get_token(&[&self.authority.scope], None).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(token) => Ok(into_token(&token, obtained)),
            Err(error) => Err(wire.refusal(&error)),
        }
    }

    fn credential(
        &self,
        assertion: &Secret,
        wire: &Arc<Wire>,
    ) -> azure_core::Result<Arc<ClientAssertionCredential<Given>>> {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = format!("https://{}", self.authority.host);
        let client_options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::clone(wire) as Arc<dyn HttpClient>)),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        };
        ClientAssertionCredential::new(
            self.authority.tenant.clone(),
            self.client_id.clone(),
            Given(assertion.clone()),
            Some(ClientAssertionCredentialOptions { client_options }),
        )
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

    fn explain(&self, refusal: Refusal, assertion: &Secret) -> Failure {
        let (answer, retry_after) = match refusal {
            Refusal::Answer { answer, retry_after } => (answer, retry_after),
            Refusal::Failure(failure) => return failure,
        };
        let reason = answer.reason(self.unmatched_for(answer.is_unmatched()));
        let mut message = answer.summary();
        if let (true, Some(claims)) = (names_assertion(reason), Claims::of(assertion)) {
            message = format!("the pod's token has {claims}; {message}");
        }
        Failure { reason, message, retry_after }
    }
}

/// Whether a person has to compare the assertion's claims with a federated credential.
const fn names_assertion(reason: Reason) -> bool {
    matches!(reason, Reason::FederationNotTrusted | Reason::WaitingForPropagation | Reason::AssertionRejected)
}

#[async_trait]
impl TokenSource for Entra {
    async fn fetch(&self) -> Result<Token, Failure> {
        let mut assertion = assertion::read(&self.token_file).await?;
        let mut outcome = self.exchange(&assertion).await;
        if outcome.as_ref().is_err_and(Refusal::is_stale_assertion) {
            // The kubelet may have renewed the file in between.
            let newer = assertion::read(&self.token_file).await?;
            if newer != assertion {
                assertion = newer;
                outcome = self.exchange(&assertion).await;
            }
        }
        match outcome {
            Ok(token) => {
                self.unmatched_for(false);
                Ok(token)
            }
            Err(refusal) => Err(self.explain(refusal, &assertion)),
        }
    }
}

/// Its life is counted from the question, as the authority's counting began before its answer came.
fn into_token(token: &AccessToken, obtained: Instant) -> Token {
    let life = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or(Duration::ZERO);
    Token { secret: Secret::new(token.token.secret().to_owned()), obtained, expires: obtained + life }
}

/// An exchange that brought no token.
#[derive(Debug)]
enum Refusal {
    /// The authority answered something else.
    Answer { answer: ErrorAnswer, retry_after: Option<Duration> },
    /// There was no answer to read.
    Failure(Failure),
}

impl Refusal {
    fn is_stale_assertion(&self) -> bool {
        matches!(self, Self::Answer { answer, .. } if answer.is_stale_assertion())
    }
}

/// The assertion of this exchange, as `azure_identity` asks for it.
#[derive(Debug)]
struct Given(Secret);

#[async_trait]
impl ClientAssertion for Given {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

/// The transport of one exchange, and what it saw.
struct Wire {
    trust: Trust,
    seen: Mutex<Option<Refusal>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn note(&self, refusal: Refusal) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// What stood in the way: what the transport saw, or else what `azure_identity` says before it sends anything.
    fn refusal(&self, error: &Error) -> Refusal {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.unwrap_or_else(|| {
            let reason = match error.kind() {
                ErrorKind::DataConversion => Reason::TokenServiceUnavailable,
                _ => Reason::CredentialRejected,
            };
            Refusal::Failure(Failure::new(reason, crate::secret::scrub(&error.to_string())))
        })
    }

    async fn post(&self, request: &Request) -> Result<https::Answer, Failure> {
        let unavailable = |what: String| Failure::new(Reason::TokenServiceUnavailable, what);
        let url = request.url();
        let Some(host) = url.host_str() else {
            return Err(unavailable("the authority has no host".into()));
        };
        let Body::Bytes(body) = request.body() else {
            return Err(unavailable("the request cannot be sent".into()));
        };
        let post = Post {
            dial: host,
            port: url.port_or_known_default().unwrap_or(443),
            server_name: host,
            path: url.path(),
            content_type: "application/x-www-form-urlencoded",
            bearer: None,
            body: Bytes::clone(body),
        };
        https::post(post, &self.trust).await.map_err(|error| unavailable(error.to_string()))
    }
}

#[async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        match self.post(request).await {
            Ok(answer) => {
                let status = StatusCode::from(answer.status);
                let body = with_numeric_life(answer.body);
                // Noted for every answer: a success that cannot be read has no other trace.
                self.note(Refusal::Answer {
                    answer: ErrorAnswer::parse(answer.status, &body),
                    retry_after: answer.retry_after,
                });
                Ok(AsyncRawResponse::from_bytes(status, Headers::new(), body))
            }
            Err(failure) => {
                self.note(Refusal::Failure(failure));
                Err(Error::with_message(ErrorKind::Io, "the token endpoint could not be reached"))
            }
        }
    }
}

/// The lives of a token as the numbers they should be. Some authorities write them as text, which `azure_identity` does
/// not take.
fn with_numeric_life(body: Bytes) -> Bytes {
    let Ok(mut json) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body) else {
        return body;
    };
    let mut changed = false;
    for name in ["expires_in", "ext_expires_in"] {
        let Some(life) = json.get_mut(name) else { continue };
        if let Some(number) = life.as_str().and_then(|text| text.parse::<i64>().ok()) {
            *life = number.into();
            changed = true;
        }
    }
    if changed { serde_json::to_vec(&json).map_or(body, Bytes::from) } else { body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entra(token_file: PathBuf) -> Entra {
        let authority = Authority {
            host: "127.0.0.1:1".into(),
            tenant: "contoso.com".into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
        };
        Entra::new(authority, "1b2c3d4e".into(), token_file)
    }

    #[tokio::test]
    async fn a_missing_assertion_is_its_own_reason() {
        let failure = entra("/nonexistent/token".into()).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::AssertionUnavailable);
    }

    #[tokio::test]
    async fn an_authority_out_of_reach_is_unavailable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "e30.e30.c2ln").unwrap();
        let failure = entra(file.path().into()).fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::TokenServiceUnavailable, "{failure}");
        assert!(failure.message.contains("cannot connect to 127.0.0.1"), "{failure}");
    }

    #[tokio::test]
    async fn a_malformed_tenant_is_said_without_sending_anything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "e30.e30.c2ln").unwrap();
        let mut entra = entra(file.path().into());
        entra.authority.tenant = "contoso.com/../x".into();
        let failure = entra.fetch().await.unwrap_err();
        assert_eq!(failure.reason, Reason::CredentialRejected, "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_propagation_ends_after_a_quarter_of_an_hour() {
        let entra = entra(PathBuf::new());
        let refusal = || Refusal::Answer {
            answer: ErrorAnswer::parse(401, br#"{"error":"invalid_client","error_codes":[700213]}"#),
            retry_after: None,
        };
        let assertion = Secret::new(String::new());
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::WaitingForPropagation);
        tokio::time::advance(super::super::aadsts::PROPAGATION).await;
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::FederationNotTrusted);
        entra.unmatched_for(false);
        assert_eq!(entra.explain(refusal(), &assertion).reason, Reason::WaitingForPropagation);
    }

    #[test]
    fn a_life_written_as_text_becomes_a_number() {
        let body = with_numeric_life(Bytes::from_static(
            br#"{"access_token":"t","expires_in":"3599","ext_expires_in":"3599"}"#,
        ));
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&json["expires_in"], &json["ext_expires_in"]), (&3599.into(), &3599.into()));
        assert_eq!(json["access_token"], "t");
    }

    #[test]
    fn other_bodies_pass_unchanged() {
        for body in [&b"Too Many Requests"[..], br#"{"expires_in":3599}"#, br#"["x"]"#] {
            assert_eq!(with_numeric_life(Bytes::copy_from_slice(body)), body);
        }
    }
}
