//! HTTP in and out of the certificates of sidecars and gateways: reads one signing request, and answers with a certificate or with the
//! reason why not.
//!
//! Each certificate and each refusal to a known pod is one line in the log, `certificate granted` or `certificate refused`. The names in
//! a certificate are what the operator knows of the pod that calls; of the request it takes the public key.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use jiff::Timestamp;
use mailroute_operator_core::reports::ReportingPod;
use mailroute_route::control::{
    CERTIFICATE_PATH, CertificateReply, CertificateRequest, MAX_CERTIFICATE_REQUEST_BYTES,
};
use tokio::sync::watch;

use super::request::{Asked, Callers, RequestBounds, RequestError, answer, logged, refused};
use crate::metrics::Metrics;
use crate::pki::authority::{self, Authority};
use crate::pki::identity::{self, RequestedKey, SignedIdentity, Subject};

/// A pod asks when it starts and then each sixteen hours; after trouble it asks again after five seconds, ten, and so on.
pub const BOUNDS: RequestBounds =
    RequestBounds { body: MAX_CERTIFICATE_REQUEST_BYTES, burst: 10, refill: Duration::from_secs(10) };

/// What the service needs.
pub struct CertificateService {
    /// Who may ask, within [`BOUNDS`].
    pub callers: Callers,
    /// The CA that signs now.
    pub signer: watch::Receiver<Option<Arc<Authority>>>,
    /// Counts what became of requests.
    pub metrics: Metrics,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the MailRoute has no gateway")]
    NoGateway,
    #[error("the certificate signing request cannot be used: {0}")]
    Csr(#[from] identity::RequestError),
    #[error("the operator has no CA yet that signs certificates of sidecars and gateways")]
    NoAuthority,
    #[error("the operator cannot sign the certificate")]
    Sign(#[from] authority::Error),
}

/// The routes of the service.
pub fn router(service: Arc<CertificateService>) -> Router {
    Router::new().route(CERTIFICATE_PATH, post(ask)).with_state(service)
}

async fn ask(State(service): State<Arc<CertificateService>>, request: Request) -> Response {
    service.handle(request).await
}

impl CertificateService {
    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Response {
        let now = Timestamp::now();
        let answered = match self.callers.asked(request).await {
            Ok(asked) => {
                let granted = self.grant(&asked, now);
                audit(&asked, &granted);
                granted
            }
            Err(refusal) => {
                tracing::debug!(outcome = refusal.label(), error = %refusal, "no certificate issued");
                Err(refusal.into())
            }
        };
        self.metrics.certificate_asked(answered.as_ref().map_or_else(CertificateError::label, |_| "granted"));
        match answered {
            Ok(SignedIdentity { chain_pem, not_after }) => {
                let expires_in = u64::try_from(not_after.duration_since(now).as_secs()).unwrap_or_default();
                answer(StatusCode::OK, CertificateReply { chain_pem, expires_in })
            }
            Err(refusal) => refused(refusal.status(), refusal.to_string(), refusal.retry_after()),
        }
    }

    fn grant(
        &self,
        Asked { caller, request }: &Asked<CertificateRequest>,
        now: Timestamp,
    ) -> Result<SignedIdentity, CertificateError> {
        let role = self.callers.role(caller, &request.route)?;
        let route = self.callers.route(caller, &request.route)?;
        let resolved = route.resolution().route.as_ref().ok();
        if resolved.is_none_or(|resolved| resolved.file.gateway.is_none()) {
            return Err(CertificateError::NoGateway);
        }
        let key = RequestedKey::from_pem(&request.csr_pem)?;
        let signer = self.signer.borrow().clone().filter(|signer| now < signer.certificate().not_after());
        let subject = Subject { role, namespace: &caller.namespace, route: &request.route, pod: &caller.pod };
        Ok(signer.ok_or(CertificateError::NoAuthority)?.sign_identity(&key, &subject, now)?)
    }
}

/// Logs who got a certificate and who did not.
fn audit(
    Asked { caller, request }: &Asked<CertificateRequest>,
    granted: &Result<SignedIdentity, CertificateError>,
) {
    let ReportingPod { namespace, pod, uid } = caller;
    let route = logged(&request.route);
    match granted {
        Ok(SignedIdentity { not_after: expires, .. }) => {
            tracing::info!(namespace, pod, uid, route, %expires, "certificate granted");
        }
        Err(refusal) => {
            let (outcome, error) = (refusal.label(), refusal.to_string());
            tracing::warn!(namespace, pod, uid, route, outcome, error, "certificate refused");
        }
    }
}

impl CertificateError {
    /// A closed set, for the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Request(error) => error.label(),
            Self::NoGateway => "no_gateway",
            Self::Csr(_) => "malformed",
            Self::NoAuthority | Self::Sign(_) => "unavailable",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Request(error) => error.status(),
            Self::NoGateway => StatusCode::FORBIDDEN,
            Self::Csr(_) => StatusCode::BAD_REQUEST,
            Self::NoAuthority | Self::Sign(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(error) => error.retry_after(),
            _ => None,
        }
    }
}
