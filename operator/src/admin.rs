//! What Kubernetes and Prometheus ask: `/livez`, `/readyz` and `/metrics`, plain HTTP.
//!
//! Alive means that the process answers. Ready means that it can do its work: every check holds. `/readyz` names those
//! that do not, so that `kubectl describe pod` shows why.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::Metrics;

/// Something that has to hold before this replica is ready.
pub struct Check {
    /// What is missing while it does not hold, in a few words.
    pub missing: &'static str,
    /// Whether it holds now.
    pub holds: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What the pages are made of.
pub struct Admin {
    /// Everything that has to hold.
    pub checks: Vec<Check>,
    /// The metrics.
    pub metrics: Metrics,
    /// Brings those metrics up to date that are read from a state.
    pub observe: Box<dyn Fn(&Metrics) + Send + Sync>,
}

/// The pages.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let missing: Vec<_> =
        admin.checks.iter().filter(|check| !(check.holds)()).map(|check| check.missing).collect();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join("; "))).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    (admin.observe)(&admin.metrics);
    match admin.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot print the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    fn check(missing: &'static str, holds: bool) -> Check {
        Check { missing, holds: Box::new(move || holds) }
    }

    async fn readiness(checks: Vec<Check>) -> (StatusCode, String) {
        let metrics = Metrics::new().unwrap();
        let response = readyz(State(Arc::new(Admin { checks, metrics, observe: Box::new(|_| {}) }))).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let checks =
            vec![check("pods are still listed", false), check("routes", true), check("no leaf", false)];
        let expected = "not ready: pods are still listed; no leaf\n".to_owned();
        assert_eq!(readiness(checks).await, (StatusCode::SERVICE_UNAVAILABLE, expected));
    }

    #[tokio::test]
    async fn ready_when_every_check_holds() {
        assert_eq!(readiness(vec![check("routes", true)]).await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_brought_up_to_date_when_asked() {
        let admin = Admin {
            checks: Vec::new(),
            metrics: Metrics::new().unwrap(),
            observe: Box::new(|metrics| metrics.routes("True", 7)),
        };
        let response = metrics(State(Arc::new(admin))).await;
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("mailroute_routes{ready=\"True\"} 7"), "{text}");
    }
}
