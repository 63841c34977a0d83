//! A rotation of the CA of sidecars and gateways while messages are handed over: both sides get their certificates from the operator's
//! control service and renew them on their own, and the gateway delivers what it takes over to the simulator.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_m365::{Options, Simulator, write_atomically};
use mailroute_operator::pki::authority::Authority;
use mailroute_route::RouteFile;
use mailroute_route::file::{Delivery, DeliveryMode, Gateway};
use mailroute_route::identity::Role;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::Cli;
use mailroute_sidecar::gateway::client::{Gateways, HandOverError, Offer};
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::metrics::Metrics;
use mailroute_sidecar::queue::schedule::RetrySchedule;
use mailroute_sidecar::spool::{Progress, Shelf};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::gateway_identity::stage::{GATEWAY, WEB, authority, jwt};
use crate::gateway_identity::{PATIENCE, Pod, Scene, YEAR, bundle, seconds_from_now};
use crate::route::to_simulator;

#[allow(dead_code, reason = "shared with the sidecar's own tests, which use all of it")]
#[path = "../../../sidecar/tests/spool/child.rs"]
mod child;

/// Life of the old CA: certificates are renewed at two thirds of it.
const OLD: Duration = Duration::from_secs(12);

/// Messages at a time from each sidecar.
const TASKS: usize = 3;

/// Messages that are handed over in each step of the rotation, at least.
const STEP: u64 = 60;

/// Between two messages of one task, so that the gateway delivers meanwhile what it takes over.
const PAUSE: Duration = Duration::from_millis(50);

/// After so many messages a sidecar closes its connections, so that the next ones are made with the certificates of the day.
const CONNECTED: u64 = 10;

/// The gateway of the route, as a whole.
struct GatewayPod {
    app: App,
    route: RouteFile,
    folder: TempDir,
}

/// Messages that are handed over one after the other, by several tasks.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    taken: watch::Sender<u64>,
    is_over: AtomicBool,
}

impl GatewayPod {
    async fn start(scene: &Scene, m365: &Simulator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        m365.write_assertion(SAMPLE_SUBJECT, &path("entra")).unwrap();
        std::fs::write(path("ca.crt"), m365.ca_pem()).unwrap();
        std::fs::write(path("control"), jwt(GATEWAY)).unwrap();
        let service = scene.service(path("control"));
        let mut route = to_simulator(m365, path("ca.crt"), path("entra"), Some(service));
        route.name = "mail".into();
        route.delivery = Delivery::new(DeliveryMode::Queue);
        let ca_pem = bundle(&[&scene.ca]);
        route.gateway = Some(Gateway { host: "gateway.invalid".into(), ca_pem });
        write_atomically(&path("route.json"), &route.to_json()).unwrap();
        let argument = |name: &str| path(name).display().to_string();
        let (file, spool) = (argument("route.json"), argument(""));
        let arguments =
            ["--route", &file, "--spool-dir", &spool, "--gateway", "[::]:0", "--route-poll", "0.02"];
        let more = ["--admin-listen", "127.0.0.1:0"];
        let program = std::iter::once("mailroute-sidecar");
        let run = Cli::parse_from(program.chain(arguments).chain(more)).into_run();
        let short = Duration::from_millis(20);
        let queue = RetrySchedule { first: short, patient: short, longest: short, hold: short };
        let app = App::start(run, Intervals { pause: short, queue, ..Intervals::default() }).await.unwrap();
        Self { app, route, folder }
    }

    /// A sidecar's connections to it, from 127.0.0.1 or ::1: it takes a few of each address.
    fn reached_from(&self, pod: &Pod, host: &str) -> Arc<Gateways> {
        let gateways = Gateways::new(Arc::clone(&pod.identity), None, Arc::new(Metrics::new().unwrap()));
        let port = self.app.gateway_address().unwrap().port();
        gateways.dial(vec![format!("{host}:{port}").parse().unwrap()]);
        gateways
    }

    /// Its route file now names these CAs, and it has read it.
    async fn trusts(&mut self, authorities: &[&Authority]) {
        self.route.gateway.as_mut().unwrap().ca_pem = bundle(authorities);
        let path: PathBuf = self.folder.path().join("route.json");
        write_atomically(&path, &self.route.to_json()).unwrap();
        let read = async {
            while self.app.identity().gateway() != self.route.gateway {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, read).await.expect("the route file is read");
    }

    /// Waits until `pod` has a certificate, and it one that `pod` accepts.
    async fn is_accepted_by(&self, pod: &Pod) {
        let port = self.app.gateway_address().unwrap().port();
        let started = Instant::now();
        while let Err(error) = connect(pod, port).await {
            assert!(started.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn connect(pod: &Pod, port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let (config, name) = pod.identity.client().await?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(config).connect(name, stream).await?;
    Ok(())
}

impl Load {
    /// Hands over until the load is over. A rotation is nothing that a message waits for.
    async fn run(self: Arc<Self>, sidecar: Arc<Gateways>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let given = give(&sidecar, n).await;
            assert!(given.is_ok(), "message {n} was not taken over: {}", given.unwrap_err());
            self.taken.send_modify(|taken| *taken += 1);
            if n.is_multiple_of(CONNECTED) {
                sidecar.close().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until so many more messages were handed over.
    async fn goes_on(&self, step: &str) {
        let enough = *self.taken.borrow() + STEP;
        let taken =
            timeout(PATIENCE, self.taken.subscribe().wait_for(|taken| *taken >= enough)).await.map(drop);
        assert!(taken.is_ok(), "{step}: {} of {enough} were taken over", *self.taken.borrow());
    }
}

async fn give(sidecar: &Gateways, n: u64) -> Result<(), HandOverError> {
    let (entry, body) = (child::entry(n), Body::new("", message(n).into_bytes()));
    let progress = Progress::fresh(&entry);
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    sidecar.hand_over(offer).await.map(drop)
}

fn message(n: u64) -> String {
    format!(
        "From: <noreply@contoso.com>\r\nTo: <a@b.example>\r\nSubject: {n}\r\nDate: Sat, 21 Nov 2026 09:00:00 +0000\r\n\
         Message-ID: <{n}@contoso.com>\r\n\r\nHello\r\n"
    )
}

/// How often each message has arrived.
fn arrived(m365: &Simulator) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for message in m365.messages() {
        let number = message.header("Subject").and_then(|subject| subject.parse().ok()).unwrap();
        *times.entry(number).or_default() += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_handed_over_during_a_rotation_of_the_ca_arrive_once() {
    let mut options = Options::default();
    options.config.limits.messages_per_minute = usize::MAX;
    options.config.limits.recipients_per_day = usize::MAX;
    let m365 = Simulator::start(options).await.unwrap();
    let (scene, new) = (Scene::start(OLD).await, authority(YEAR));
    let old = scene.ca.clone();
    let mut gateway = GatewayPod::start(&scene, &m365).await;
    let mut pods = [scene.pod(WEB, Role::Sidecar).await, scene.pod(WEB, Role::Sidecar).await];
    gateway.is_accepted_by(&pods[0]).await;
    let load = Arc::new(Load::default());
    let sidecars = [gateway.reached_from(&pods[0], "127.0.0.1"), gateway.reached_from(&pods[1], "[::1]")];
    let tasks: Vec<_> = sidecars
        .iter()
        .flat_map(|sidecar| std::iter::repeat_n(sidecar, TASKS))
        .map(|sidecar| tokio::spawn(Arc::clone(&load).run(Arc::clone(sidecar))))
        .collect();
    load.goes_on("the old CA alone").await;
    // Kubelets bring the new bundle to one pod after the other.
    for pod in &pods {
        pod.trusts("shop", &[&old, &new]);
        load.goes_on("a sidecar has both CAs").await;
    }
    gateway.trusts(&[&old, &new]).await;
    load.goes_on("all have both CAs").await;
    // Each renews its certificate when two thirds of its life are over, now with the new CA.
    scene.stage.sign_by(&new);
    for pod in &mut pods {
        pod.ends(|ends| ends > seconds_from_now(3600)).await;
        load.goes_on("a sidecar has a certificate of the new CA").await;
    }
    let mut late = scene.starting(WEB, Role::Sidecar);
    late.trusts("shop", &[&new]);
    late.ends(|ends| ends > seconds_from_now(3600)).await;
    gateway.is_accepted_by(&late).await;
    load.goes_on("all have certificates of the new CA").await;
    gateway.trusts(&[&new]).await;
    load.goes_on("the gateway has the new CA alone").await;
    for pod in &pods {
        pod.trusts("shop", &[&new]);
        load.goes_on("a sidecar has the new CA alone").await;
    }
    load.is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }

    let count = *load.taken.borrow();
    m365.wait_for_messages(usize::try_from(count).unwrap(), PATIENCE).await;
    let emptied = async {
        while gateway.app.queue().figures().messages > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_empty = timeout(PATIENCE, emptied).await.is_ok();
    assert!(is_empty, "of {count} messages {:?} are left in the gateway", gateway.app.queue().figures());
    let arrived = arrived(&m365);
    let lost: Vec<u64> = (0..count).filter(|n| !arrived.contains_key(n)).collect();
    let twice: Vec<_> = arrived.iter().filter(|(_, times)| **times > 1).collect();
    assert!(lost.is_empty() && twice.is_empty(), "of {count} messages {lost:?} are lost, {twice:?} doubled");
}
