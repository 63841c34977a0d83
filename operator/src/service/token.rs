//! HTTP in and out of the broker: reads one request for a token, and answers with one or with the reason why not.
//!
//! Each grant and each refusal to a known pod is one line in the log, `token granted` or `token refused`. Decides nothing itself: the
//! authenticator says who calls, the settings say who may have a token, and Entra issues it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use mailroute_entra::{Failure, Token, clock};
use mailroute_operator_core::reports::ReportingPod;
use mailroute_operator_core::resolve::operator_identity::IdentityNotAllowed;
use mailroute_route::condition::Reason;
use mailroute_route::control::{MAX_TOKEN_REQUEST_BYTES, TOKEN_PATH, TokenRefusal, TokenReply, TokenRequest};
use tokio::time::timeout;

use super::request::{Asked, Callers, RequestBounds, RequestError, answer, logged, shown};
use super::token_cache::TokenCache;
use crate::metrics::Metrics;

/// Longest wait of a pod for Entra. The exchange continues, and its result serves the next request.
const PATIENCE: Duration = Duration::from_secs(15);

/// A sidecar asks once an hour; after trouble it asks again after one second, two, four, and so on.
pub const BOUNDS: RequestBounds =
    RequestBounds { body: MAX_TOKEN_REQUEST_BYTES, burst: 10, refill: Duration::from_secs(10) };

/// What the service needs.
pub struct TokenService {
    /// Who may ask, within [`BOUNDS`].
    pub callers: Callers,
    /// The tokens.
    pub token_cache: Arc<TokenCache>,
    /// Counts what became of requests.
    pub metrics: Metrics,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the MailRoute does not use the operator's identity")]
    NotLent,
    #[error(transparent)]
    NotAllowed(#[from] IdentityNotAllowed),
    #[error("{0}")]
    Entra(Failure),
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
        let answered = match self.callers.asked(request).await {
            Ok(asked) => {
                let granted = self.grant(&asked).await;
                audit(&asked, &granted);
                granted
            }
            Err(refusal) => {
                tracing::debug!(outcome = refusal.label(), error = %refusal, "no token issued");
                Err(refusal.into())
            }
        };
        self.metrics.token_asked(answered.as_ref().map_or_else(TokenError::label, |_| "granted"));
        answered.map_or_else(IntoResponse::into_response, |token| handed_out(&token))
    }

    async fn grant(&self, Asked { caller, request }: &Asked<TokenRequest>) -> Result<Token, TokenError> {
        let route = self.callers.route(caller, &request.route)?;
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
fn audit(Asked { caller, request }: &Asked<TokenRequest>, granted: &Result<Token, TokenError>) {
    let ReportingPod { namespace, pod, uid } = caller;
    let route = logged(&request.route);
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
    answer(StatusCode::OK, TokenReply { access_token: token.secret.expose().to_owned(), expires_in })
}

impl TokenError {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Request(error) => error.label(),
            Self::NotLent | Self::NotAllowed(_) => "not_allowed",
            Self::Entra(_) => "not_issued",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Request(error) => error.status(),
            Self::NotLent | Self::NotAllowed(_) => StatusCode::FORBIDDEN,
            Self::Entra(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the route's condition shows.
    fn reason(&self) -> Reason {
        match (self, self.status()) {
            (Self::Entra(failure), _) => failure.reason,
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Reason::OperatorRefused,
            _ => Reason::OperatorUnavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Entra(failure) => failure.retry_after,
            Self::Request(error) => error.retry_after(),
            _ => None,
        }
    }

    fn message(&self) -> String {
        shown(match self {
            // The reason is told beside it.
            Self::Entra(failure) => failure.message.clone(),
            other => other.to_string(),
        })
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let retry_after_seconds = self.retry_after().map(|wait| wait.as_secs());
        answer(
            self.status(),
            TokenRefusal { reason: self.reason(), message: self.message(), retry_after_seconds },
        )
    }
}
