//! `kill -9` of a gateway that takes messages over, and of a sidecar that hands them over, again and again: nothing is lost, and nothing
//! arrives twice but what was on its way to Microsoft when a gateway died.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailroute_m365::office::Office;
use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::identity::Role;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::clock;
use mailroute_sidecar::gateway::client::{CONNECTIONS, Gateways, HandOverError};
use mailroute_sidecar::spool::{Progress, Spool};

use crate::authority::certified_in;
use crate::child;
use crate::kept::down;
use crate::once::{gateways, give, sample};
use crate::pods::{Pods, patient};
use crate::scene::{Files, intervals};

/// How often a gateway is killed, each time while messages come in and go out.
const GATEWAY_KILLS: u64 = 100;

/// Most messages that it takes over before the kill is due.
const LIFE: u64 = 20;

/// How long it may take from its start until messages have come in and gone out.
const AT_WORK: Duration = Duration::from_secs(30);

/// Most messages that one kill may double: those that were being sent, and those that were sent and waited for the disk.
const NOT_NOTED: u64 = 16;

/// Tasks that hand over at the same time.
const TASKS: usize = 4;

/// Messages that a sidecar has to hand over, and how often it is killed meanwhile.
const LEFT: u64 = 400;
const SIDECAR_KILLS: u64 = 12;

/// A pod in a process of its own.
pub struct Process {
    child: Child,
}

impl Process {
    /// Runs the ignored test `name` with what is in `directory`.
    pub fn start(name: &str, directory: &Path) -> Self {
        let mut command = child::command(name, directory);
        Self { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The most memory that it ever had, KiB.
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Files of a pod in a process of its own.
pub fn folder(pods: &Pods, role: Role) -> Files {
    let files = Files::new();
    files.write_route(&pods.route);
    std::fs::write(files.path("identity.pem"), pods.authority.signed(role, &pods.route.name, "pod-0"))
        .unwrap();
    files
}

/// An address that is free.
pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A pod with the files in `directory`.
pub async fn app(directory: PathBuf, arguments: &[&str], intervals: Intervals) -> App {
    use clap::Parser;
    let path = |name: &str| directory.join(name).display().to_string();
    let all = [
        "mailroute-sidecar",
        "--route",
        &path("route.json"),
        "--spool-dir",
        &path(""),
        "--port",
        "0",
        "--admin-listen",
        "127.0.0.1:0",
        "--grace",
        "20",
    ];
    let arguments = all.iter().chain(arguments);
    let run = mailroute_sidecar::args::Cli::parse_from(arguments).into_run();
    let app = App::start(run, intervals).await.unwrap();
    app.identity().set(certified_in(&directory.join("identity.pem")));
    app
}

#[tokio::test]
#[ignore = "other tests run it, and kill it"]
async fn a_gateway_until_it_is_killed() {
    let Some(directory) = child::directory() else { return };
    let address = std::fs::read_to_string(directory.join("address")).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let (tls, users) = (path(""), path("users"));
    let mut arguments = vec!["--gateway", &address];
    let smtp = std::fs::read_to_string(directory.join("smtp"));
    if let Ok(smtp) = &smtp {
        arguments.extend(["--smtp-listen", smtp, "--smtp-tls", &tls, "--smtp-users", &users]);
    }
    let _app = app(directory.clone(), &arguments, intervals()).await;
    std::future::pending().await
}

#[tokio::test]
#[ignore = "other tests run it, and kill it"]
async fn a_sidecar_that_ends() {
    let Some(directory) = child::directory() else { return };
    let intervals = Intervals { hand_over: Duration::ZERO, ..patient() };
    app(directory, &[], intervals).await.stop().await;
}

/// Messages that several tasks hand over, one after the other.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    /// Those that a gateway has answered with 250.
    taken: AtomicU64,
    /// Those that are on their way to a gateway.
    under_way: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    /// Hands over until the load is over, each message until the gateway has it.
    async fn run(self: Arc<Self>, sidecar: Arc<Gateways>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            while let Err(error) = self.give(&sidecar, n).await {
                assert!(started.elapsed() < Duration::from_secs(60), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn give(&self, sidecar: &Gateways, n: u64) -> Result<SocketAddr, HandOverError> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let given = give(sidecar, n).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        given
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until a gateway that has just started is in the middle of its work: it has taken messages over and has delivered some, and
    /// more are on their way to it.
    async fn is_under_way(&self, pods: &Pods) {
        let arrived = || pods.m365.read(|office| office.messages.len());
        let (taken, delivered) = (self.taken(), arrived());
        let enough = taken + 1 + (clock::chance() * LIFE as f64) as u64;
        let is_at_work =
            || self.taken() >= enough && arrived() > delivered && self.under_way.load(Ordering::Relaxed) > 0;
        let started = Instant::now();
        while !is_at_work() {
            assert!(started.elapsed() < AT_WORK, "{} taken over since", self.taken() - taken);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_a_hundred_times_under_load_loses_and_doubles_nothing_of_what_it_took() {
    let address = free();
    let pods = Pods::new(&address.to_string(), Queue).await;
    let files = folder(&pods, Role::Gateway);
    std::fs::write(files.path("address"), address.to_string()).unwrap();
    let (sidecar, load) = (gateways(&pods, Role::Sidecar, &pods.route.name), Arc::new(Load::default()));
    let tasks: Vec<_> =
        (0..TASKS).map(|_| tokio::spawn(Arc::clone(&load).run(Arc::clone(&sidecar)))).collect();
    let start = || Process::start("kills::a_gateway_until_it_is_killed", &files.path(""));
    let (mut process, began) = (start(), Instant::now());
    // How many messages had arrived when the connections of each gateway that was killed were gone.
    let mut arrived_by = Vec::new();
    for _ in 0..GATEWAY_KILLS {
        load.is_under_way(&pods).await;
        process.kill();
        let gone = |office: &Office| (office.connections == 0).then_some(office.messages.len());
        arrived_by.push(pods.m365.wait_for(AT_WORK, gone).await.expect("its connections end"));
        process = start();
    }
    let took = began.elapsed();
    load.is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let count = load.taken();
    let mut missing: BTreeSet<u64> = (0..count).collect();
    let mut seen = 0;
    let all = pods.m365.wait_for(Duration::from_secs(60), |office| {
        for message in office.messages.range(seen..) {
            missing.remove(&number(message.header("Subject")));
        }
        seen = office.messages.len();
        missing.is_empty().then_some(())
    });
    let is_complete = all.await.is_some();
    process.kill();
    let twice = doubled_by_kill(&pods, &arrived_by);
    println!(
        "{count} messages, {GATEWAY_KILLS} kills in {took:?}, {} arrived again",
        twice.iter().sum::<u64>()
    );
    assert!(is_complete && missing.is_empty(), "lost {missing:?} of {count}");
    // Which may be several at a kill, but not each time.
    let at_a_time = u64::from(pods.route.limits.connections) + 1;
    assert!(
        twice.iter().sum::<u64>() <= at_a_time * GATEWAY_KILLS
            && twice.iter().all(|&twice| twice <= NOT_NOTED),
        "decision 002 allows a second copy of what was on its way to Microsoft, or not noted on disk yet, when a gateway died: {twice:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_while_it_hands_over_to_one_gateway_loses_and_doubles_nothing() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let files = folder(&pods, Role::Sidecar);
    let (spool, _) = Spool::open(&files.path(""), child::PLENTY).await.unwrap();
    for n in 0..LEFT {
        let (entry, body) = sample(n);
        spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
    }
    drop(spool);
    let (mut kills, mut in_the_middle) = (0, 0);
    loop {
        let mut process = Process::start("kills::a_sidecar_that_ends", &files.path(""));
        let before = gateway.app.queue().figures().messages;
        let enough = before + LEFT / SIDECAR_KILLS;
        let messages = || gateway.app.queue().figures().messages;
        while !process.has_ended() && (kills >= SIDECAR_KILLS || messages() < enough) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if process.has_ended() {
            break;
        }
        tokio::time::sleep(Duration::from_secs_f64(clock::chance() / 500.0)).await;
        process.kill();
        kills += 1;
        let left = crate::pods::stored(&files, "queue") as u64;
        in_the_middle += u64::from(left > 0 && messages() > 0);
        // What was on its way is on both sides; nothing is on none.
        assert!(left + messages() >= LEFT, "{left} here and {} there", messages());
    }
    assert!(in_the_middle > SIDECAR_KILLS / 2, "{in_the_middle} of {kills} kills were in the middle");
    assert_eq!((crate::pods::stored(&files, "queue"), gateway.app.queue().figures().messages), (0, LEFT));
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!((pods.m365.messages().len() as u64, doubled(&pods)), (LEFT, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_while_it_sends_and_hands_over_loses_nothing_and_doubles_what_was_on_its_way()
 {
    let port = free().port();
    let pods = Pods::new(&format!("localhost:{port}"), Queue).await;
    let (first, second) =
        (pods.gateway(&format!("127.0.0.1:{port}")).await, pods.gateway(&format!("[::1]:{port}")).await);
    let files = folder(&pods, Role::Sidecar);
    let (spool, _) = Spool::open(&files.path(""), child::PLENTY).await.unwrap();
    for n in 0..LEFT {
        let (entry, body) = sample(n);
        spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
    }
    drop(spool);
    let left = || crate::pods::stored(&files, "queue") as u64;
    let mut kills = 0;
    loop {
        let mut process = Process::start("kills::a_sidecar_that_ends", &files.path(""));
        let enough = left().saturating_sub(LEFT / SIDECAR_KILLS);
        while !process.has_ended() && (kills >= SIDECAR_KILLS || left() > enough) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if process.has_ended() {
            break;
        }
        process.kill();
        kills += 1;
    }
    for gateway in [&first, &second] {
        gateway.figures(|figures| figures.messages == 0).await;
    }
    let numbers: BTreeSet<u64> =
        pods.m365.messages().iter().map(|message| number(message.header("Subject"))).collect();
    let twice = doubled(&pods);
    println!("{kills} kills, {twice} arrived again");
    assert_eq!((left(), numbers.len() as u64), (0, LEFT), "nothing is lost");
    // What a sidecar was sending, or handing over, when it was killed.
    let on_their_way = u64::from(pods.route.limits.connections) + CONNECTIONS as u64;
    assert!(kills > SIDECAR_KILLS / 2 && twice <= kills * on_their_way, "{twice} after {kills} kills");
}

fn number(subject: Option<&str>) -> u64 {
    subject.and_then(|subject| subject.strip_prefix('m')?.parse().ok()).expect("a numbered message")
}

/// How many messages that arrived first between two kills, or before the first, arrived again.
fn doubled_by_kill(pods: &Pods, arrived_by: &[usize]) -> Vec<u64> {
    let mut first: BTreeMap<u64, usize> = BTreeMap::new();
    let mut doubled = vec![0; arrived_by.len() + 1];
    for (at, message) in pods.m365.messages().iter().enumerate() {
        let before = *first.entry(number(message.header("Subject"))).or_insert(at);
        if before < at {
            doubled[arrived_by.partition_point(|&arrived| arrived <= before)] += 1;
        }
    }
    doubled
}

/// How many messages arrived that had arrived before.
fn doubled(pods: &Pods) -> u64 {
    let mut arrived: BTreeMap<u64, u64> = BTreeMap::new();
    for message in pods.m365.messages() {
        *arrived.entry(number(message.header("Subject"))).or_default() += 1;
    }
    arrived.values().map(|times| times - 1).sum()
}
