//! From the configuration to the way out: builds it, probes it, and replaces it when the route changes.
//!
//! What did not change is kept: the access token when identity and authority are the same, the connection and what is
//! known of the way when the whole method is.

use std::sync::Arc;

use mailroute_route::RouteFile;
use mailroute_route::file::{ClientSubmission, Method};
use tokio::sync::watch;

use crate::config::Config;
use crate::delivery::Deliver;
use crate::delivery::submission::Submission;
use crate::delivery::way::Way;
use crate::health::Board;
use crate::metrics::Metrics;
use crate::probe::{self, Pace};
use crate::relay::{Active, Relay};
use crate::token;
use crate::token::store::Store;

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
}

/// The way out in use.
struct Current {
    route: Arc<RouteFile>,
    way: Arc<dyn Deliver>,
    tokens: Arc<Store>,
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
                let tokens = self.tokens(settings, before.as_ref())?;
                if let Some(before) = before {
                    before.stop.send_replace(true);
                }
                let log_in = Submission::new(settings.clone(), route.ehlo_name.clone(), Arc::clone(&tokens));
                let way = Way::new(log_in, connections(&route), Arc::clone(&self.metrics) as _);
                self.relay.reset();
                self.start(Arc::clone(&route), Arc::new(way), tokens, tending)
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
        tokens: Arc<Store>,
        tending: &mut tokio::task::JoinSet<()>,
    ) -> Current {
        let (stop, stopped) = watch::channel(false);
        let (relay, board, pace) = (Arc::clone(&self.relay), self.board.clone(), self.pace);
        let (probed, probe_stop) = (Arc::clone(&way), stopped.clone());
        tending.spawn(probe::run(probed, board, pace, probe_stop, relay));
        let tended = Arc::clone(&way);
        tending.spawn(async move { tended.tend(stopped).await });
        Current { route, way, tokens, stop }
    }

    /// The token store: the one in use, if it is for the same identity at the same authority.
    fn tokens(&self, settings: &ClientSubmission, before: Option<&Current>) -> Option<Arc<Store>> {
        let same = before.filter(|before| {
            matches!(&before.route.method, Method::ClientSubmission(old)
                if old.credential == settings.credential && old.authority == settings.authority)
        });
        match same {
            Some(before) => Some(Arc::clone(&before.tokens)),
            None => {
                let source = token::source_for(&settings.credential, &settings.authority)?;
                Some(Store::new(source, Arc::clone(&self.metrics) as _))
            }
        }
    }
}

/// How many connections the route allows.
fn connections(route: &RouteFile) -> usize {
    usize::try_from(route.limits.connections).unwrap_or(usize::MAX)
}
