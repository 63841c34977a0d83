//! The sidecar by client submission and by Graph, to the same simulator of Microsoft 365: what a message costs by each.
//!
//! The simulator does more than the sink: it checks tokens and parses every message. So these numbers are for comparing the two
//! methods, not for comparing them with Postfix.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_m365::{Options, Simulator};
use mailroute_route::RouteFile;
use mailroute_route::file::{Delivery, DeliveryMode};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::generator::{self, Load};
use crate::measure::{mebibytes, reached, watched};
use crate::process;
use crate::program::Sidecar;
use crate::sink::serve_count;
use crate::table::Measurement;

#[path = "../../../sidecar/tests/relay/route.rs"]
mod route;

/// Names of the methods, and the files of their routes in the simulator's folder.
const METHODS: [(&str, &str); 2] = [("submission", "submission.json"), ("graph", "graph.json")];

/// Octets of a message, sessions, most messages.
const LOADS: [(usize, usize, u64); 2] = [(4 << 10, 10, 3_000), (1 << 20, 4, 60)];

/// How long the simulator waits for one more message before it asks again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections to the simulator that both methods may have: those of Exchange Online.
const CONNECTIONS: u32 = 3;

/// How the simulator starts.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where it writes its authority, an assertion and the two routes.
    #[arg(long)]
    folder: PathBuf,
}

/// What it says when it is ready, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    /// Port of the counter.
    count: u16,
}

/// Runs the simulator until it is killed.
pub async fn simulate(arguments: Arguments) -> Result<()> {
    let mut options = Options::default();
    let limits = &mut options.config.limits;
    (limits.messages_per_minute, limits.recipients_per_day) = (usize::MAX, usize::MAX);
    (options.config.graph.requests, options.config.graph.upload_bytes) = (u64::MAX, u64::MAX);
    let simulator = Simulator::start(options).await?;
    let at = |name: &str| arguments.folder.join(name);
    std::fs::write(at("ca.crt"), simulator.ca_pem())?;
    simulator.write_assertion(SAMPLE_SUBJECT, &at("entra"))?;
    let mut route = route::to_simulator(&simulator, at("ca.crt"), at("entra"), None);
    route.delivery = Delivery::new(DeliveryMode::DeliverOrQueue);
    route.limits.connections = CONNECTIONS;
    std::fs::write(at(METHODS[0].1), route.to_json())?;
    route::by_graph(&simulator, &mut route, false);
    std::fs::write(at(METHODS[1].1), route.to_json())?;

    let taken = Arc::new(tokio::sync::watch::Sender::new(0_u64));
    let count = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", serde_json::to_string(&Ready { count: count.local_addr()?.port() })?);
    tokio::spawn(serve_count(count, taken.subscribe()));
    loop {
        let seen = *taken.borrow() as usize;
        let messages = simulator.wait_for_messages(seen + 1, PATIENCE).await.len();
        taken.send_replace(messages as u64);
    }
}

/// Each load by each method.
///
/// # Errors
/// When a message is refused or something does not start.
pub async fn measure(program: &Path, seconds: f64) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for (method, file) in METHODS {
        measurements.extend(by(program, method, file, seconds).await.context(method)?);
    }
    Ok(measurements)
}

async fn by(program: &Path, method: &'static str, file: &str, seconds: f64) -> Result<Vec<Measurement>> {
    let folder = tempfile::tempdir()?;
    let (_simulator, ready) = start(folder.path()).await?;
    let route = RouteFile::parse(&std::fs::read(folder.path().join(file))?)?;
    let number = |work: &str, metric, value, unit| Measurement {
        work: work.to_owned(),
        program: method,
        metric,
        value,
        unit,
    };
    let began = Instant::now();
    let sidecar = Sidecar::start(program, folder.path(), &route).await?;
    let first = Load {
        port: sidecar.port,
        sessions: 1,
        bytes: 4096,
        messages: 1,
        time: Duration::from_secs(60),
        per_session: false,
    };
    let mut sent = generator::send(first).await?.replies.len() as u64;
    reached(ready.count, sent).await?;
    let mut measurements = vec![
        number("start", "start to first accepted", began.elapsed().as_secs_f64() * 1000.0, "ms"),
        number("start", "memory idle", mebibytes(process::used(sidecar.pid())), "MiB"),
    ];
    for (bytes, sessions, messages) in LOADS {
        let time = Duration::from_secs_f64(seconds);
        let load = Load { port: sidecar.port, sessions, bytes, messages, time, per_session: false };
        let (before, began) = (process::used(sidecar.pid()), Instant::now());
        let work = async {
            let replies = generator::send(load).await?.replies.len() as u64;
            reached(ready.count, sent + replies).await?;
            anyhow::Ok(replies)
        };
        let (replies, peak) = watched(work, sidecar.pid()).await;
        let (replies, took) = (replies?, began.elapsed());
        sent += replies;
        let cpu = process::used(sidecar.pid()).seconds - before.seconds;
        let name = format!("{} KiB x{sessions}", bytes >> 10);
        let count = replies as f64;
        measurements.extend([
            number(&name, "delivered", count / took.as_secs_f64(), "messages/s"),
            number(&name, "cpu", cpu / count * 1000.0, "s/1000 messages"),
            number(&name, "memory peak", mebibytes(peak), "MiB"),
        ]);
    }
    sidecar.stop().await?;
    Ok(measurements)
}

async fn start(folder: &Path) -> Result<(Child, Ready)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["simulator", "--folder"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().context("the simulator has an output")?;
    BufReader::new(output).read_line(&mut line).await?;
    Ok((child, serde_json::from_str(&line).context("the simulator does not start")?))
}
