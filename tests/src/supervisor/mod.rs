//! What starts the programs of one cluster, watches them, and leaves nothing behind.
//!
//! It runs as a program of its own (`cluster supervise`), in a session of its own, so that neither Ctrl-C nor the death
//! of a test reaches it: its orders are the end of its standard input, SIGTERM and SIGINT. Whatever the moment, also
//! half-way through a start, the answer is the same [`teardown`], which works from the cluster's [`record`] alone and
//! finds processes by the network namespace and cgroups they are in. A supervisor that was killed outright is cleaned
//! up after by the next one, or by `cluster down`: its programs die with it, and its record tells the rest.
//!
//! * [`record`]: the clusters of this machine, who is alive, which subnet is whose.
//! * [`network`], [`cgroup`], [`sysctl`]: the pieces of the machine that a cluster takes and gives back.
//! * [`member`]: the nodes of a cluster, of which one may be killed.
//! * [`certificates`], [`settings`], [`programs`]: pure; what the programs are told.
//! * [`process`]: the running programs.  `orphans`: what they leave.  [`start`]: the order of things.

pub mod certificates;
pub mod cgroup;
pub mod member;
pub mod network;
mod orphans;
pub mod process;
pub mod programs;
pub mod record;
pub mod settings;
pub mod start;
pub mod sysctl;
pub mod teardown;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::description::{Family, Tier};
use crate::handle::KEEP;
pub use crate::handle::Message;
use process::Programs;
use record::Record;

/// Runs one cluster to its end. Everything it has to say goes to standard output as [`Message`]s.
pub async fn supervise(name: &str, tier: Tier, family: Family) -> ExitCode {
    match run(name, tier, family).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&Message::Failed(format!("cluster {name}: {error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(name: &str, tier: Tier, family: Family) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a cluster needs root (network namespaces, mounts, cgroups); `make check` runs every test that needs no cluster"
    );
    // A session of its own keeps the terminal's Ctrl-C away. Refused only to the leader of a process group, who is
    // out of reach already.
    let _ = rustix::process::setsid();
    orphans::adopt()?;
    let mut orders = Orders::listen()?;
    let claim = record::claim(name, tier, family)?;
    let mut programs = Programs::new(claim.record());
    let outcome = tokio::select! {
        ended = live(claim.record(), &mut programs) => ended,
        () = orders.stop() => Ok(()),
    };
    let gone = teardown::teardown(claim.record());
    programs.reap().await;
    orphans::reap_all();
    gone.context("not everything could be removed")?;
    claim.release()?;
    outcome
}

/// Starts the cluster and stays until one of its programs ends, which none should.
async fn live(record: &Record, programs: &mut Programs) -> Result<()> {
    let description = start::start(record, programs).await?;
    tell(&Message::Ready(description));
    let waited_for = programs.ids();
    tokio::select! {
        ended = programs.first_to_end() => ended,
        failed = orphans::reap_as_they_die(&waited_for) => failed,
    }
}

/// The ways in which a supervisor is told to stop.
struct Orders {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    starter_is_gone: oneshot::Receiver<()>,
}

impl Orders {
    fn listen() -> Result<Self> {
        // A lost terminal is no order: the pipe tells.
        let _ = signal(SignalKind::hangup())?;
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, starter_is_gone: starter_is_gone() })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = &mut self.starter_is_gone => {}
        }
    }
}

/// Tells when whoever started this cluster has closed the pipe without a word; never when it said that the cluster is
/// to be kept. A thread of its own reads the pipe, because it cannot be called back from there at the end.
fn starter_is_gone() -> oneshot::Receiver<()> {
    let (tell, gone) = oneshot::channel();
    thread::spawn(move || {
        let kept = io::stdin().lines().map_while(Result::ok).any(|line| line == KEEP);
        if kept {
            thread::park();
        }
        let _ = tell.send(());
    });
    gone
}

/// Says something to whoever started this cluster, if there is still someone to hear it.
pub(crate) fn tell(message: &Message) {
    let mut out = io::stdout().lock();
    if serde_json::to_writer(&mut out, message).is_ok() {
        let _ = writeln!(out);
        let _ = out.flush();
    }
}
