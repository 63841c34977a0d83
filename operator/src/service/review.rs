//! HTTP in and out of reviews: whose ServiceAccount token has a client shown to a gateway?
//!
//! What a token claims is read first, so that what cannot be one costs no API call; then the API server reviews it, and the answer is
//! kept for a minute by the token's hash and the gateway. The gateway decides whom it lets in, but of which audience a token has to be is
//! decided here: one of another namespace than the gateway's has to name the gateway, so that it is good nowhere else. The token is
//! neither kept nor logged; neither are the many answers, which each gateway logs as log-ins.
//!
//! Bounds: what one gateway may ask; and how many reviews are under way, apart from those of the authenticator, so that a gateway under
//! attack keeps no sidecar from reporting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use kube::Client;
use mailroute_operator_core::reports::ReportingPod;
use mailroute_route::control::{MAX_REVIEW_REQUEST_BYTES, REVIEW_PATH, ReviewReply, ReviewRequest};
use mailroute_route::identity::Role;
use mailroute_route::paths::login_audiences;

use super::request::{Asked, Callers, RequestBounds, RequestError, answer, refused};
use super::token_review::{
    BoundTo, Claimed, ReviewError as ApiReviewError, TokenHash, TokenReviews, claimed, hash,
};
use crate::lock;
use crate::metrics::Metrics;

/// Ten log-ins a second for each pod of a gateway.
pub const BOUNDS: RequestBounds =
    RequestBounds { body: MAX_REVIEW_REQUEST_BYTES, burst: 50, refill: Duration::from_millis(100) };

/// Reviews under way at a time, of all gateways.
const AT_ONCE: usize = 16;

/// How long an answer of the API server is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Answers that are kept at most, some 300 bytes each. What does not fit is asked for again.
const MOST_KEPT: usize = 10_000;

/// What the service needs.
pub struct ReviewService {
    callers: Callers,
    reviews: TokenReviews,
    kept: Mutex<KeptReviews>,
    metrics: Metrics,
}

/// Why it is not known whose token it is, or nobody's.
#[derive(Debug, thiserror::Error)]
enum ReviewError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("only gateways have tokens reviewed")]
    NotAGateway,
    #[error(
        "the token is not a valid token of a pod with the audience of this gateway, or with mailroute.dev in its own namespace"
    )]
    Refused,
    #[error(transparent)]
    Api(#[from] ApiReviewError),
}

/// The routes of the service.
pub fn router(service: Arc<ReviewService>) -> Router {
    Router::new().route(REVIEW_PATH, post(ask)).with_state(service)
}

async fn ask(State(service): State<Arc<ReviewService>>, request: Request) -> Response {
    service.handle(request).await
}

impl ReviewService {
    /// Has this client's API server review tokens for `callers`, within [`BOUNDS`].
    pub fn new(client: Client, callers: Callers, metrics: Metrics) -> Self {
        let reviews = TokenReviews::new(client, AT_ONCE);
        Self { callers, reviews, kept: Mutex::default(), metrics }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Response {
        let reviewed = self.reviewed(request).await;
        self.metrics.review_asked(reviewed.as_ref().map_or_else(ReviewError::label, |_| "accepted"));
        match reviewed {
            Ok(reply) => answer(StatusCode::OK, reply),
            Err(refusal) => {
                tracing::debug!(outcome = refusal.label(), error = %refusal, "token of a client not accepted");
                refused(refusal.status(), refusal.to_string(), refusal.retry_after())
            }
        }
    }

    async fn reviewed(&self, request: Request) -> Result<ReviewReply, ReviewError> {
        let Asked { caller, request } = self.callers.asked::<ReviewRequest>(request).await?;
        if self.callers.role(&caller, &request.route)? != Role::Gateway {
            return Err(ReviewError::NotAGateway);
        }
        let ReviewRequest { route, token } = request;
        let claimed = claimed(&token, |client| login_audiences(&caller.namespace, &route, client));
        let claimed = claimed.ok_or(ReviewError::Refused)?;
        let key = key(&caller, &route, &token);
        let kept = lock(&self.kept).find(&key, Instant::now());
        let reply = match kept {
            Some(reply) => reply,
            None => {
                let reply = self.ask(&token, claimed).await?;
                lock(&self.kept).keep(key, reply.clone(), Instant::now());
                reply
            }
        };
        reply.ok_or(ReviewError::Refused)
    }

    /// Whose token it is, when it is the pod's that it claims to be of: the audiences were chosen by that.
    async fn ask(&self, token: &str, claimed: Claimed) -> Result<Option<ReviewReply>, ApiReviewError> {
        let bound = self.reviews.ask(token, &claimed.audiences).await?;
        Ok(bound.filter(|bound| bound.pod == claimed.pod).map(reply_of))
    }
}

/// What an answer is kept by: a token that is good at one gateway may not be at another. Neither name has a slash.
fn key(gateway: &ReportingPod, route: &str, token: &str) -> TokenHash {
    hash(&format!("{}/{route}/{token}", gateway.namespace))
}

fn reply_of(BoundTo { service_account, pod }: BoundTo) -> ReviewReply {
    ReviewReply { namespace: pod.namespace, service_account, pod: pod.pod }
}

impl ReviewError {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Request(error) => error.label(),
            Self::NotAGateway => "forbidden",
            Self::Refused => "refused",
            Self::Api(_) => "unavailable",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Request(error) => error.status(),
            Self::NotAGateway => StatusCode::FORBIDDEN,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Api(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// What the API server said of tokens, for a while.
#[derive(Default)]
struct KeptReviews {
    replies: HashMap<TokenHash, (Option<ReviewReply>, Instant)>,
    swept: Option<Instant>,
}

impl KeptReviews {
    fn find(&self, hash: &TokenHash, now: Instant) -> Option<Option<ReviewReply>> {
        let (reply, at) = self.replies.get(hash)?;
        (now.duration_since(*at) < KEEP).then(|| reply.clone())
    }

    fn keep(&mut self, hash: TokenHash, reply: Option<ReviewReply>, now: Instant) {
        if self.swept.is_none_or(|at| now.duration_since(at) >= KEEP) {
            self.swept = Some(now);
            self.replies.retain(|_, (_, at)| now.duration_since(*at) < KEEP);
        }
        if self.replies.len() < MOST_KEPT {
            self.replies.insert(hash, (reply, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grafana() -> Option<ReviewReply> {
        let (namespace, service_account) = ("shop".to_owned(), "grafana".to_owned());
        Some(ReviewReply { namespace, service_account, pod: "grafana-0".into() })
    }

    #[test]
    fn an_answer_is_kept_for_a_minute_whatever_it_is() {
        let (mut kept, start) = (KeptReviews::default(), Instant::now());
        kept.keep(hash("good"), grafana(), start);
        kept.keep(hash("bad"), None, start);
        let found = |token, seconds| kept.find(&hash(token), start + Duration::from_secs(seconds));
        assert_eq!((found("good", 59), found("bad", 59)), (Some(grafana()), Some(None)));
        assert_eq!((found("good", 60), found("bad", 60), found("other", 0)), (None, None, None));
    }

    #[test]
    fn tokens_that_never_end_take_bounded_memory_and_displace_nobody() {
        let (mut kept, start) = (KeptReviews::default(), Instant::now());
        kept.keep(hash("good"), grafana(), start);
        for token in 0..2 * MOST_KEPT {
            kept.keep(hash(&token.to_string()), None, start);
        }
        assert_eq!((kept.find(&hash("good"), start), kept.replies.len()), (Some(grafana()), MOST_KEPT));
        kept.keep(hash("later"), None, start + KEEP);
        assert_eq!(kept.replies.len(), 1);
    }
}
