//! The servers of a replica: the webhook and the control service, which finish what they have begun, and the admin service,
//! which answers to the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::parts::{Parts, spawn, turns_true};
use super::{App, Known, health};
use crate::admin::{self, Admin};
use crate::rate_limit::RateLimit;
use crate::server::{self, Limits};
use crate::service::authenticate::Authenticator;
use crate::service::certificate::{self, CertificateService};
use crate::service::report::{self, ReportService};
use crate::service::request::{Callers, RequestBounds};
use crate::service::review::{self, ReviewService};
use crate::service::token::{self, TokenService};
use crate::webhook::refusals::Refusals;
use crate::webhook::{self, Webhook};

/// Names of the parts that serve others and finish what they have begun.
const SERVERS: [&str; 2] = ["webhook", "control service"];

/// Connections of API servers, each of which has one for every review under way. A connection takes about 50 KiB.
const WEBHOOK: Limits = Limits::of(512);
/// Connections of sidecars, each of which has one at a time and closes it after the answer.
const CONTROL: Limits = Limits::of(512);
/// Connections of kubelets and of Prometheus.
const ADMIN: Limits = Limits::of(64);

impl App {
    pub(super) async fn serve_webhook(
        &self,
        parts: &mut Parts,
        known: &Known,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let routes = webhook::AwaitedRoutes::new(
            known.routes.clone(),
            self.malformed.clone(),
            known.changes.clone(),
            known.namespaces.clone(),
        );
        let refusals = Refusals::start(self.client.clone(), self.events.clone());
        let (kubernetes, metrics) = (known.kubernetes.clone(), self.metrics.clone());
        let webhook = Webhook::new(routes, self.sidecar(), kubernetes, metrics, refusals);
        let port = Port { address: self.flags.webhook_listen, tls: Some(&known.pki.tls), limits: WEBHOOK };
        serve(parts, SERVERS[0], port, webhook::router(Arc::new(webhook)), closing).await
    }

    pub(super) async fn serve_control(
        &self,
        parts: &mut Parts,
        known: &Known,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let authenticator = Arc::new(Authenticator::new(
            self.client.clone(),
            known.pods.clone(),
            self.flags.check_source_address,
        ));
        let callers = |bounds: RequestBounds| {
            Callers::new(Arc::clone(&authenticator), known.pods.clone(), known.routes.clone(), bounds)
        };
        let tokens = TokenService {
            callers: callers(token::BOUNDS),
            token_cache: Arc::clone(&self.token_cache),
            metrics: self.metrics.clone(),
        };
        let certificates = CertificateService {
            callers: callers(certificate::BOUNDS),
            signer: known.pki.identity_signer.clone(),
            metrics: self.metrics.clone(),
        };
        let reviews = ReviewService::new(self.client.clone(), callers(review::BOUNDS), self.metrics.clone());
        let service = ReportService {
            authenticator,
            leadership: known.leadership.clone(),
            pods: known.pods.clone(),
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            metrics: self.metrics.clone(),
            rate: Mutex::new(RateLimit::default()),
            routes: known.routes.clone(),
            malformed: self.malformed.clone(),
            leases: Arc::clone(&self.leases),
        };
        let port = Port { address: self.flags.control_listen, tls: Some(&known.pki.tls), limits: CONTROL };
        let router = report::router(Arc::new(service))
            .merge(token::router(Arc::new(tokens)))
            .merge(certificate::router(Arc::new(certificates)))
            .merge(review::router(Arc::new(reviews)));
        serve(parts, SERVERS[1], port, router, closing).await
    }

    pub(super) async fn serve_admin(
        &self,
        parts: &mut Parts,
        known: &Known,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let admin = Admin::new(
            health::checks(known, stop),
            self.metrics.clone(),
            Box::new(health::observer(known, &self.malformed)),
        );
        let port = Port { address: self.flags.admin_listen, tls: None, limits: ADMIN };
        // It answers to the end.
        let (_, never) = watch::channel(false);
        serve(parts, "admin", port, admin::router(Arc::new(admin)), &never).await
    }
}

/// Waits until the servers have finished.
pub(super) async fn served(parts: &mut Parts) {
    let mut left = SERVERS.len();
    while left > 0 {
        match parts.join_next().await {
            Some(Ok(name)) if SERVERS.contains(&name) => left -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

/// One of the replica's ports.
struct Port<'a> {
    address: SocketAddr,
    tls: Option<&'a Arc<ServerConfig>>,
    limits: Limits,
}

async fn serve(
    parts: &mut Parts,
    name: &'static str,
    port: Port<'_>,
    router: Router,
    closing: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let address = port.address;
    let listener = server::listen(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let closing = turns_true(closing.clone());
    spawn(parts, name, server::serve(listener, port.tls.cloned(), router, port.limits, closing));
    Ok(())
}
