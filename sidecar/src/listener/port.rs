//! The local port: serves on the one the route names, with as many sessions as it allows, and follows when the route changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Listeners, Service};
use crate::config::Config;

/// The port while no route says otherwise, and the default of `spec.listen.port`.
const DEFAULT_PORT: u16 = 25;

/// Sessions at once.
const SESSIONS: usize = 100;

/// Serves applications.
pub struct PortListener {
    /// What the sessions share.
    pub service: Service,
    /// The configuration, with the route's port.
    pub config: watch::Receiver<Config>,
    /// The port to use whatever the route says.
    pub fixed: Option<u16>,
    /// Set while the listener is serving.
    pub serving: Arc<AtomicBool>,
}

impl PortListener {
    /// The port to listen on now.
    pub fn port(fixed: Option<u16>, config: &Config) -> u16 {
        fixed.or_else(|| config.route.as_ref().map(|route| route.listen.port)).unwrap_or(DEFAULT_PORT)
    }

    /// Serves until `stop`, then until the last session has ended. Sessions on a port that was left go on.
    pub async fn run(mut self, listeners: Listeners, mut stop: watch::Receiver<bool>) {
        let mut listening = JoinSet::new();
        let sessions = watch::Sender::new(SESSIONS);
        let mut port = Self::port(self.fixed, &self.config.borrow());
        let mut close = self.open(&mut listening, listeners, &sessions);
        loop {
            let (fixed, current) = (self.fixed, port);
            let moved = self.config.wait_for(|config| Self::port(fixed, config) != current);
            let next = tokio::select! {
                config = moved => config.map(|config| Self::port(fixed, &config)).ok(),
                _ = stop.wait_for(|&stop| stop) => None,
                // A port that was left has no more sessions. The last one ends early by a panic only; then nobody is
                // served, and the kubelet has to know.
                _ = listening.join_next() => if listening.is_empty() { None } else { continue },
            };
            let Some(next) = next else { break };
            port = next;
            match Listeners::bind(next).await {
                Ok(listeners) => {
                    tracing::info!(port = next, "listening on the route's new port");
                    close.send_replace(true);
                    close = self.open(&mut listening, listeners, &sessions);
                }
                Err(error) => {
                    tracing::error!(%error, "the route's new port cannot be used; the old one stays in use");
                }
            }
        }
        self.serving.store(false, Ordering::Relaxed);
        close.send_replace(true);
        while listening.join_next().await.is_some() {}
    }

    fn open(
        &self,
        listening: &mut JoinSet<()>,
        listeners: Listeners,
        sessions: &watch::Sender<usize>,
    ) -> watch::Sender<bool> {
        let (close, closed) = watch::channel(false);
        listening.spawn(super::serve(listeners, self.service.clone(), sessions.subscribe(), closed));
        self.serving.store(true, Ordering::Relaxed);
        close
    }
}
