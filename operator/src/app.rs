//! Wiring: makes every part, gives each the handles it needs, and starts and stops them. The only module that sees all.
//!
//! ```text
//!  every replica: leader election · watches (routes, pods, namespaces) · certificates · webhook · control service · admin
//!  the leader:    controller
//! ```
//!
//! Stopping: the Lease is given back at once; the replica says that it is not ready and goes on serving while API servers
//! and sidecars learn of that; then it stops accepting, finishes what it has begun, and ends within a bounded time, also
//! when the API server does not answer.

mod health;
mod leading;
mod parts;
mod serving;
mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::runtime::reflector::store;
use kube::{Client, Config};
use mailroute_operator_core::kubernetes_version::NativeSidecars;
use mailroute_operator_core::reports::Reports;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::webhook_configuration::WebhookService;
use mailroute_quota::Timing;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::parts::{Parts, spawn, turns_true, until_told};
use crate::args::Run;
use crate::cache::namespaces::{self, NamespaceRoutes};
use crate::cache::pods::{PodStore, pod_store};
use crate::cache::route::RouteStore;
use crate::cache::scope::WatchScope;
use crate::cache::triggers::Triggers;
use crate::cache::watch::{self as watches, RouteWatch, UnreadableRoute, UnreadableRoutes};
use crate::events::{Events, OwnReason};
use crate::leader_election::{self, Identity, Leadership};
use crate::metrics::Metrics;
use crate::pki::{self, Lifetimes, Pki};
use crate::service::lease::Leases;
use crate::service::ledger_store::MailboxUsages;
use crate::service::token_cache::TokenCache;
use crate::webhook::configuration_check;
use crate::webhook::kubernetes::{self, Pace};

/// How long to keep serving after SIGTERM: until API servers and sidecars have learned that this replica is going.
const LINGER: Duration = Duration::from_secs(5);

/// How long requests under way may then take to finish.
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
    // Each part pauses between its own attempts. A client that retries refused requests by itself would hide those pauses, and would
    // at once retry what a PodDisruptionBudget does not allow yet.
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
    let finished = timeout(FINISH, serving::served(&mut parts)).await.is_ok();
    tracing::info!(finished, "stopped");
    Ok(())
}

/// The handles that parts share.
struct App {
    flags: Run,
    client: Client,
    lifetimes: Lifetimes,
    metrics: Metrics,
    events: Events,
    triggers: Triggers,
    malformed: UnreadableRoutes,
    reports: Arc<Mutex<Reports>>,
    settings: Arc<PlatformSettings>,
    token_cache: Arc<TokenCache>,
    leases: Arc<Leases>,
}

/// What every replica follows, as the parts read it.
struct Known {
    leadership: watch::Receiver<Leadership>,
    routes: RouteStore,
    pods: PodStore,
    /// Counts the changes to `routes`, readable or not, but for those of a status.
    changes: watch::Receiver<u64>,
    namespaces: NamespaceRoutes,
    kubernetes: watch::Receiver<NativeSidecars>,
    pki: Pki,
}

impl App {
    fn new(flags: Run, client: Client, lifetimes: Lifetimes) -> anyhow::Result<Self> {
        let metrics = Metrics::new().context("cannot set the metrics up")?;
        let settings = Arc::new(settings::platform(&flags)?);
        let applications = &settings.operator_identity.applications;
        let proxy = flags.proxy.web_proxy();
        let token_cache = TokenCache::new(applications, &flags.identity_token, &proxy, &metrics);
        let token_cache = Arc::new(token_cache.context("cannot set the broker up")?);
        let store = MailboxUsages::new(client.clone(), &flags.namespace);
        Ok(Self {
            leases: Arc::new(
                Leases::new(Timing::default(), Arc::new(store))
                    .with_application_connections(flags.graph_connections),
            ),
            events: Events::start(client.clone(), &flags.pod_name, metrics.clone()),
            flags,
            client,
            lifetimes,
            metrics,
            triggers: Triggers::default(),
            malformed: UnreadableRoutes::default(),
            reports: Arc::default(),
            settings,
            token_cache,
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
        let namespaces = self.watch_namespaces(&mut parts);
        let (pki, keeper) = pki::start(self.client.clone(), self.pki_settings(), leadership.clone())
            .context("cannot set TLS up")?;
        spawn(&mut parts, "certificates", keeper);
        let (told_version, kubernetes) = watch::channel(NativeSidecars::default());
        let version = kubernetes::follow(self.client.clone(), Pace::default(), told_version);
        spawn(&mut parts, "version of Kubernetes", version);
        let known = Known { leadership, routes, pods, changes, namespaces, kubernetes, pki };
        self.serve_webhook(&mut parts, &known, closing).await?;
        self.serve_control(&mut parts, &known, closing).await?;
        self.serve_admin(&mut parts, &known, stop).await?;
        self.guard(&mut parts, &known);
        self.lead(&mut parts, known);
        self.elect(&mut parts, told, stop);
        Ok(parts)
    }

    /// The watches that every replica keeps.
    fn watch(
        &self,
        parts: &mut Parts,
        leadership: &watch::Receiver<Leadership>,
    ) -> (RouteStore, PodStore, watch::Receiver<u64>) {
        let (routes, routes_writer) = store();
        let (pods, pods_writer) = pod_store();
        let (changed, changes) = watch::channel(0);
        let scope = WatchScope::of(&self.flags.watch_namespaces);
        let (events, leading) = (self.events.clone(), leadership.clone());
        let found = move |unreadable: &UnreadableRoute| {
            if leading.borrow().leading {
                warn_of(unreadable, &events);
            }
        };
        let watch = RouteWatch {
            writer: routes_writer,
            settings: Arc::clone(&self.settings),
            malformed: self.malformed.clone(),
            triggers: self.triggers.clone(),
            changes: changed,
        };
        spawn(parts, "watch of MailRoutes", watch.run(self.client.clone(), scope.clone(), found));
        spawn(
            parts,
            "watch of pods",
            watches::pods(self.client.clone(), scope, pods_writer, self.triggers.clone()),
        );
        (routes, pods, changes)
    }

    /// The watch of namespaces whose label names a route.
    fn watch_namespaces(&self, parts: &mut Parts) -> NamespaceRoutes {
        let (sender, known) = watch::channel(BTreeMap::new());
        let scope = WatchScope::of(&self.flags.watch_namespaces);
        spawn(parts, "watch of namespaces", namespaces::run(self.client.clone(), scope, sender));
        NamespaceRoutes::new(known)
    }

    /// Reports when the webhook configuration, of which we own one field, keeps labelled pods from this webhook.
    fn guard(&self, parts: &mut Parts, known: &Known) {
        let flags = &self.flags;
        let watch = configuration_check::watch(configuration_check::Watch {
            registration: known.pki.registration.clone(),
            service: WebhookService { namespace: flags.namespace.clone(), name: flags.service.clone() },
            routes: known.routes.clone(),
            changes: known.changes.clone(),
            leadership: known.leadership.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
        });
        spawn(parts, "watch of the webhook configuration", watch);
    }

    fn elect(&self, parts: &mut Parts, told: watch::Sender<Leadership>, stop: &watch::Receiver<bool>) {
        let flags = &self.flags;
        let control = SocketAddr::new(flags.pod_ip, flags.control_listen.port());
        let me = Identity { pod: flags.pod_name.clone(), control };
        let (client, namespace, name) = (self.client.clone(), flags.namespace.clone(), flags.lease.clone());
        let stop = stop.clone();
        spawn(parts, "election", async move {
            leader_election::run(
                client,
                &namespace,
                &name,
                me,
                leader_election::Terms::default(),
                &told,
                stop,
            )
            .await;
            // Other parts learn from `told` that nobody leads, so it has to outlive them.
            std::future::pending().await
        });
    }
}

fn warn_of(unreadable: &UnreadableRoute, events: &Events) {
    let note = format!(
        "This MailRoute cannot be read and is passed over: {}. Apply it again as the current schema wants it.",
        unreadable.error
    );
    events.warn(unreadable.reference.clone(), OwnReason::Malformed.as_str(), "Reconcile", note);
}
