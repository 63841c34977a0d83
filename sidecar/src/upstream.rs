//! From the configuration to the way out: builds it, probes it, and replaces it when the route changes.
//!
//! What did not change is kept: the access token when identity and authority are the same, the connections and what is
//! known of the way when the whole method is. A new secret in the credential's file changes nothing of these; it is used
//! at the next exchange, log-in or connection, and looked at soon when the way does not work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailroute_dns::resolver::Resolver;
use mailroute_route::RouteFile;
use mailroute_route::file::Method;
use tokio::sync::watch;

use crate::config::Config;
use crate::delivery::Deliver;
use crate::delivery::handover::Handover;
use crate::delivery::login::LogIn;
use crate::delivery::rehearsal;
use crate::delivery::submission::Submission;
use crate::delivery::way::{Open, Way};
use crate::dispatch::{Active, Dispatch};
use crate::health::Board;
use crate::metrics::Metrics;
use crate::probe::{self, Pace};
use crate::token::Sources;
use crate::watched::Watched;

/// Keeps the way out as the route describes it.
pub struct Upstream {
    /// Where the way out is published.
    pub active: watch::Sender<Option<Arc<Active>>>,
    /// Learns from probes, keeps to the route's limits, and starts anew with another way.
    pub dispatch: Arc<Dispatch>,
    /// What was met.
    pub board: Board,
    /// Where exchanges and probes are counted.
    pub metrics: Arc<Metrics>,
    /// When to probe.
    pub pace: Pace,
    /// How often to look for a changed credential.
    pub poll: Duration,
    /// Where MX records are looked up.
    pub resolver: Resolver,
    /// Who is asked for tokens.
    pub sources: Sources,
}

/// The way out in use.
struct Current {
    route: Arc<RouteFile>,
    way: Arc<dyn Deliver>,
    /// Of client submission.
    log_in: Option<Arc<LogIn>>,
    stop: watch::Sender<bool>,
}

/// A way out that was just made.
struct Built {
    way: Arc<dyn rehearsal::Way>,
    log_in: Option<Arc<LogIn>>,
    /// What it reads again while it is in use.
    files: Vec<PathBuf>,
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
                self.dispatch.follow(&route).await;
                current = Some(self.follow(route, current, &mut tending));
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
    ) -> Current {
        let same_way =
            |now: &Current| now.route.method == route.method && now.route.ehlo_name == route.ehlo_name;
        let current = match before {
            Some(now) if same_way(&now) => {
                now.way.resize(connections(&route));
                Current { route: Arc::clone(&route), ..now }
            }
            before => {
                let kept = before.as_ref().and_then(|before| before.log_in_for(&route.method));
                let built = build(&route, &self.sources, &self.resolver, &self.metrics, kept);
                if let Some(before) = before {
                    before.stop.send_replace(true);
                }
                self.dispatch.reset();
                self.start(Arc::clone(&route), built, tending)
            }
        };
        let deliver = Arc::clone(&current.way);
        self.active.send_replace(Some(Arc::new(Active { route, deliver })));
        current
    }

    fn start(&self, route: Arc<RouteFile>, built: Built, tending: &mut tokio::task::JoinSet<()>) -> Current {
        let Built { way, log_in, files } = built;
        let way: Arc<dyn Deliver> = way;
        let (stop, stopped) = watch::channel(false);
        let (wake, woken) = watch::channel(());
        let (dispatch, board, pace) = (Arc::clone(&self.dispatch), self.board.clone(), self.pace);
        let (probed, probe_stop) = (Arc::clone(&way), stopped.clone());
        tending.spawn(probe::run(probed, board, pace, woken, probe_stop, dispatch));
        let (health, replaced) = (self.board.subscribe(), log_in.clone());
        let look = move || {
            if let Some(log_in) = &replaced {
                log_in.replaced();
            }
            let health = health.borrow();
            if !health.is_well() || health.warns() {
                wake.send_replace(());
            }
        };
        let (poll, end) = (self.poll, stopped.clone());
        tending.spawn(async move { Watched::new(files).await.follow(poll, look, end).await });
        let tended = Arc::clone(&way);
        tending.spawn(async move { tended.tend(stopped).await });
        Current { route, way, log_in, stop }
    }
}

impl Current {
    /// The log-in in use, with its token, if it is for the same identity at the same authority.
    fn log_in_for(&self, method: &Method) -> Option<Arc<LogIn>> {
        match (&self.route.method, method) {
            (Method::ClientSubmission(old), Method::ClientSubmission(new))
                if old.credential == new.credential && old.authority == new.authority =>
            {
                self.log_in.clone()
            }
            _ => None,
        }
    }
}

/// The way out that `route` describes, with nothing in it yet.
pub fn way(
    route: &RouteFile,
    sources: &Sources,
    resolver: &Resolver,
    metrics: &Arc<Metrics>,
) -> Arc<dyn rehearsal::Way> {
    build(route, sources, resolver, metrics, None).way
}

/// The way out by the route's method. `kept` is a log-in that client submission can go on with.
fn build(
    route: &RouteFile,
    sources: &Sources,
    resolver: &Resolver,
    metrics: &Arc<Metrics>,
    kept: Option<Arc<LogIn>>,
) -> Built {
    let (ehlo_name, resolver) = (route.ehlo_name.clone(), resolver.clone());
    match &route.method {
        Method::ClientSubmission(settings) => {
            let new = || Arc::new(LogIn::new(settings, sources, Arc::clone(metrics) as _));
            let log_in = kept.unwrap_or_else(new);
            let submission = Submission::new(settings.clone(), ehlo_name, Arc::clone(&log_in));
            let mut files = LogIn::files(&settings.credential);
            files.extend(sources.files(&settings.credential));
            Built { way: over(submission, route, metrics), log_in: Some(log_in), files }
        }
        Method::SmtpRelay(settings) => {
            let observe = Arc::clone(metrics) as _;
            let handover = Handover::relay(settings.clone(), ehlo_name, resolver, observe);
            let files = settings.certificate.iter();
            let files = files.flat_map(|own| [own.certificate_file.clone(), own.key_file.clone()]);
            Built { way: over(handover, route, metrics), log_in: None, files: files.collect() }
        }
        Method::DirectSend(settings) => {
            let handover = Handover::direct(settings.clone(), ehlo_name, resolver);
            Built { way: over(handover, route, metrics), log_in: None, files: vec![] }
        }
    }
}

fn over(open: impl Open + 'static, route: &RouteFile, metrics: &Arc<Metrics>) -> Arc<dyn rehearsal::Way> {
    Arc::new(Way::new(open, connections(route), Arc::clone(metrics) as _))
}

/// How many connections the route allows.
fn connections(route: &RouteFile) -> usize {
    usize::try_from(route.limits.connections).unwrap_or(usize::MAX)
}
