//! Wiring: makes every part, gives each the handles it needs, and starts and stops them. The only file that sees all.
//!
//! ```text
//!  every replica: lease · watches (routes, pods) · certificates · webhook · control service · admin
//!  the leader:    controller
//! ```
//!
//! Stopping: the Lease is given back at once; the replica says that it is not ready and goes on serving while API servers
//! and sidecars learn of that; then it stops accepting, finishes what it has begun, and ends within a bounded time, also
//! when the API server does not answer.

mod standing;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{Store, store};
use kube::{Client, Config};
use mailroute_dns::resolver::Resolver;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::admin::{self, Admin};
use crate::args::{Certificates, Run};
use crate::broker::desk::{self, Desk};
use crate::broker::settings::Settings;
use crate::broker::vault::Vault;
use crate::budget::terms::Terms;
use crate::control::authenticate::Authenticator;
use crate::control::books::ConfigMaps;
use crate::control::leases::Leases;
use crate::control::rate::RateLimit;
use crate::control::reports::Reports;
use crate::control::server::{self as control, Control};
use crate::controller::applied::Applied;
use crate::controller::backoff::Backoff;
use crate::controller::build;
use crate::controller::federation::Federation;
use crate::controller::rollout::history::Rollouts;
use crate::controller::scope::Scope;
use crate::controller::triggers::Triggers;
use crate::controller::watch::{self as watches, Malformed, Unreadable};
use crate::controller::{self, Context};
use crate::crd::MailRoute;
use crate::events::Events;
use crate::inject;
use crate::lease::{self, Identity, Leadership};
use crate::metrics::Metrics;
use crate::pki::{self, Lifetimes, Limits, Pki, Source, TlsListener, Written};
use crate::preflight::board::Board;
use crate::preflight::rounds::Rounds;
use crate::registration;
use crate::webhook::{self, Webhook};

/// Port of the Service for the control service.
const CONTROL_SERVICE_PORT: u16 = 8444;

/// After SIGTERM: as long as it may take until nobody is sent here any more.
const LINGER: Duration = Duration::from_secs(5);

/// After that: what was begun may take this long to end.
const FINISH: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When a part cannot start, or ends by itself.
pub async fn run(flags: Run) -> anyhow::Result<()> {
    // Fails only when a provider was installed before, which then is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = until_told()?;
    let mut config =
        Config::infer().await.context("cannot find the API server: no kubeconfig, and not in a pod")?;
    // Each part has its own pauses between attempts. A client that repeats by itself what was refused hides them, and takes
    // the "not now" of a PodDisruptionBudget for something to repeat at once.
    config.default_retry = false;
    let client = Client::try_from(config).context("cannot make a client of the API server")?;
    replica(flags, client, Lifetimes::default(), stop).await
}

/// One replica, from its start until `stop` turns true.
///
/// # Errors
/// When a part cannot start, or ends by itself.
pub async fn replica(
    flags: Run,
    client: Client,
    lifetimes: Lifetimes,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let app = App::new(flags, client, lifetimes)?;
    let (close, closing) = watch::channel(false);
    let mut parts = app.start(&stop, &closing).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    tokio::select! {
        ended = parts.join_next() => bail!("a part ended by itself: {ended:?}"),
        () = turns_true(stop) => {}
    }
    tracing::info!("asked to stop");
    sleep(LINGER).await;
    close.send_replace(true);
    let finished = timeout(FINISH, app.served(&mut parts)).await.is_ok();
    tracing::info!(finished, "stopped");
    Ok(())
}

/// Becomes true at the first SIGTERM or SIGINT; a second one ends the process as the system does by default.
fn until_told() -> anyhow::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        told.send_replace(true);
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::warn!("asked to stop a second time");
        std::process::exit(1);
    });
    Ok(stop)
}

async fn turns_true(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, and then nothing will turn it true.
    if flag.wait_for(|is_set| *is_set).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The handles that parts share.
struct App {
    flags: Run,
    client: Client,
    lifetimes: Lifetimes,
    metrics: Metrics,
    events: Events,
    triggers: Triggers,
    malformed: Malformed,
    reports: Arc<Mutex<Reports>>,
    vault: Arc<Vault>,
    leases: Arc<Leases>,
}

/// Names of the parts that serve others and finish what they have begun.
const SERVERS: [&str; 2] = ["webhook", "control service"];

type Parts = JoinSet<&'static str>;

impl App {
    fn new(flags: Run, client: Client, lifetimes: Lifetimes) -> anyhow::Result<Self> {
        let metrics = Metrics::new().context("cannot set the metrics up")?;
        let vault = Arc::new(vault(&flags, &metrics)?);
        let books = ConfigMaps::new(client.clone(), &flags.namespace, &flags.lease);
        Ok(Self {
            leases: Arc::new(Leases::new(Terms::default(), Arc::new(books))),
            events: Events::start(client.clone(), &flags.pod_name, metrics.clone()),
            flags,
            client,
            lifetimes,
            metrics,
            triggers: Triggers::default(),
            malformed: Malformed::default(),
            reports: Arc::default(),
            vault,
        })
    }

    async fn start(
        &self,
        stop: &watch::Receiver<bool>,
        closing: &watch::Receiver<bool>,
    ) -> anyhow::Result<Parts> {
        let mut parts = Parts::new();
        let (told, leadership) = watch::channel(Leadership::default());
        let (routes, pods, changes) = self.watch(&mut parts, &leadership);
        let (pki, keeper) = pki::start(self.client.clone(), self.pki_settings(), leadership.clone())
            .context("cannot set TLS up")?;
        spawn(&mut parts, "certificates", keeper);
        let (seen, awaited) = (changes.clone(), changes.clone());
        self.serve_webhook(&mut parts, &pki, &routes, changes, closing).await?;
        self.serve_control(&mut parts, &pki, &routes, &pods, &leadership, closing).await?;
        self.serve_admin(&mut parts, &pki, &routes, &pods, &leadership, stop).await?;
        self.guard(&mut parts, &pki, &routes, seen, &leadership);
        self.lead(&mut parts, &pki, routes, pods, awaited, leadership);
        self.elect(&mut parts, told, stop);
        Ok(parts)
    }

    /// The watches that every replica keeps.
    fn watch(
        &self,
        parts: &mut Parts,
        leadership: &watch::Receiver<Leadership>,
    ) -> (Store<MailRoute>, Store<Pod>, watch::Receiver<u64>) {
        let (routes, routes_writer) = store();
        let (pods, pods_writer) = store();
        let (changed, changes) = watch::channel(0);
        let scope = Scope::of(&self.flags.watch_namespaces);
        let (events, leading) = (self.events.clone(), leadership.clone());
        let found = move |unreadable: &Unreadable| {
            if leading.borrow().leading {
                warn_of(unreadable, &events);
            }
        };
        let (client, malformed, triggers) =
            (self.client.clone(), self.malformed.clone(), self.triggers.clone());
        spawn(
            parts,
            "watch of MailRoutes",
            watches::routes(client, scope.clone(), routes_writer, malformed, triggers, changed, found),
        );
        spawn(
            parts,
            "watch of pods",
            watches::pods(self.client.clone(), scope, pods_writer, self.triggers.clone()),
        );
        (routes, pods, changes)
    }

    fn pki_settings(&self) -> pki::Settings {
        let flags = &self.flags;
        let given = |publishes| Source::Given { secret: flags.certificate_secret.clone(), publishes };
        let (metrics, events) = (self.metrics.clone(), self.events.clone());
        pki::Settings {
            namespace: flags.namespace.clone(),
            source: match flags.certificates {
                Certificates::Own => {
                    Source::Own { secret: flags.ca_secret.clone(), lifetimes: self.lifetimes }
                }
                Certificates::CertManager => given(false),
                Certificates::Secret => given(true),
            },
            webhook_configuration: flags.webhook_configuration.clone(),
            names: pki::service_names(&flags.service, &flags.namespace, &flags.cluster_domain),
            tell: Arc::new(move |written| {
                metrics.ca_bundle(written);
                if let Written::Repair(configuration) = written {
                    registration::tell_of_repair(configuration, &events);
                }
            }),
        }
    }

    /// Tells when the webhook configuration, which is not ours but for one field, keeps pods from us.
    fn guard(
        &self,
        parts: &mut Parts,
        pki: &Pki,
        routes: &Store<MailRoute>,
        changes: watch::Receiver<u64>,
        leadership: &watch::Receiver<Leadership>,
    ) {
        let flags = &self.flags;
        let watch = registration::watch(registration::Watch {
            registration: pki.registration.clone(),
            service: registration::Service {
                namespace: flags.namespace.clone(),
                name: flags.service.clone(),
            },
            routes: routes.clone(),
            changes,
            leadership: leadership.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
        });
        spawn(parts, "watch of the webhook configuration", watch);
    }

    /// What the installation chooses for every sidecar.
    fn sidecar(&self) -> inject::Platform {
        inject::Platform {
            image: self.flags.sidecar_image.clone(),
            pull_policy: self.flags.sidecar_image_pull_policy,
            pull_secrets: self.flags.sidecar_image_pull_secrets.clone(),
            allows_image_override: self.flags.allow_image_override,
        }
    }

    async fn serve_webhook(
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

    async fn serve_control(
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

    async fn serve_admin(
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

    /// The part that writes, while this replica leads.
    fn lead(
        &self,
        parts: &mut Parts,
        pki: &Pki,
        routes: Store<MailRoute>,
        pods: Store<Pod>,
        changes: watch::Receiver<u64>,
        mut leadership: watch::Receiver<Leadership>,
    ) {
        let flags = &self.flags;
        let dns = if flags.dns_preflight { Board::on() } else { Board::default() };
        let rounds = flags.dns_preflight.then(|| self.rounds(&dns, &routes, changes));
        let context = Arc::new(Context {
            client: self.client.clone(),
            platform: build::Platform {
                control_address: format!("{}.{}.svc:{CONTROL_SERVICE_PORT}", flags.service, flags.namespace),
                cluster_domain: flags.cluster_domain.clone(),
            },
            lending: Arc::clone(self.vault.settings()),
            sidecar: self.sidecar(),
            ca_bundle: pki.ca_bundle.clone(),
            routes,
            pods,
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
            backoff: Backoff::default(),
            applied: Applied::default(),
            rollouts: Rollouts::default(),
            federation: Federation::default(),
            dns,
        });
        let malformed = self.malformed.clone();
        spawn(parts, "controller", async move {
            while leadership.wait_for(|leadership| leadership.leading).await.is_ok() {
                malformed.all().iter().for_each(|unreadable| warn_of(unreadable, &context.events));
                tokio::select! {
                    () = controller::run(Arc::clone(&context)) => return,
                    () = go_round(rounds.clone()) => return,
                    _ = leadership.wait_for(|leadership| !leadership.leading) => {}
                }
            }
            // The election is over because the process stops.
            std::future::pending().await
        });
    }

    /// The look-ups beside the controller, which no reconciliation waits for.
    fn rounds(&self, board: &Board, routes: &Store<MailRoute>, changes: watch::Receiver<u64>) -> Rounds {
        Rounds {
            resolver: Resolver::new(self.flags.nameserver),
            board: board.clone(),
            routes: routes.clone(),
            changes,
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            metrics: self.metrics.clone(),
        }
    }

    fn elect(&self, parts: &mut Parts, told: watch::Sender<Leadership>, stop: &watch::Receiver<bool>) {
        let flags = &self.flags;
        let control = SocketAddr::new(flags.pod_ip, flags.control_listen.port());
        let me = Identity { pod: flags.pod_name.clone(), control };
        let (client, namespace, name) = (self.client.clone(), flags.namespace.clone(), flags.lease.clone());
        let stop = stop.clone();
        spawn(parts, "election", async move {
            lease::run(client, &namespace, &name, me, lease::Terms::default(), &told, stop).await;
            // The others learn from `told` that nobody leads; it has to outlive them.
            std::future::pending().await
        });
    }

    /// Waits until the servers have finished.
    async fn served(&self, parts: &mut Parts) {
        let mut left = SERVERS.len();
        while left > 0 {
            match parts.join_next().await {
                Some(Ok(name)) if SERVERS.contains(&name) => left -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// The tokens of the operator's identity: none without settings.
fn vault(flags: &Run, metrics: &Metrics) -> anyhow::Result<Vault> {
    let settings = match &flags.broker_settings {
        None => Settings::default(),
        Some(path) => {
            let unusable = || format!("cannot use the settings of the broker {}", path.display());
            let text = std::fs::read_to_string(path).with_context(unusable)?;
            Settings::parse(&text).with_context(unusable)?
        }
    };
    Vault::new(Arc::new(settings), &flags.identity_token, metrics).context("cannot set the broker up")
}

async fn go_round(rounds: Option<Rounds>) {
    match rounds {
        Some(rounds) => rounds.run().await,
        None => std::future::pending().await,
    }
}

fn warn_of(unreadable: &Unreadable, events: &Events) {
    let note = format!(
        "This MailRoute cannot be read and is passed over: {}. Apply it again as the current schema wants it.",
        unreadable.error
    );
    events.warn(unreadable.reference.clone(), "Malformed", "Reconcile", note);
}

fn spawn(parts: &mut Parts, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        part.await;
        name
    });
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
