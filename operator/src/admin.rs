//! What Kubernetes and Prometheus ask: `/livez`, `/readyz` and `/metrics`, plain HTTP.
//!
//! Alive means that the process answers. Ready means that it can do its work: every check holds. `/readyz` names those
//! that do not, so that `kubectl describe pod` shows why.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::lock;
use crate::metrics::Metrics;

/// Something that has to hold before this replica is ready.
pub struct Check {
    /// What is missing while it does not hold, in a few words.
    pub missing: &'static str,
    /// Whether it holds now.
    pub holds: Box<dyn Fn() -> bool + Send + Sync>,
}

/// How long a printed page of metrics is served before the next is printed, however often somebody asks.
pub const PRINTED: Duration = Duration::from_secs(1);

/// Updates the metrics that show a state, and begins a page.
pub type Observer = Box<dyn Fn(&Metrics, &mut String) + Send + Sync>;

/// What the pages are made of.
pub struct Admin {
    checks: Vec<Check>,
    metrics: Metrics,
    observe: Observer,
    printed: Mutex<Option<(Instant, Bytes)>>,
}

impl Admin {
    /// Pages of these checks and metrics. `observe` updates the metrics that show a state, before they are printed, and begins the
    /// page with those that are printed from it.
    pub fn new(checks: Vec<Check>, metrics: Metrics, observe: Observer) -> Self {
        Self { checks, metrics, observe, printed: Mutex::default() }
    }

    fn text(&self, now: Instant) -> prometheus::Result<Bytes> {
        let mut printed = lock(&self.printed);
        if let Some((at, text)) = printed.as_ref()
            && now.duration_since(*at) < PRINTED
        {
            return Ok(text.clone());
        }
        // Of tens of thousands of series a page has megabytes: not two at a time.
        *printed = None;
        let mut page = String::new();
        (self.observe)(&self.metrics, &mut page);
        self.metrics.print(&mut page)?;
        page.shrink_to_fit();
        let text = Bytes::from(page);
        *printed = Some((now, text.clone()));
        Ok(text)
    }
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
    match admin.text(Instant::now()) {
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn check(missing: &'static str, holds: bool) -> Check {
        Check { missing, holds: Box::new(move || holds) }
    }

    async fn readiness(checks: Vec<Check>) -> (StatusCode, String) {
        let admin = Admin::new(checks, Metrics::new().unwrap(), Box::new(|_, _| {}));
        let response = readyz(State(Arc::new(admin))).await;
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
        let observe = Box::new(|metrics: &Metrics, page: &mut String| {
            metrics.routes("True", 7);
            page.push_str("# of routes\n");
        });
        let admin = Admin::new(Vec::new(), Metrics::new().unwrap(), observe);
        let response = metrics(State(Arc::new(admin))).await;
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("mailroute_routes{ready=\"True\"} 7"), "{text}");
        assert!(text.starts_with("# of routes\n# HELP"), "{text}");
    }

    #[test]
    fn a_flood_of_scrapes_has_the_metrics_counted_once_a_second() {
        let counted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&counted);
        let observe = Box::new(move |_: &Metrics, _: &mut String| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (admin, start) = (Admin::new(Vec::new(), Metrics::new().unwrap(), observe), Instant::now());
        for _ in 0..1000 {
            admin.text(start).unwrap();
        }
        assert_eq!(counted.load(Ordering::Relaxed), 1);
        admin.text(start + PRINTED).unwrap();
        assert_eq!(counted.load(Ordering::Relaxed), 2);
    }
}
