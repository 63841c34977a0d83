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
//! In a gateway `gateway::server` stands where the listener does, and takes messages over from sidecars.
//!
//! Stop: the queue tries everything once more while the listener stays open until it is quiet, and what that leaves is handed over to
//! a gateway where there is one. Sessions finish their message, what is left then is said by name, and the rest ends and the
//! upstream gets its QUIT. A gateway takes messages over until the very end: they are safe on its volume.

mod parts;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mailroute_quota::Timing;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{timeout, timeout_at};

use self::parts::{Kept, Parts};
use crate::admin;
use crate::args::Run;
use crate::cli::queue::server::CommandTimeouts;
use crate::clock;
use crate::config::{self, Config};
use crate::gateway::check::CheckSchedule;
use crate::gateway::client::Gateways;
use crate::gateway::end;
use crate::gateway::identity::Identity;
use crate::gateway::smtp as gateway_smtp;
use crate::listener::port::PortListener;
use crate::listener::{Listeners, SessionCount};
use crate::net::control_service;
use crate::queue::{self, Queue, schedule};
use crate::shutdown::{self, Grace};
use crate::spool::{Recovered, Spool};
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
    /// How long messages are tried once more at the end, before the rest is handed over to a gateway.
    pub hand_over: Duration,
    /// How long an application waits for a gateway to store its message, beside the time that a large one takes.
    pub gateway_timeout: Duration,
    /// When to look whether a gateway can be reached.
    pub gateway_check: CheckSchedule,
    /// Between two looks for messages that wait here and belong to a gateway.
    pub backlog: Duration,
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
            hand_over: Duration::from_secs(2),
            gateway_timeout: Duration::from_secs(8),
            gateway_check: CheckSchedule::default(),
            backlog: Duration::from_secs(20),
            report: Duration::from_secs(1),
            queue_commands: CommandTimeouts::default(),
        }
    }
}

/// Longest time for the last report and the upstream's QUIT.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A running sidecar.
pub struct App {
    smtp: Vec<SocketAddr>,
    gateway: Option<SocketAddr>,
    admin: SocketAddr,
    grace: Grace,
    sessions: watch::Receiver<usize>,
    queue: Arc<Queue>,
    identity: Arc<Identity>,
    gateways: Arc<Gateways>,
    /// Ends with the last session of an application.
    listening: JoinHandle<()>,
    draining: watch::Sender<bool>,
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
        let config = config::load(&run.route, &run.pod_settings()).await;
        config::log(&Config::default(), &config);
        let sockets = Sockets::bind(&run, &config).await?;
        let admin_listener = bind_admin(run.admin_listen).await?;
        let (smtp, gateway, admin) = (sockets.smtp(), sockets.gateway(), admin_listener.local_addr()?);

        let (spool, found) = open_spool(&run.spool_dir, &config, gateway.is_some()).await?;
        control_service::note_address(&run.spool_dir, run.control.as_deref()).await;
        let (ending, stop) = watch::channel(false);
        let (closing, closed) = watch::channel(false);
        let (draining, is_draining) = watch::channel(false);
        let (config_sender, config) = watch::channel(config);
        let mut tasks = JoinSet::new();
        let (route, pod) = (run.route.clone(), run.pod_settings());
        tasks.spawn(config::watch_file(route, pod, run.route_poll, config_sender, stop.clone()));
        let kept = Kept { spool, found, draining: is_draining, shutting_down: closed.clone(), gateway };
        let parts = Parts::start(config, &run, intervals, kept, &stop, &mut tasks)?;
        let queue = Arc::clone(&parts.queue);
        let (identity, gateways) = (Arc::clone(&parts.identity), Arc::clone(&parts.gateways));
        parts.serve_sockets(&run, intervals.queue_commands, &stop, &mut tasks);
        tasks.spawn(parts.admin().run(admin_listener, stop.clone()));
        parts.settled().await;
        let sessions = SessionCount::new(Arc::clone(&parts.metrics) as _);
        let open = sessions.subscribe();
        let listening = match sockets {
            Sockets::Local(listeners) => {
                tokio::spawn(parts.port_listener(&run, sessions).run(listeners, closed))
            }
            Sockets::Gateway(listener) => {
                let network = gateway_smtp::bind(parts.network_parts(&run, sessions)).await?;
                tasks.spawn(parts.gateway_server().run(listener, stop));
                tokio::spawn(async move {
                    if let Some(network) = network {
                        network.run(closed).await;
                    }
                })
            }
        };

        tracing::info!(addresses = ?smtp, gateway = ?gateway, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
        let grace = Grace { settle: intervals.settle, hand_over: intervals.hand_over, total: run.grace };
        Ok(Self {
            smtp,
            gateway,
            admin,
            grace,
            sessions: open,
            queue,
            identity,
            gateways,
            listening,
            draining,
            closing,
            ending,
            tasks,
        })
    }

    /// Where applications connect; nowhere in a gateway.
    pub fn smtp_addresses(&self) -> &[SocketAddr] {
        &self.smtp
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where sidecars hand messages over, in a gateway.
    pub const fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway
    }

    /// The certificate by which this pod is known to the others of its route.
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The gateways of the route, as this pod reaches them.
    pub const fn gateways(&self) -> &Arc<Gateways> {
        &self.gateways
    }

    /// The queue, for whoever looks after it by hand.
    pub const fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Stops politely within the grace. Mail is sent for all of it but the last seconds, which are for the last report and
    /// the upstream's QUIT; an eighth of it is for sessions that are in a message. What waits is handed over meanwhile.
    pub async fn stop(self) {
        let Self { grace, sessions, queue, gateways, gateway, mut listening, mut tasks, .. } = self;
        let (draining, closing, ending) = (self.draining, self.closing, self.ending);
        let Grace { settle, hand_over, total } = grace;
        let last = (total / 8).min(LAST_WORDS);
        let drained_by = clock::now() + total.saturating_sub(last);
        // First, as the end may be cut short after the report that follows.
        if gateway.is_none() {
            let _ = timeout(settle, queue.name_left()).await;
        }
        draining.send_replace(true);
        queue.drain();
        let (closed, is_closed) = watch::channel(false);
        let sessions_end = async {
            // The applications of the pod have no other place to go to; clients of a gateway have.
            let open = if gateway.is_some() { total / 4 } else { total * 3 / 4 };
            shutdown::settled(sessions, Grace { total: open, ..grace }).await;
            // From now on nobody waits for the upstream: what is not delivered is kept.
            closing.send_replace(true);
            if timeout(total / 8, &mut listening).await.is_err() {
                tracing::warn!("sessions did not end in time; their unfinished messages were not accepted");
                listening.abort();
            }
            closed.send_replace(true);
            // What came of attempts whose message a gateway has.
            timeout_at(drained_by, gateways.all_told()).await.ok();
        };
        tokio::join!(sessions_end, end::drained(&queue, &gateways, hand_over, drained_by, is_closed));
        let end = clock::now() + last;
        timeout_at(end, gateways.close()).await.ok();
        queue.report_left(last / 2, gateway.is_some()).await;
        ending.send_replace(true);
        if timeout_at(end, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("not all tasks ended in time");
        }
        tracing::info!("stopped");
    }
}

/// Where mail comes in.
enum Sockets {
    /// From the applications of the pod.
    Local(Listeners),
    /// From sidecars: this is a gateway.
    Gateway(TcpListener),
}

impl Sockets {
    async fn bind(run: &Run, config: &Config) -> anyhow::Result<Self> {
        let Some(address) = run.gateway.gateway else {
            return Ok(Self::Local(Listeners::bind(PortListener::port(run.port, config)).await?));
        };
        let bound = admin::bind(address).await;
        let listener = bound.with_context(|| format!("cannot listen on {address}; see --gateway"))?;
        Ok(Self::Gateway(listener))
    }

    fn smtp(&self) -> Vec<SocketAddr> {
        match self {
            Self::Local(listeners) => listeners.addresses(),
            Self::Gateway(_) => vec![],
        }
    }

    fn gateway(&self) -> Option<SocketAddr> {
        match self {
            Self::Local(_) => None,
            Self::Gateway(listener) => listener.local_addr().ok(),
        }
    }
}

async fn open_spool(
    directory: &Path,
    config: &Config,
    is_gateway: bool,
) -> anyhow::Result<(Spool, Recovered)> {
    let limits = queue::limits(config.route.as_deref().map(|route| &route.delivery));
    let opened = Spool::open(directory, limits).await;
    let (spool, mut found) =
        opened.with_context(|| format!("cannot keep mail in {}; see --spool-dir", directory.display()))?;
    if is_gateway {
        let receipts = spool.keep_receipts(&mut found).await;
        receipts.with_context(|| format!("cannot remember messages in {}", directory.display()))?;
    }
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
