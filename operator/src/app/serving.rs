//! The servers of a replica: the webhook and the control service, which finish what they have begun, and the admin service,
//! which answers to the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::parts::{Parts, spawn, turns_true};
use super::{App, Known, standing};
use crate::admin::{self, Admin};
use crate::broker::desk::{self, Desk};
use crate::control::authenticate::Authenticator;
use crate::control::rate::RateLimit;
use crate::control::server::{self as control, Control};
use crate::pki::{Limits, Pki, TlsListener};
use crate::webhook::refusals::Refusals;
use crate::webhook::{self, Webhook};

/// Names of the parts that serve others and finish what they have begun.
const SERVERS: [&str; 2] = ["webhook", "control service"];

impl App {
    pub(super) async fn serve_webhook(
        &self,
        parts: &mut Parts,
        known: &Known,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let routes =
            webhook::Routes::new(known.routes.clone(), self.malformed.clone(), known.changes.clone());
        let (metrics, told) =
            (self.metrics.clone(), (self.events.clone(), Refusals::start(self.client.clone())));
        let webhook = Webhook::new(
            routes,
            self.sidecar(),
            Arc::clone(self.vault.settings()),
            known.kubernetes.clone(),
            metrics,
            told,
        );
        let listener = tls(self.flags.webhook_listen, &known.pki).await?;
        serve(parts, SERVERS[0], listener, webhook::router(Arc::new(webhook)), closing);
        Ok(())
    }

    pub(super) async fn serve_control(
        &self,
        parts: &mut Parts,
        known: &Known,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let authenticator = Arc::new(Authenticator::new(self.client.clone()));
        let desk = Desk {
            authenticator: Arc::clone(&authenticator),
            pods: known.pods.clone(),
            routes: known.routes.clone(),
            vault: Arc::clone(&self.vault),
            rate: Mutex::new(desk::rate()),
            metrics: self.metrics.clone(),
        };
        let service = Control {
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
            lending: Arc::clone(self.vault.settings()),
            mailbox_rules: Arc::clone(&self.mailbox_rules),
        };
        let listener = tls(self.flags.control_listen, &known.pki).await?;
        let router = control::router(Arc::new(service)).merge(desk::router(Arc::new(desk)));
        serve(parts, SERVERS[1], listener, router, closing);
        Ok(())
    }

    pub(super) async fn serve_admin(
        &self,
        parts: &mut Parts,
        known: &Known,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let address = self.flags.admin_listen;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let admin = Admin {
            checks: standing::checks(known, stop),
            metrics: self.metrics.clone(),
            observe: Box::new(standing::observer(known, &self.malformed)),
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
