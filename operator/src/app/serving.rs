//! The servers of a replica: the webhook and the control service, which finish what they have begun, and the admin service,
//! which answers to the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::parts::{Parts, spawn, turns_true};
use super::{App, standing};
use crate::admin::{self, Admin};
use crate::broker::desk::{self, Desk};
use crate::control::authenticate::Authenticator;
use crate::control::rate::RateLimit;
use crate::control::server::{self as control, Control};
use crate::crd::MailRoute;
use crate::lease::Leadership;
use crate::pki::{Limits, Pki, TlsListener};
use crate::webhook::{self, Webhook};

/// Names of the parts that serve others and finish what they have begun.
const SERVERS: [&str; 2] = ["webhook", "control service"];

impl App {
    pub(super) async fn serve_webhook(
        &self,
        parts: &mut Parts,
        pki: &Pki,
        routes: &Store<MailRoute>,
        changes: watch::Receiver<u64>,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let routes = webhook::Routes::new(routes.clone(), self.malformed.clone(), changes);
        let webhook = Webhook::new(routes, self.sidecar(), self.metrics.clone(), self.events.clone());
        let listener = tls(self.flags.webhook_listen, pki).await?;
        serve(parts, SERVERS[0], listener, webhook::router(Arc::new(webhook)), closing);
        Ok(())
    }

    pub(super) async fn serve_control(
        &self,
        parts: &mut Parts,
        pki: &Pki,
        routes: &Store<MailRoute>,
        pods: &Store<Pod>,
        leadership: &watch::Receiver<Leadership>,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let authenticator = Arc::new(Authenticator::new(self.client.clone()));
        let desk = Desk {
            authenticator: Arc::clone(&authenticator),
            pods: pods.clone(),
            routes: routes.clone(),
            vault: Arc::clone(&self.vault),
            rate: Mutex::new(desk::rate()),
            metrics: self.metrics.clone(),
        };
        let service = Control {
            authenticator,
            leadership: leadership.clone(),
            pods: pods.clone(),
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            metrics: self.metrics.clone(),
            rate: Mutex::new(RateLimit::default()),
            routes: routes.clone(),
            leases: Arc::clone(&self.leases),
        };
        let listener = tls(self.flags.control_listen, pki).await?;
        let router = control::router(Arc::new(service)).merge(desk::router(Arc::new(desk)));
        serve(parts, SERVERS[1], listener, router, closing);
        Ok(())
    }

    pub(super) async fn serve_admin(
        &self,
        parts: &mut Parts,
        pki: &Pki,
        routes: &Store<MailRoute>,
        pods: &Store<Pod>,
        leadership: &watch::Receiver<Leadership>,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let address = self.flags.admin_listen;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let admin = Admin {
            checks: standing::checks(pki, routes, pods, stop),
            metrics: self.metrics.clone(),
            observe: Box::new(standing::observer(pki, routes, leadership, &self.malformed)),
        };
        spawn(parts, "admin", async move {
            let ended = axum::serve(listener, admin::router(Arc::new(admin))).await;
            tracing::error!(?ended, "the admin service ended");
        });
        Ok(())
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

async fn tls(address: SocketAddr, pki: &Pki) -> anyhow::Result<TlsListener> {
    let bound = TlsListener::bind(address, Arc::clone(&pki.tls), Limits::default()).await;
    bound.with_context(|| format!("cannot listen on {address}"))
}

fn serve(
    parts: &mut Parts,
    name: &'static str,
    listener: TlsListener,
    router: Router,
    closing: &watch::Receiver<bool>,
) {
    let closing = turns_true(closing.clone());
    spawn(parts, name, async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(closing).await;
        if let Err(error) = served {
            tracing::error!(%error, part = name, "cannot serve");
        }
    });
}
