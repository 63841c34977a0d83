//! From the configuration to the way out: builds it, probes it, and replaces it when the route changes.
//!
//! What did not change is kept: the access token when identity and authority are the same, the connection and what is
//! known of the way when the whole method is. A new secret in the credential's file changes nothing of these; it is used
//! at the next exchange or log-in, and looked at soon when the way does not work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::file::{ClientSubmission, Method};
use tokio::sync::watch;

use crate::config::Config;
use crate::delivery::Deliver;
use crate::delivery::login::LogIn;
use crate::delivery::submission::Submission;
use crate::delivery::way::Way;
use crate::health::Board;
use crate::metrics::Metrics;
use crate::probe::{self, Pace};
use crate::relay::{Active, Relay};
use crate::watched::Watched;

/// Keeps the way out as the route describes it.
pub struct Upstream {
    /// Where the way out is published.
    pub active: watch::Sender<Option<Arc<Active>>>,
    /// Learns from probes, and starts anew with another way.
    pub relay: Arc<Relay>,
    /// What was met.
    pub board: Board,
    /// Where exchanges and probes are counted.
    pub metrics: Arc<Metrics>,
    /// When to probe.
    pub pace: Pace,
    /// How often to look for a changed credential.
    pub poll: Duration,
}

/// The way out in use.
struct Current {
    route: Arc<RouteFile>,
    way: Arc<dyn Deliver>,
    log_in: Arc<LogIn>,
    stop: watch::Sender<bool>,
}

impl Upstream {
    /// Follows the configuration until `stop`; then ends the connection politely.
    pub async fn run(self, mut config: watch::Receiver<Config>, mut stop: watch::Receiver<bool>) {
        let mut current: Option<Current> = None;
        let mut tending = tokio::task::JoinSet::new();
        loop {
            let route = config.borrow_and_update().route.clone();
            if let Some(route) = route.filter(|route| current.as_ref().is_none_or(|now| now.route != *route))
            {
                current = self.follow(route, current, &mut tending);
            }
            tokio::select! {
                changed = config.changed() => if changed.is_err() { break },
                _ = stop.wait_for(|&stop| stop) => break,
            }
        }
        if let Some(current) = current {
            current.stop.send_replace(true);
        }
        while tending.join_next().await.is_some() {}
    }

    fn follow(
        &self,
        route: Arc<RouteFile>,
        before: Option<Current>,
        tending: &mut tokio::task::JoinSet<()>,
    ) -> Option<Current> {
        let Method::ClientSubmission(settings) = &route.method else {
            // `config` refuses the others.
            return before;
        };
        let same_way =
            |now: &Current| now.route.method == route.method && now.route.ehlo_name == route.ehlo_name;
        let current = match before {
            Some(now) if same_way(&now) => {
                now.way.resize(connections(&route));
                Current { route: Arc::clone(&route), ..now }
            }
            before => {
                let log_in = self.log_in(settings, before.as_ref());
                if let Some(before) = before {
                    before.stop.send_replace(true);
                }
                let submission =
                    Submission::new(settings.clone(), route.ehlo_name.clone(), Arc::clone(&log_in));
                let way = Way::new(submission, connections(&route), Arc::clone(&self.metrics) as _);
                let files = LogIn::files(&settings.credential);
                self.relay.reset();
                self.start(Arc::clone(&route), Arc::new(way), log_in, files, tending)
            }
        };
        let deliver = Arc::clone(&current.way);
        self.active.send_replace(Some(Arc::new(Active { route, deliver })));
        Some(current)
    }

    fn start(
        &self,
        route: Arc<RouteFile>,
        way: Arc<dyn Deliver>,
        log_in: Arc<LogIn>,
        files: Vec<PathBuf>,
        tending: &mut tokio::task::JoinSet<()>,
    ) -> Current {
        let (stop, stopped) = watch::channel(false);
        let (wake, woken) = watch::channel(());
        let (relay, board, pace) = (Arc::clone(&self.relay), self.board.clone(), self.pace);
        let (probed, probe_stop) = (Arc::clone(&way), stopped.clone());
        tending.spawn(probe::run(probed, board, pace, woken, probe_stop, relay));
        let (health, replaced) = (self.board.subscribe(), Arc::clone(&log_in));
        let look = move || {
            replaced.replaced();
            if !health.borrow().is_well() {
                wake.send_replace(());
            }
        };
        let (poll, end) = (self.poll, stopped.clone());
        tending.spawn(async move { Watched::new(files).await.follow(poll, look, end).await });
        let tended = Arc::clone(&way);
        tending.spawn(async move { tended.tend(stopped).await });
        Current { route, way, log_in, stop }
    }

    /// The log-in: the one in use, with its token, if it is for the same identity at the same authority.
    fn log_in(&self, settings: &ClientSubmission, before: Option<&Current>) -> Arc<LogIn> {
        let same = before.filter(|before| {
            matches!(&before.route.method, Method::ClientSubmission(old)
                if old.credential == settings.credential && old.authority == settings.authority)
        });
        match same {
            Some(before) => Arc::clone(&before.log_in),
            None => Arc::new(LogIn::new(settings, Arc::clone(&self.metrics) as _)),
        }
    }
}

/// How many connections the route allows.
fn connections(route: &RouteFile) -> usize {
    usize::try_from(route.limits.connections).unwrap_or(usize::MAX)
}
