//! One exchange at the token endpoint: a proof in, an access token out.
//!
//! The exchange itself is `azure_identity`'s; this file owns what stands around it, because of how that crate behaves:
//! * its cache cannot be cleared, so the credential is built anew for each exchange and [`super::store`] keeps the token;
//! * its retries are many and long, so they are off;
//! * it loses the HTTP status of an answer that is not JSON, and `Retry-After`, so what lies under it notes both;
//! * it remembers an assertion for minutes, and signs its own with what Microsoft no longer recommends, so it is handed
//!   ours.
//!
//! Refuses to know where the proof is from, how the authority is connected to ([`Transport`]) and what a refusal means.
//! Neither the proof nor an answer's body ever reaches an error or a log.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret as AzureSecret, TokenCredential};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{
    self, AsyncRawResponse, Body, ClientMethodOptions, ClientOptions, HttpClient, Request, RetryOptions,
    StatusCode,
};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use bytes::Bytes;
use mailroute_route::condition::Reason;
use mailroute_route::file::Authority;

use crate::aadsts::ErrorAnswer;
use crate::clock::{self, Instant};
use crate::secret::{Secret, scrub};
use crate::{Failure, Shown, Token};

/// A POST to a token endpoint.
pub struct Post<'a> {
    /// Host of the authority; also the name that its certificate must carry.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Path of the token endpoint.
    pub path: &'a str,
    /// A form, `application/x-www-form-urlencoded`. Holds the proof, so this type has no `Debug`.
    pub body: Bytes,
}

/// What came back, whatever its status. May hold a token, so it has no `Debug`.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Content.
    pub body: Bytes,
}

/// How an authority is reached.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync {
    /// Makes the POST over TLS, verified, within a bounded time and with a bounded answer.
    ///
    /// # Errors
    /// When no complete answer arrives, in words without anything of the request; usually [`unavailable`].
    async fn post(&self, post: Post<'_>) -> Result<Answer, Failure>;
}

/// The authority does not answer as it should.
pub fn unavailable(what: String) -> Failure {
    Failure::new(Reason::TokenServiceUnavailable, what)
}

/// Asks `authority` for a token for the application `client_id`, which proves itself with what is `shown`.
pub(crate) async fn exchange(
    authority: &Authority,
    client_id: &str,
    shown: Option<Shown>,
    transport: &Arc<dyn Transport>,
) -> Result<Token, Refusal> {
    let wire = Arc::new(Wire { transport: Arc::clone(transport), seen: Mutex::default() });
    let obtained = clock::now();
    let outcome = match credential(authority, client_id, shown, &wire) {
        Ok(credential) => credential.get_token(&[&authority.scope], None).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(token) => Ok(into_token(&token, obtained)),
        Err(error) => Err(wire.refusal(&error)),
    }
}

fn credential(
    authority: &Authority,
    client_id: &str,
    shown: Option<Shown>,
    wire: &Arc<Wire>,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let (tenant, client_id) = (authority.tenant.clone(), client_id.to_owned());
    let client_options = client_options(authority, wire);
    let assertion = match shown {
        Some(Shown::Secret(secret)) => {
            let secret = AzureSecret::new(secret.expose().to_owned());
            let options = Some(ClientSecretCredentialOptions { client_options });
            return Ok(ClientSecretCredential::new(&tenant, client_id, secret, options)?);
        }
        Some(Shown::Assertion(assertion)) => assertion,
        None => {
            return Err(Error::with_message(ErrorKind::Credential, "the certificate's key cannot sign"));
        }
    };
    let options = Some(ClientAssertionCredentialOptions { client_options });
    Ok(ClientAssertionCredential::new(tenant, client_id, Given(assertion), options)?)
}

fn client_options(authority: &Authority, wire: &Arc<Wire>) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = format!("https://{}", authority.host);
    ClientOptions {
        retry: RetryOptions::none(),
        transport: Some(http::Transport::new(Arc::clone(wire) as Arc<dyn HttpClient>)),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        ..ClientOptions::default()
    }
}

/// Its life is counted from the question, as the authority's counting began before its answer came.
fn into_token(token: &AccessToken, obtained: Instant) -> Token {
    let life = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or(Duration::ZERO);
    Token { secret: Secret::new(token.token.secret().to_owned()), obtained, expires: obtained + life }
}

/// An exchange that brought no token.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The authority answered something else.
    Answer { answer: ErrorAnswer, retry_after: Option<Duration> },
    /// There was no answer to read.
    Failure(Failure),
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

/// The connection of one exchange, and what came over it.
struct Wire {
    transport: Arc<dyn Transport>,
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

    /// What stood in the way: what came back, or else what `azure_identity` says before it sends anything.
    fn refusal(&self, error: &Error) -> Refusal {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.unwrap_or_else(|| {
            let reason = match error.kind() {
                ErrorKind::DataConversion => Reason::TokenServiceUnavailable,
                _ => Reason::CredentialRejected,
            };
            Refusal::Failure(Failure::new(reason, scrub(&error.to_string())))
        })
    }

    async fn post(&self, request: &Request) -> Result<Answer, Failure> {
        let url = request.url();
        let Some(host) = url.host_str() else {
            return Err(unavailable("the authority has no host".into()));
        };
        let Body::Bytes(body) = request.body() else {
            return Err(unavailable("the request cannot be sent".into()));
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let post = Post { host, port, path: url.path(), body: Bytes::clone(body) };
        self.transport.post(post).await
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
