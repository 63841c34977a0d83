//! The HTTP port for the kubelet, Prometheus and people: `/livez`, `/readyz`, `/metrics`.
//!
//! It is reachable from outside the pod, so it gives no secret, takes no body, and its connections are few and short.
//!
//! * `/livez`: the local listener is serving. Nothing about Microsoft: a restart would not mend that.
//! * `/readyz`: mail can flow as far as is known, else 503 with the condition that stands in the way. For people and
//!   tests; no probe of the pod uses it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::budget::gate::Gate;
use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::queue::Queue;

/// Connections at a time: a kubelet and some scrapers.
const MAX_CONNECTIONS: usize = 32;

/// Longest life of a connection; one request each.
const LIFE: Duration = Duration::from_secs(15);

/// What the port tells about.
#[derive(Clone)]
pub struct Admin {
    /// Whether the local listener is serving.
    pub serving: Arc<AtomicBool>,
    /// The configuration.
    pub config: watch::Receiver<Config>,
    /// What was met.
    pub health: watch::Receiver<Health>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The budget, of which the metrics tell.
    pub budget: Arc<Gate>,
    /// The queue, of which the metrics tell, too.
    pub queue: Arc<Queue>,
}

impl Admin {
    /// Serves until `stop`.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|&stop| stop) => return,
            };
            // Over the limit a connection is closed unanswered; the caller comes again.
            if let (Ok((stream, _)), Ok(permit)) = (accepted, Arc::clone(&room).try_acquire_owned()) {
                let admin = self.clone();
                tokio::spawn(async move {
                    admin.connection(stream).await;
                    drop(permit);
                });
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let response = self.respond(&request);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(LIFE)
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        // A peer that goes away is its own affair.
        let _ = tokio::time::timeout(LIFE, connection).await;
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/livez" => self.live(),
            "/readyz" => self.ready(),
            "/metrics" => {
                self.metrics.show_budget(self.budget.view());
                self.metrics.show_queue(self.queue.figures());
                let body = self.metrics.render(&self.health.borrow());
                content(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body.into())
            }
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n"),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        if self.serving.load(Ordering::Relaxed) {
            text(StatusCode::OK, "ok\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "the local listener is not serving\n")
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let (config, health) = (self.config.borrow(), self.health.borrow());
        let trouble = match (&config.route, &config.error, health.trouble()) {
            (None, error, _) => {
                Some(format!("no valid route: {}\n", error.as_deref().unwrap_or("not read yet")))
            }
            (_, _, Some(met)) => Some(format!("{} {}: {}\n", met.condition, met.reason, met.message)),
            _ if !health.is_well() => Some("the way to the upstream was not walked yet\n".into()),
            _ => None,
        };
        match trouble {
            Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, trouble),
            None => text(StatusCode::OK, "ok\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    content(status, "text/plain; charset=utf-8", body.into())
}

fn content(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
