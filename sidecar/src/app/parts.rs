//! What several tasks of the program share, and what works on it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use mailroute_dns::resolver::Resolver;
use mailroute_route::identity::Role;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Intervals;
use crate::accept::MessageAcceptor;
use crate::admin::Admin;
use crate::args::Run;
use crate::attempt::lanes::Lanes;
use crate::cli::health_check::{self, Obstacle};
use crate::cli::queue::handler::QueueHandler;
use crate::cli::queue::server::{CommandServer, CommandTimeouts};
use crate::cli::socket::Listening;
use crate::config::Config;
use crate::gateway::client::Gateways;
use crate::gateway::identity::{IDENTITY_FILE, Identity};
use crate::gateway::server::GatewayServer;
use crate::gateway::smtp as gateway_smtp;
use crate::gateway::smtp::review::ReviewByOperator;
use crate::gateway::{backlog, check};
use crate::listener::port::PortListener;
use crate::listener::settings;
use crate::listener::{Service, SessionCount, SessionLimits};
use crate::message::body::Scratch;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::report::Reporter;
use crate::route_deleted::RouteDeleted;
use crate::smtp::mailboxes::Paused;
use crate::spool::{Layout, Recovered, Spool};
use crate::token::Sources;
use crate::upstream::Upstream;

/// Longest wait at the start for the route to be set up, which is a matter of reading a file or two.
const SETTLING: Duration = Duration::from_secs(2);

/// What is kept over the end of a process.
pub(super) struct Kept {
    pub spool: Spool,
    pub found: Recovered,
    /// The end has begun.
    pub draining: watch::Receiver<bool>,
    /// Nobody may wait any longer.
    pub shutting_down: watch::Receiver<bool>,
    /// This is a gateway, which listens there.
    pub gateway: Option<SocketAddr>,
}

/// What several tasks share.
pub(super) struct Parts {
    config: watch::Receiver<Config>,
    pub metrics: Arc<Metrics>,
    lanes: Arc<Lanes>,
    pub queue: Arc<Queue>,
    pub identity: Arc<Identity>,
    pub gateways: Arc<Gateways>,
    acceptor: Arc<MessageAcceptor>,
    scratch: Arc<dyn Scratch>,
    draining: watch::Receiver<bool>,
    serving: Arc<AtomicBool>,
}

impl Parts {
    /// Makes them, and starts what works on them until `stop`.
    pub fn start(
        config: watch::Receiver<Config>,
        run: &Run,
        intervals: Intervals,
        Kept { spool, found, draining, shutting_down, gateway }: Kept,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new().context("metrics cannot be registered")?);
        let lanes = Lanes::new(&metrics, &run.spool_dir, intervals.quota, intervals.pause);
        let scratch = spool.scratch();
        let queue = Queue::new(spool, found, Arc::clone(&lanes), Arc::clone(&metrics), intervals.queue);
        let is_gateway = gateway.is_some();
        let role = if is_gateway { Role::Gateway } else { Role::Sidecar };
        let identity = Identity::new(config.clone(), role);
        identity.keep_in(run.spool_dir.join(IDENTITY_FILE));
        let expiry = Arc::clone(&metrics);
        identity.observe(move |not_after| expiry.identity(not_after));
        let own_port = gateway.map(|address| address.port());
        let gateways = Gateways::new(Arc::clone(&identity), own_port, Arc::clone(&metrics));
        let acceptor = MessageAcceptor::new(
            Arc::clone(&lanes),
            Arc::clone(&queue),
            // What waits in a gateway is where it should be.
            (!is_gateway).then(|| Arc::clone(&gateways)),
            Arc::clone(&metrics),
            (run.reply_timeout, intervals.gateway_timeout),
            shutting_down,
        );
        let serving = Arc::default();
        let parts =
            Self { config, metrics, lanes, queue, identity, gateways, acceptor, scratch, draining, serving };
        parts.work(run, intervals, stop, tasks);
        Ok(parts)
    }

    /// Starts what works on them until `stop`.
    fn work(&self, run: &Run, intervals: Intervals, stop: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
        let upstream = Upstream {
            lanes: Arc::clone(&self.lanes),
            metrics: Arc::clone(&self.metrics),
            pace: intervals.probe,
            poll: run.route_poll,
            resolver: Resolver::new(run.nameserver),
            sources: Sources::new(self.config.clone(), &run.token_proxy),
        };
        tasks.spawn(upstream.run(self.config.clone(), stop.clone()));
        tasks.spawn(Arc::clone(&self.queue).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.identity).run(stop.clone()));
        let (gateways, identity) = (Arc::clone(&self.gateways), Arc::clone(&self.identity));
        tasks.spawn(check::run(gateways, identity, intervals.gateway_check, stop.clone()));
        if !self.gateways.is_one_of_them() {
            let (queue, gateways) = (Arc::clone(&self.queue), Arc::clone(&self.gateways));
            // What is left when the end begins is handed over by it.
            let (config, draining) = (self.config.clone(), self.draining.clone());
            tasks.spawn(backlog::run(queue, gateways, config, intervals.backlog, draining));
        }
        tasks.spawn(self.reporter(intervals.report, &run.spool_dir).run(stop.clone()));
        tasks.spawn(count_configs(self.config.clone(), Arc::clone(&self.metrics), stop.clone()));
    }

    /// Completes when a route that is there is in use, so that the first message does not come before it.
    pub async fn settled(&self) {
        if self.config.borrow().route.is_some() {
            let mut routes = self.lanes.of(None).routes();
            let in_use = routes.wait_for(Option::is_some);
            if timeout(SETTLING, in_use).await.is_err() {
                tracing::warn!("setting up the route takes long; mail is answered with 451 until then");
            }
        }
    }

    fn reporter(&self, least: Duration, directory: &Path) -> Reporter {
        let (waiting, queue, left) =
            (Arc::clone(&self.queue), Arc::clone(&self.queue), Arc::clone(&self.queue));
        Reporter {
            config: self.config.clone(),
            health: self.lanes.health(),
            notable: queue.notable(),
            queue: Box::new(move || queue.figures().into()),
            left: Box::new(move || left.left()),
            gateway: self.gateways.error(),
            deleted: RouteDeleted::new(directory),
            metrics: Arc::clone(&self.metrics),
            least,
            lanes: Arc::clone(&self.lanes),
            waiting: Box::new(move || waiting.waiting_by_lane()),
        }
    }

    /// What keeps the pod from being ready. A gateway without a certificate takes nothing over, and another may; one that also serves SMTP
    /// clients stays ready for them.
    fn obstacle(&self, run: &Run) -> Obstacle {
        let identity = Arc::clone(&self.identity);
        let needs_certificate = self.gateways.is_one_of_them() && run.gateway.smtp_listen.is_none();
        Box::new(move || {
            let error = identity.ready().err().filter(|_| needs_certificate)?;
            Some(identity.problem().unwrap_or_else(|| error.to_string()))
        })
    }

    pub fn admin(&self) -> Admin {
        Admin {
            serving: Arc::clone(&self.serving),
            config: self.config.clone(),
            health: self.lanes.health(),
            metrics: Arc::clone(&self.metrics),
            lanes: Arc::clone(&self.lanes),
            queue: Arc::clone(&self.queue),
        }
    }

    /// Serves the sockets in the spool: for a person's commands, and for the kubelet's probes.
    pub fn serve_sockets(
        &self,
        run: &Run,
        timeouts: CommandTimeouts,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        if let Some(served) = self.queue_commands(&run.spool_dir, timeouts) {
            tasks.spawn(served.run(stop.clone()));
        }
        let layout = Layout::new(&run.spool_dir);
        match Listening::bind(&layout, layout.alive()) {
            Ok(listening) => {
                let (serving, obstacle) = (Arc::clone(&self.serving), self.obstacle(run));
                tasks.spawn(health_check::answer(listening, serving, obstacle, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the spool's volume does not support sockets: probes use the metrics port");
            }
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

    /// What sessions share, wherever they come from.
    fn service(&self, run: &Run, sessions: Arc<SessionCount>) -> Service {
        let lanes = Arc::clone(&self.lanes);
        Service {
            accept: Arc::clone(&self.acceptor) as _,
            settings: settings::source(
                self.config.clone(),
                Paused::new(move |mailbox| lanes.is_paused(mailbox)),
            ),
            observer: sessions,
            scratch: Arc::clone(&self.scratch),
            limits: SessionLimits { wait: run.session_wait, ..SessionLimits::default() },
            draining: self.draining.clone(),
        }
    }

    /// What a gateway's listener for clients without a sidecar is made of.
    pub fn network_parts(&self, run: &Run, sessions: Arc<SessionCount>) -> gateway_smtp::Parts {
        gateway_smtp::Parts {
            options: run.gateway.clone(),
            service: self.service(run, sessions),
            config: self.config.clone(),
            poll: run.route_poll,
            review: Some(Arc::new(ReviewByOperator::new(self.config.clone()))),
        }
    }

    /// Takes messages over; from other gateways until the end begins.
    pub fn gateway_server(self) -> GatewayServer {
        GatewayServer {
            identity: self.identity,
            queue: self.queue,
            scratch: self.scratch,
            metrics: self.metrics,
            serving: self.serving,
            ending: self.draining,
        }
    }

    pub fn port_listener(self, run: &Run, sessions: Arc<SessionCount>) -> PortListener {
        let service = self.service(run, sessions);
        PortListener { service, config: self.config, fixed: run.port, serving: self.serving }
    }
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
