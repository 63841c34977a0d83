//! The wiring: the only file that sees everything. What starts, in which order, and what stops, in which order.
//!
//! ```text
//!  config ──► upstream ──► attempt ◄── accept ◄── listener ◄── applications
//!    │           │ probe      │   ▲         │ keep
//!    │           ▼            │   └─ queue ◄┘─► spool
//!    └──► report ◄── health ◄─┘            cli::health_check ◄── kubelet    admin ◄── Prometheus
//!                                 └──── cli::queue ◄── a person's commands
//! ```
//!
//! Stop: the queue tries everything once more while the listener stays open until it is quiet; sessions finish their message,
//! what is left is said by name, then the rest ends and the upstream gets its QUIT.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use mailroute_dns::resolver::Resolver;
use mailroute_quota::Timing;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{timeout, timeout_at};

use crate::accept::MessageAcceptor;
use crate::admin::{self, Admin};
use crate::args::Run;
use crate::attempt::Attempts;
use crate::cli::health_check;
use crate::cli::queue::handler::QueueHandler;
use crate::cli::queue::server::{CommandServer, CommandTimeouts};
use crate::cli::socket::Listening;
use crate::clock;
use crate::config::{self, Config};
use crate::gateway;
use crate::listener::port::PortListener;
use crate::listener::settings;
use crate::listener::{Listeners, Service, SessionCount, SessionLimits};
use crate::message::body::Scratch;
use crate::metrics::Metrics;
use crate::net::control_service;
use crate::outcome::health::SharedHealth;
use crate::queue::{self, Queue, schedule};
use crate::report::Reporter;
use crate::route_deleted::RouteDeleted;
use crate::shutdown::{self, Grace};
use crate::spool::{Layout, Recovered, Spool};
use crate::token::Sources;
use crate::upstream::Upstream;
use crate::upstream::probe::ProbeSchedule;

/// Times that no user sets; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// When to probe.
    pub probe: ProbeSchedule,
    /// The unit in which a route that does not work is left alone.
    pub pause: Duration,
    /// The windows in which Microsoft counts.
    pub quota: Timing,
    /// When a kept message is tried again.
    pub queue: schedule::RetrySchedule,
    /// How long no session must have been open before the listener closes.
    pub settle: Duration,
    /// Least time between two reports.
    pub report: Duration,
    /// How long a person's command may take to be said.
    pub queue_commands: CommandTimeouts,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            probe: ProbeSchedule::default(),
            pause: Duration::from_secs(1),
            quota: Timing::default(),
            queue: schedule::RetrySchedule::default(),
            settle: Duration::from_millis(500),
            report: Duration::from_secs(1),
            queue_commands: CommandTimeouts::default(),
        }
    }
}

/// Longest wait at the start for the route to be set up, which is a matter of reading a file or two.
const SETTLING: Duration = Duration::from_secs(2);

/// Longest time for the last report and the upstream's QUIT.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A running sidecar.
pub struct App {
    smtp: Vec<SocketAddr>,
    admin: SocketAddr,
    grace: Grace,
    sessions: watch::Receiver<usize>,
    queue: Arc<Queue>,
    port_listener: JoinHandle<()>,
    closing: watch::Sender<bool>,
    ending: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl App {
    /// Starts everything. A route that is missing or invalid is no error: mail is answered 451 until there is one.
    ///
    /// # Errors
    /// When a port cannot be listened on or the spool cannot be opened.
    pub async fn start(run: Run, intervals: Intervals) -> anyhow::Result<Self> {
        let config = config::load(&run.route, run.control.as_deref()).await;
        config::log(&Config::default(), &config);
        let listeners = Listeners::bind(PortListener::port(run.port, &config)).await?;
        let admin_listener = bind_admin(run.admin_listen).await?;
        let (smtp, admin) = (listeners.addresses(), admin_listener.local_addr()?);

        let (spool, found) = open_spool(&run.spool_dir, &config).await?;
        control_service::note_address(&run.spool_dir, run.control.as_deref()).await;
        let (ending, stop) = watch::channel(false);
        let (closing, closed) = watch::channel(false);
        let (config_sender, config) = watch::channel(config);
        let mut tasks = JoinSet::new();
        let (route, control) = (run.route.clone(), run.control.clone());
        tasks.spawn(config::watch_file(route, control, run.route_poll, config_sender, stop.clone()));
        let kept = Kept { spool, found, shutting_down: closed.clone() };
        let parts = Parts::start(config, &run, intervals, kept, &stop, &mut tasks)?;
        let queue = Arc::clone(&parts.queue);
        if let Some(served) = parts.queue_commands(&run.spool_dir, intervals.queue_commands) {
            tasks.spawn(served.run(stop.clone()));
        }
        let layout = Layout::new(&run.spool_dir);
        match Listening::bind(&layout, layout.alive()) {
            Ok(listening) => {
                tasks.spawn(health_check::answer(listening, Arc::clone(&parts.serving), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the spool's volume does not support sockets: probes use the metrics port");
            }
        }
        tasks.spawn(parts.admin().run(admin_listener, stop));
        parts.settled().await;
        let sessions = SessionCount::new(Arc::clone(&parts.metrics) as _);
        let open = sessions.subscribe();
        let network = gateway::smtp::bind(parts.network_parts(&run, Arc::clone(&sessions))).await?;
        let port_listener = parts.port_listener(&run, sessions).run(listeners, closed.clone());
        let port_listener = tokio::spawn(async move {
            tokio::join!(port_listener, async {
                if let Some(network) = network {
                    network.run(closed).await;
                }
            });
        });

        tracing::info!(addresses = ?smtp, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
        let grace = Grace { settle: intervals.settle, total: run.grace };
        Ok(Self { smtp, admin, grace, sessions: open, queue, port_listener, closing, ending, tasks })
    }

    /// Where applications connect.
    pub fn smtp_addresses(&self) -> &[SocketAddr] {
        &self.smtp
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The queue, for whoever looks after it by hand.
    pub const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Stops politely within the grace. Mail is sent for all of it but the last seconds, which are for the last report and
    /// the upstream's QUIT; an eighth of it is for sessions that are in a message.
    pub async fn stop(mut self) {
        let Grace { settle, total } = self.grace;
        let last = (total / 8).min(LAST_WORDS);
        let drained_by = clock::now() + total.saturating_sub(last);
        // First, as the end may be cut short after the report that follows.
        let _ = timeout(settle, self.queue.name_left()).await;
        self.queue.drain();
        shutdown::settled(self.sessions, Grace { settle, total: total * 3 / 4 }).await;
        // From now on nobody waits for the upstream: what is not delivered is kept.
        self.closing.send_replace(true);
        if timeout(total / 8, &mut self.port_listener).await.is_err() {
            tracing::warn!("sessions did not end in time; their unfinished messages were not accepted");
            self.port_listener.abort();
        }
        self.queue.drained(drained_by).await;
        let end = clock::now() + last;
        self.queue.report_left(last / 2).await;
        self.ending.send_replace(true);
        if timeout_at(end, async { while self.tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("not all tasks ended in time");
        }
        tracing::info!("stopped");
    }
}

/// What is kept over the end of a process.
struct Kept {
    spool: Spool,
    found: Recovered,
    /// The end is near.
    shutting_down: watch::Receiver<bool>,
}

/// What several tasks share.
struct Parts {
    config: watch::Receiver<Config>,
    metrics: Arc<Metrics>,
    health: SharedHealth,
    attempts: Arc<Attempts>,
    queue: Arc<Queue>,
    acceptor: Arc<MessageAcceptor>,
    scratch: Arc<dyn Scratch>,
    serving: Arc<AtomicBool>,
}

impl Parts {
    /// Makes them, and starts what works on them until `stop`.
    fn start(
        config: watch::Receiver<Config>,
        run: &Run,
        intervals: Intervals,
        Kept { spool, found, shutting_down }: Kept,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new().context("metrics cannot be registered")?);
        let (publish, active) = watch::channel(None);
        let health = SharedHealth::default();
        let attempts = Attempts::new(
            active,
            health.clone(),
            Arc::clone(&metrics),
            &run.spool_dir,
            intervals.quota,
            intervals.pause,
        );
        let scratch = spool.scratch();
        let queue = Queue::new(spool, found, Arc::clone(&attempts), Arc::clone(&metrics), intervals.queue);
        let (attempting, queued) = (Arc::clone(&attempts), Arc::clone(&queue));
        let acceptor =
            MessageAcceptor::new(attempting, queued, Arc::clone(&metrics), run.reply_timeout, shutting_down);
        let parts =
            Self { config, metrics, health, attempts, queue, acceptor, scratch, serving: Arc::default() };
        let upstream = Upstream {
            active: publish,
            attempts: Arc::clone(&parts.attempts),
            health: parts.health.clone(),
            metrics: Arc::clone(&parts.metrics),
            pace: intervals.probe,
            poll: run.route_poll,
            resolver: Resolver::new(run.nameserver),
            sources: Sources::new(parts.config.clone(), &run.token_proxy),
        };
        tasks.spawn(upstream.run(parts.config.clone(), stop.clone()));
        tasks.spawn(Arc::clone(&parts.queue).run(stop.clone()));
        tasks.spawn(parts.reporter(intervals.report, &run.spool_dir).run(stop.clone()));
        tasks.spawn(count_configs(parts.config.clone(), Arc::clone(&parts.metrics), stop.clone()));
        Ok(parts)
    }

    /// Completes when a route that is there is in use, so that the first message does not come before it.
    async fn settled(&self) {
        if self.config.borrow().route.is_some() {
            let mut routes = self.attempts.routes();
            let in_use = routes.wait_for(Option::is_some);
            if timeout(SETTLING, in_use).await.is_err() {
                tracing::warn!("setting up the route takes long; mail is answered with 451 until then");
            }
        }
    }

    fn reporter(&self, least: Duration, directory: &Path) -> Reporter {
        let (attempts, queue, left) =
            (Arc::clone(&self.attempts), Arc::clone(&self.queue), Arc::clone(&self.queue));
        Reporter {
            config: self.config.clone(),
            health: self.health.subscribe(),
            usage: Box::new(move || attempts.usage()),
            notable: queue.notable(),
            queue: Box::new(move || queue.figures().into()),
            left: Box::new(move || left.left()),
            deleted: RouteDeleted::new(directory),
            metrics: Arc::clone(&self.metrics),
            least,
            budget: Arc::clone(self.attempts.budget()),
        }
    }

    fn admin(&self) -> Admin {
        Admin {
            serving: Arc::clone(&self.serving),
            config: self.config.clone(),
            health: self.health.subscribe(),
            metrics: Arc::clone(&self.metrics),
            budget: Arc::clone(self.attempts.budget()),
            queue: Arc::clone(&self.queue),
        }
    }

    /// Where a person's commands are taken. Mail does not wait for that to work.
    fn queue_commands(&self, directory: &Path, timeouts: CommandTimeouts) -> Option<CommandServer> {
        let layout = Layout::new(directory);
        match Listening::bind(&layout, layout.socket()) {
            Ok(listening) => {
                let handler = Arc::new(QueueHandler::new(Arc::clone(&self.queue), directory));
                Some(CommandServer { listening, handler, timeouts })
            }
            Err(error) => {
                tracing::warn!(%error, "commands are not available: the spool's volume does not support sockets");
                None
            }
        }
    }

    /// What a gateway's listener for clients without a sidecar is made of.
    fn network_parts(&self, run: &Run, sessions: Arc<SessionCount>) -> gateway::smtp::Parts {
        let service = Service {
            accept: Arc::clone(&self.acceptor) as _,
            settings: settings::source(self.config.clone()),
            observer: sessions,
            scratch: Arc::clone(&self.scratch),
            limits: SessionLimits { wait: run.session_wait, ..SessionLimits::default() },
        };
        gateway::smtp::Parts {
            options: run.gateway.clone(),
            service,
            config: self.config.clone(),
            poll: run.route_poll,
            review: None,
        }
    }

    fn port_listener(self, run: &Run, sessions: Arc<SessionCount>) -> PortListener {
        let service = Service {
            accept: self.acceptor,
            settings: settings::source(self.config.clone()),
            observer: sessions,
            scratch: self.scratch,
            limits: SessionLimits { wait: run.session_wait, ..SessionLimits::default() },
        };
        PortListener { service, config: self.config, fixed: run.port, serving: self.serving }
    }
}

async fn open_spool(directory: &Path, config: &Config) -> anyhow::Result<(Spool, Recovered)> {
    let limits = queue::limits(config.route.as_deref().map(|route| &route.delivery));
    let opened = Spool::open(directory, limits).await;
    let (spool, found) =
        opened.with_context(|| format!("cannot keep mail in {}; see --spool-dir", directory.display()))?;
    if !found.waiting.is_empty() || found.dead > 0 || found.set_aside > 0 {
        let (waiting, dead_letters, set_aside) = (found.waiting.len(), found.dead, found.set_aside);
        tracing::info!(waiting, dead_letters, set_aside, "found in the spool");
    }
    Ok((spool, found))
}

async fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = admin::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} for /livez and /metrics; see --admin-listen"))
}

/// Keeps the metrics about the configuration true.
async fn count_configs(
    mut config: watch::Receiver<Config>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        metrics.configured(&config.borrow_and_update());
        tokio::select! {
            changed = config.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|&stop| stop) => return,
        }
    }
}
