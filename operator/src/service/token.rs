//! HTTP in and out of the broker: reads one request for a token, and answers with one or with the reason why not.
//!
//! Each grant and each refusal to a known pod is one line in the log, `token granted` or `token refused`. Decides nothing itself: the
//! authenticator says who calls, the settings say who may have a token, and Entra issues it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use mailroute_entra::{Failure, Token, clock};
use mailroute_operator_core::reports::ReportingPod;
use mailroute_operator_core::resolve::operator_identity::IdentityNotAllowed;
use mailroute_route::condition::Reason;
use mailroute_route::control::{
    MAX_MESSAGE_BYTES, MAX_TOKEN_REQUEST_BYTES, TOKEN_PATH, TokenRefusal, TokenReply, TokenRequest,
};
use tokio::time::timeout;

use super::token_cache::TokenCache;
use crate::cache::route::RouteStore;
use crate::cache::watch::filled;
use crate::lock;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimit;
use crate::service::authenticate::{self, Authenticator};
use crate::service::report::bearer;

/// A request that takes longer than this is broken off, apart from the wait for Entra.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait of a pod for Entra. The exchange continues, and its result serves the next request.
const PATIENCE: Duration = Duration::from_secs(15);

/// Requests of one pod that may come at once. A sidecar asks once an hour; after trouble it asks again after one second, two,
/// four, and so on.
const BURST: u32 = 10;

/// Time after which one more is allowed. Also what a pod that asks too often is told to wait.
const REFILL: Duration = Duration::from_secs(10);

/// What the service needs.
pub struct TokenService {
    /// Checks who calls.
    pub authenticator: Arc<Authenticator>,
    /// Pods with the label, as watched.
    pub pods: Store<Pod>,
    /// Routes, as watched.
    pub routes: RouteStore,
    /// The tokens.
    pub token_cache: Arc<TokenCache>,
    /// How often each pod may ask.
    pub rate: Mutex<RateLimit>,
    /// Counts what became of requests.
    pub metrics: Metrics,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("send the projected token as Authorization: Bearer")]
    NoToken,
    #[error(transparent)]
    ReportingPod(#[from] authenticate::Error),
    #[error("too many requests for a token from this pod")]
    TooOften,
    #[error("the body is larger than {MAX_TOKEN_REQUEST_BYTES} bytes, or incomplete")]
    Body,
    #[error("the body is not a request for a token: {0}")]
    NotARequest(#[source] serde_json::Error),
    #[error("the operator has just started and does not know all pods and routes yet")]
    NotSynced,
    #[error(
        "the pod's label mailroute.dev/route does not name the requested route, or the pod lacks the sidecar of that route"
    )]
    NotItsRoute,
    #[error("there is no such MailRoute in the pod's namespace")]
    NoRoute,
    #[error("the MailRoute does not use the operator's identity")]
    NotLent,
    #[error(transparent)]
    NotAllowed(#[from] IdentityNotAllowed),
    #[error("the request took too long to arrive or to check")]
    TooSlow,
    #[error("{0}")]
    Entra(Failure),
}

/// A request of a known pod.
struct Asked {
    caller: ReportingPod,
    request: TokenRequest,
}

/// How often one pod may ask.
pub fn rate() -> RateLimit {
    RateLimit::new(BURST, REFILL)
}

/// The routes of the service.
pub fn router(service: Arc<TokenService>) -> Router {
    Router::new().route(TOKEN_PATH, post(ask)).with_state(service)
}

async fn ask(State(service): State<Arc<TokenService>>, request: Request) -> Response {
    service.handle(request).await
}

impl TokenService {
    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let asked = timeout(DEADLINE, self.asked(&head, body)).await;
        let answer = match asked.unwrap_or(Err(TokenError::TooSlow)) {
            Ok(asked) => {
                let granted = self.grant(&asked).await;
                audit(&asked, &granted);
                granted
            }
            Err(refusal) => {
                tracing::debug!(outcome = refusal.label(), error = %refusal, "no token issued");
                Err(refusal)
            }
        };
        self.metrics.token_asked(answer.as_ref().map_or_else(TokenError::label, |_| "granted"));
        answer.map_or_else(IntoResponse::into_response, |token| handed_out(&token))
    }

    /// The cheap refusals come first: the body of an unknown caller is not read.
    async fn asked(&self, head: &Parts, body: Body) -> Result<Asked, TokenError> {
        let (token, from) = bearer(head).ok_or(TokenError::NoToken)?;
        let caller = self.authenticator.caller(token, from).await?;
        if !lock(&self.rate).allows(&caller.uid, Instant::now()) {
            return Err(TokenError::TooOften);
        }
        let body = to_bytes(body, MAX_TOKEN_REQUEST_BYTES).await.map_err(|_| TokenError::Body)?;
        let request = serde_json::from_slice(&body).map_err(TokenError::NotARequest)?;
        // What is not known yet is waited for until the deadline.
        let known = filled(&self.pods).await && filled(&self.routes).await;
        if known { Ok(Asked { caller, request }) } else { Err(TokenError::NotSynced) }
    }

    async fn grant(&self, Asked { caller, request }: &Asked) -> Result<Token, TokenError> {
        if !authenticate::is_pod_of(caller, &self.pods, &request.route) {
            return Err(TokenError::NotItsRoute);
        }
        let route = self.routes.get(&ObjectRef::new(&request.route).within(&caller.namespace));
        let route = route.ok_or(TokenError::NoRoute)?;
        let lent = route.resolution().identity.as_ref().map_err(Clone::clone)?;
        let application = lent.as_ref().ok_or(TokenError::NotLent)?;
        let token = timeout(PATIENCE, self.token_cache.token(application, request.refused.as_deref()));
        token.await.unwrap_or_else(|_| Err(late())).map_err(TokenError::Entra)
    }
}

fn late() -> Failure {
    let what = format!("Entra has not answered the operator within {} seconds", PATIENCE.as_secs());
    Failure::new(Reason::TokenServiceUnavailable, what)
}

/// Logs who got a token and who did not; never the token.
fn audit(Asked { caller, request }: &Asked, granted: &Result<Token, TokenError>) {
    let ReportingPod { namespace, pod, uid } = caller;
    // A pod can write what it likes there.
    let route = &request.route[..request.route.floor_char_boundary(63)];
    match granted {
        Ok(token) => {
            let expires = expiry(token);
            tracing::info!(namespace, pod, uid, route, %expires, "token granted");
        }
        Err(refusal) => {
            let (outcome, error) = (refusal.label(), refusal.to_string());
            tracing::warn!(namespace, pod, uid, route, outcome, error, "token refused");
        }
    }
}

fn expiry(token: &Token) -> Timestamp {
    let left = SignedDuration::try_from(left(token)).unwrap_or_default();
    let end = Timestamp::now().saturating_add(left).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(end.as_second()).unwrap_or(end)
}

fn left(token: &Token) -> Duration {
    token.expires.saturating_duration_since(clock::now())
}

fn handed_out(token: &Token) -> Response {
    let expires_in = left(token).as_secs();
    kept_by_nobody(
        Json(TokenReply { access_token: token.secret.expose().to_owned(), expires_in }).into_response(),
    )
}

/// Forbids caches to store the answer (RFC 6749 §5.1).
fn kept_by_nobody(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

impl TokenError {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "unauthenticated",
            Self::ReportingPod(error) => error.label(),
            Self::NotSynced => "unavailable",
            Self::TooOften => "throttled",
            Self::Body | Self::NotARequest(_) => "malformed",
            Self::NotItsRoute | Self::NoRoute => "forbidden",
            Self::NotLent | Self::NotAllowed(_) => "not_allowed",
            Self::TooSlow => "slow",
            Self::Entra(_) => "not_issued",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ReportingPod(error) => error.status(),
            Self::NotSynced => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotARequest(_) => StatusCode::BAD_REQUEST,
            Self::NotItsRoute | Self::NoRoute | Self::NotLent | Self::NotAllowed(_) => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Entra(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the route's condition shows.
    fn reason(&self) -> Reason {
        match self {
            Self::Entra(failure) => failure.reason,
            Self::NoToken
            | Self::ReportingPod(
                authenticate::Error::Rejected
                | authenticate::Error::Unknown
                | authenticate::Error::Elsewhere(_),
            )
            | Self::NotItsRoute
            | Self::NoRoute
            | Self::NotLent
            | Self::NotAllowed(_) => Reason::OperatorRefused,
            Self::ReportingPod(_)
            | Self::TooOften
            | Self::Body
            | Self::NotARequest(_)
            | Self::NotSynced
            | Self::TooSlow => Reason::OperatorUnavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Entra(failure) => failure.retry_after,
            Self::TooOften => Some(REFILL),
            _ => None,
        }
    }

    fn message(&self) -> String {
        let mut message = match self {
            // The reason is told beside it.
            Self::Entra(failure) => failure.message.clone(),
            other => other.to_string(),
        };
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let retry_after_seconds = self.retry_after().map(|wait| wait.as_secs());
        let body = TokenRefusal { reason: self.reason(), message: self.message(), retry_after_seconds };
        kept_by_nobody((self.status(), Json(body)).into_response())
    }
}
