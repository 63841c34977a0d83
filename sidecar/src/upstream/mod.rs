//! From the configuration to the transport: builds it, probes it, and replaces it when the route changes.
//!
//! What did not change is kept: the access token when identity and authority are the same, the connections and what is
//! known of the way when the whole method is. A new secret in the credential's file changes nothing of these; it is used
//! at the next exchange, log-in or connection, and looked at soon when the way does not work.

pub mod probe;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailroute_dns::resolver::Resolver;
use mailroute_route::RouteFile;
use mailroute_route::file::{ClientSubmission, Credential, Graph, Method, SendingMailbox, SubmissionService};
use tokio::sync::watch;

use self::probe::ProbeSchedule;
use crate::attempt::lanes::{Lanes, assign};
use crate::attempt::{Active, Attempts};
use crate::config::Config;
use crate::delivery::Transport;
use crate::delivery::client_submission::SubmissionConnector;
use crate::delivery::graph::GraphTransport;
use crate::delivery::graph::fallback::{SUBMISSION_CONNECTIONS, WithFallback};
use crate::delivery::login::LogIn;
use crate::delivery::smtp_relay::SmartHostConnector;
use crate::delivery::transport::{Connect, SmtpTransport};
use crate::file_watcher::FileWatcher;
use crate::metrics::Metrics;
use crate::token::{Sources, store};

/// High Volume Email refuses a token that ends within ten minutes (`501 5.5.127`), and some of its servers count otherwise.
const HIGH_VOLUME_MARGIN: Duration = Duration::from_secs(20 * 60);

/// Keeps the transport as the route describes it.
pub struct Upstream {
    /// Where transports are published, one for each mailbox. A lane learns from probes, keeps to the route's limits, and starts
    /// anew with another way.
    pub lanes: Arc<Lanes>,
    /// Where exchanges and probes are counted.
    pub metrics: Arc<Metrics>,
    /// When to probe.
    pub pace: ProbeSchedule,
    /// How often to look for a changed credential.
    pub poll: Duration,
    /// Where MX records are looked up.
    pub resolver: Resolver,
    /// Who is asked for tokens.
    pub sources: Sources,
}

/// The transport in use.
struct Current {
    route: Arc<RouteFile>,
    transport: Arc<dyn Transport>,
    /// Of client submission and Graph.
    log_in: Option<Arc<LogIn>>,
    stop: watch::Sender<bool>,
}

/// A transport that was just made.
struct Built {
    transport: Arc<dyn Transport>,
    log_in: Option<Arc<LogIn>>,
    /// What it reads again while it is in use.
    files: Vec<PathBuf>,
}

impl Upstream {
    /// Follows the configuration until `stop`; then ends the connection politely.
    pub async fn run(self, mut config: watch::Receiver<Config>, mut stop: watch::Receiver<bool>) {
        let mut current: Vec<Option<Current>> = self.lanes.iter().map(|_| None).collect();
        let mut tending = tokio::task::JoinSet::new();
        loop {
            let route = config.borrow_and_update().route.clone();
            if let Some(route) = route {
                self.follow_all(&route, &mut current, &mut tending).await;
            }
            tokio::select! {
                changed = config.changed() => if changed.is_err() { break },
                _ = stop.wait_for(|&stop| stop) => break,
            }
        }
        for current in current.into_iter().flatten() {
            current.stop.send_replace(true);
        }
        while tending.join_next().await.is_some() {}
    }

    /// Brings each lane to its part of the route. Those that have nothing to do any more rest first, so that no mailbox is in two.
    async fn follow_all(
        &self,
        route: &RouteFile,
        current: &mut [Option<Current>],
        tending: &mut tokio::task::JoinSet<()>,
    ) {
        let wanted = route.lanes();
        self.lanes.name(several(&route.method));
        let mailbox = |now: &Option<Current>| Some(now.as_ref()?.route.method.mailbox()?.to_owned());
        let now: Vec<_> = current.iter().map(mailbox).collect();
        let names: Vec<_> = wanted.iter().map(|route| route.method.mailbox()).collect();
        let assigned = assign(&now, &names);
        let log_in = wanted
            .first()
            .and_then(|first| current.iter().flatten().find_map(|current| current.log_in_for(&first.method)));
        for (at, current) in current.iter_mut().enumerate() {
            if assigned.get(at).copied().flatten().is_none()
                && let Some(current) = current.take()
            {
                self.lanes.publish(at, None);
                self.lanes.get(at).iter().for_each(|attempts| attempts.rest());
                current.stop.send_replace(true);
            }
        }
        let follows = |current: &Option<Current>, route: &RouteFile| {
            current.as_ref().is_some_and(|now| *now.route == *route)
        };
        let lane = |at: usize| Some((self.lanes.get(at)?, wanted.get(assigned.get(at).copied()??)?));
        for (at, current) in current.iter().enumerate() {
            if let Some((attempts, route)) = lane(at)
                && !follows(current, route)
            {
                // What is sent as one mailbox does not count as another's.
                if mailbox(current).as_deref() != route.method.mailbox() {
                    self.lanes.publish(at, None);
                }
                attempts.follow(route).await;
            }
        }
        let mut log_in = log_in;
        // At once, and the first lane last: a sidecar that starts takes mail as soon as that one has its route.
        for (at, current) in current.iter_mut().enumerate().rev() {
            let Some((attempts, route)) = lane(at) else { continue };
            if !follows(current, route) {
                let route = Arc::new(route.clone());
                *current = Some(self.follow(at, attempts, route, current.take(), log_in.as_ref(), tending));
            }
            // One application serves all mailboxes, so they share its token.
            log_in = log_in.or_else(|| current.as_ref()?.log_in.clone());
        }
    }

    fn follow(
        &self,
        at: usize,
        attempts: &Arc<Attempts>,
        route: Arc<RouteFile>,
        before: Option<Current>,
        log_in: Option<&Arc<LogIn>>,
        tending: &mut tokio::task::JoinSet<()>,
    ) -> Current {
        let same_transport =
            |now: &Current| now.route.method == route.method && now.route.ehlo_name == route.ehlo_name;
        let current = match before {
            Some(now) if same_transport(&now) => {
                now.transport.resize(connections(&route));
                Current { route: Arc::clone(&route), ..now }
            }
            before => {
                let kept = before.as_ref().and_then(|before| before.log_in_for(&route.method));
                let kept = kept.or_else(|| log_in.cloned());
                let built = build(&route, &self.sources, &self.resolver, &self.metrics, kept);
                if let Some(before) = before {
                    before.stop.send_replace(true);
                }
                attempts.reset();
                self.start(attempts, Arc::clone(&route), built, tending)
            }
        };
        let transport = Arc::clone(&current.transport);
        self.lanes.publish(at, Some(Arc::new(Active { route, transport })));
        current
    }

    fn start(
        &self,
        attempts: &Arc<Attempts>,
        route: Arc<RouteFile>,
        built: Built,
        tending: &mut tokio::task::JoinSet<()>,
    ) -> Current {
        let Built { transport, log_in, files } = built;
        let (stop, stopped) = watch::channel(false);
        let (wake, woken) = watch::channel(());
        let (traffic, health, pace) = (Arc::clone(attempts), attempts.health().clone(), self.pace);
        let (probed, probe_stop) = (Arc::clone(&transport), stopped.clone());
        tending.spawn(probe::run(probed, health, pace, woken, probe_stop, traffic));
        let (health, replaced) = (attempts.health().subscribe(), log_in.clone());
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
        tending.spawn(async move { FileWatcher::new(files).await.follow(poll, look, end).await });
        let tended = Arc::clone(&transport);
        tending.spawn(async move { tended.tend(stopped).await });
        Current { route, transport, log_in, stop }
    }
}

impl Current {
    /// The log-in in use, with its token, if it is for the same identity at the same authority.
    fn log_in_for(&self, method: &Method) -> Option<Arc<LogIn>> {
        match (&self.route.method, method) {
            (Method::ClientSubmission(old), Method::ClientSubmission(new))
                if old.service == new.service
                    && old.credential == new.credential
                    && old.authority == new.authority =>
            {
                self.log_in.clone()
            }
            (Method::Graph(old), Method::Graph(new))
                if old.credential == new.credential && old.authority == new.authority =>
            {
                self.log_in.clone()
            }
            _ => None,
        }
    }
}

/// The transports that these routes describe, with no connection yet. They are those of one route's mailboxes, and share a token.
pub fn transports(
    routes: &[RouteFile],
    sources: &Sources,
    resolver: &Resolver,
    metrics: &Arc<Metrics>,
) -> Vec<Arc<dyn Transport>> {
    let mut log_in = None;
    let transport = |route: &RouteFile| {
        let built = build(route, sources, resolver, metrics, log_in.clone());
        log_in = log_in.take().or(built.log_in);
        built.transport
    };
    routes.iter().map(transport).collect()
}

/// The transport for the route's method. `kept` is a log-in that it can go on with.
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
            let log_in = kept.unwrap_or_else(|| log_in_of(settings, sources, metrics));
            let connector = SubmissionConnector::new(settings.clone(), ehlo_name, Arc::clone(&log_in));
            let files = credential_files(&settings.credential, sources);
            Built { transport: over(connector, route, metrics), log_in: Some(log_in), files }
        }
        Method::Graph(settings) => {
            let Graph { credential, authority, .. } = settings;
            let observe = Arc::clone(metrics);
            let new = || LogIn::new(credential, authority, store::MIN_LEFT, sources, observe as _);
            let log_in = kept.unwrap_or_else(|| Arc::new(new()));
            let proxy = sources.proxy_to(authority);
            let (settings, connections) = (settings.clone(), connections(route));
            let files = credential_files(credential, sources);
            let fallback = settings.submission();
            let observe = Arc::clone(metrics) as _;
            let graph = GraphTransport::new(settings, Arc::clone(&log_in), proxy, connections, observe);
            let transport: Arc<dyn Transport> = match fallback {
                None => Arc::new(graph),
                Some(submission) => {
                    let log_in = log_in_of(&submission, sources, metrics);
                    let connector = SubmissionConnector::new(submission, ehlo_name, log_in);
                    let connections = connections.min(SUBMISSION_CONNECTIONS);
                    let submission = SmtpTransport::new(connector, connections, Arc::clone(metrics) as _);
                    Arc::new(WithFallback::new(graph, submission))
                }
            };
            Built { transport, log_in: Some(log_in), files }
        }
        Method::SmtpRelay(settings) => {
            let observe = Arc::clone(metrics) as _;
            let connector = SmartHostConnector::relay(settings.clone(), ehlo_name, resolver, observe);
            let files = settings.certificate.iter();
            let files = files.flat_map(|own| [own.certificate_file.clone(), own.key_file.clone()]);
            Built { transport: over(connector, route, metrics), log_in: None, files: files.collect() }
        }
        Method::DirectSend(settings) => {
            let connector = SmartHostConnector::direct(settings.clone(), ehlo_name, resolver);
            Built { transport: over(connector, route, metrics), log_in: None, files: vec![] }
        }
    }
}

fn log_in_of(settings: &ClientSubmission, sources: &Sources, metrics: &Arc<Metrics>) -> Arc<LogIn> {
    let margin = match settings.service {
        SubmissionService::HighVolumeEmail => HIGH_VOLUME_MARGIN,
        SubmissionService::ExchangeOnline | SubmissionService::CommunicationServices => store::MIN_LEFT,
    };
    let ClientSubmission { credential, authority, .. } = settings;
    Arc::new(LogIn::new(credential, authority, margin, sources, Arc::clone(metrics) as _))
}

/// What is read again while tokens are had with `credential`.
fn credential_files(credential: &Credential, sources: &Sources) -> Vec<PathBuf> {
    let mut files = LogIn::files(credential);
    files.extend(sources.files(credential));
    files
}

fn over(open: impl Connect + 'static, route: &RouteFile, metrics: &Arc<Metrics>) -> Arc<dyn Transport> {
    Arc::new(SmtpTransport::new(open, connections(route), Arc::clone(metrics) as _))
}

/// The mailboxes among which the sender chooses.
fn several(method: &Method) -> &[SendingMailbox] {
    match method {
        Method::ClientSubmission(submission) => &submission.mailboxes,
        _ => &[],
    }
}

/// How many connections the route allows.
fn connections(route: &RouteFile) -> usize {
    usize::try_from(route.limits.connections).unwrap_or(usize::MAX)
}
