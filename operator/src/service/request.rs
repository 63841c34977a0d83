//! What requests for something of a pod's own have in common, a token or a certificate: who calls, how often, how large the body
//! may be, and for which route. Decides nothing else.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use kube::runtime::reflector::ObjectRef;
use mailroute_operator_core::reports::ReportingPod;
use mailroute_route::control::{MAX_MESSAGE_BYTES, ServiceRefusal};
use mailroute_route::identity::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::authenticate::{self, Authenticator};
use crate::cache::pods::PodStore;
use crate::cache::route::{OpenRoute, RouteStore};
use crate::cache::watch::filled;
use crate::lock;
use crate::rate_limit::RateLimit;
use crate::server::Peer;

/// A request that takes longer than this to arrive and to be checked is broken off.
const DEADLINE: Duration = Duration::from_secs(10);

/// What one pod may ask of one service.
#[derive(Clone, Copy, Debug)]
pub struct RequestBounds {
    /// Largest body, bytes.
    pub body: usize,
    /// Requests of one pod that may come at once.
    pub burst: u32,
    /// Time after which one more is allowed. Also what a pod that asks too often is told to wait.
    pub refill: Duration,
}

/// The pods that may ask, and their routes.
pub struct Callers {
    authenticator: Arc<Authenticator>,
    pods: PodStore,
    routes: RouteStore,
    bounds: RequestBounds,
    rate: Mutex<RateLimit>,
}

/// A request of a known pod.
pub(super) struct Asked<T> {
    pub(super) caller: ReportingPod,
    pub(super) request: T,
}

/// Why a request is not looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("send the projected token as Authorization: Bearer")]
    NoToken,
    #[error(transparent)]
    ReportingPod(#[from] authenticate::Error),
    #[error("too many requests from this pod")]
    TooOften(Duration),
    #[error("the body is larger than {0} bytes, or incomplete")]
    Body(usize),
    // What was not understood may be a secret, so only its place is told.
    #[error("the body is not a valid request: line {0}, column {1}")]
    NotARequest(usize, usize),
    #[error("the operator has just started and does not know all pods and routes yet")]
    NotSynced,
    #[error(
        "the pod's label mailroute.dev/route does not name the requested route, or the pod lacks the sidecar of that route"
    )]
    NotItsRoute,
    #[error("there is no such MailRoute in the pod's namespace")]
    NoRoute,
    #[error("the request took too long to arrive or to check")]
    TooSlow,
}

impl Callers {
    /// Pods and routes as watched.
    pub fn new(
        authenticator: Arc<Authenticator>,
        pods: PodStore,
        routes: RouteStore,
        bounds: RequestBounds,
    ) -> Self {
        let rate = Mutex::new(RateLimit::new(bounds.burst, bounds.refill));
        Self { authenticator, pods, routes, bounds, rate }
    }

    /// Reads one request.
    pub(super) async fn asked<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<Asked<T>, RequestError> {
        let (head, body) = request.into_parts();
        timeout(DEADLINE, self.read(&head, body)).await.unwrap_or(Err(RequestError::TooSlow))
    }

    /// The cheap refusals come first: the body of an unknown caller is not read.
    async fn read<T: DeserializeOwned>(&self, head: &Parts, body: Body) -> Result<Asked<T>, RequestError> {
        let (token, from) = bearer(head).ok_or(RequestError::NoToken)?;
        let caller = self.authenticator.caller(token, from).await?;
        let RequestBounds { body: most, refill, .. } = self.bounds;
        if !lock(&self.rate).allows(&caller.uid, Instant::now()) {
            return Err(RequestError::TooOften(refill));
        }
        let body = to_bytes(body, most).await.map_err(|_| RequestError::Body(most))?;
        let request = serde_json::from_slice(&body)
            .map_err(|error| RequestError::NotARequest(error.line(), error.column()))?;
        // What is not known yet is waited for until the deadline.
        let known = self.pods.filled().await && filled(&self.routes).await;
        if known { Ok(Asked { caller, request }) } else { Err(RequestError::NotSynced) }
    }

    /// What the caller does for the route that it names, which has to be its own.
    pub(super) fn role(&self, caller: &ReportingPod, route: &str) -> Result<Role, RequestError> {
        authenticate::role_in(caller, &self.pods, route).ok_or(RequestError::NotItsRoute)
    }

    /// The caller's own route.
    pub(super) fn route(&self, caller: &ReportingPod, name: &str) -> Result<OpenRoute, RequestError> {
        self.role(caller, name)?;
        let route = self.routes.get(&ObjectRef::new(name).within(&caller.namespace));
        Ok(route.ok_or(RequestError::NoRoute)?.open())
    }
}

impl RequestError {
    /// A closed set, for metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "unauthenticated",
            Self::ReportingPod(error) => error.label(),
            Self::NotSynced => "unavailable",
            Self::TooOften(_) => "throttled",
            Self::Body(_) | Self::NotARequest(..) => "malformed",
            Self::NotItsRoute | Self::NoRoute => "forbidden",
            Self::TooSlow => "slow",
        }
    }

    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::ReportingPod(error) => error.status(),
            Self::NotSynced => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotARequest(..) => StatusCode::BAD_REQUEST,
            Self::NotItsRoute | Self::NoRoute => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(wait) => Some(*wait),
            _ => None,
        }
    }
}

/// The token of `Authorization: Bearer`, and the address it comes from.
pub(super) fn bearer(head: &Parts) -> Option<(&str, IpAddr)> {
    let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let from = head.extensions.get::<Peer>()?.address();
    scheme.eq_ignore_ascii_case("bearer").then(|| (token.trim(), from))
}

/// The name of a route as it is logged. A pod can write what it likes there.
pub(super) fn logged(route: &str) -> &str {
    &route[..route.floor_char_boundary(63)]
}

/// An answer that no cache stores (RFC 6749 §5.1).
pub(super) fn answer(status: StatusCode, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The answer with a [`ServiceRefusal`].
pub(super) fn refused(status: StatusCode, message: String, retry_after: Option<Duration>) -> Response {
    let retry_after_seconds = retry_after.map(|wait| wait.as_secs().max(1));
    answer(status, ServiceRefusal { message: shown(message), retry_after_seconds })
}

/// A message of bounded length.
pub(super) fn shown(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    message
}
