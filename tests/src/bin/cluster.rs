//! `cluster`: throw-away Kubernetes clusters on this machine, from the command line.

use std::io::{self, Write};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::cluster::KUBECONFIG_VARIABLE;
use e2e::stop::Stop;
use e2e::supervisor::record::{self, Record};
use e2e::{Cluster, Family, Tier, supervisor};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

/// Starts and ends throw-away Kubernetes clusters on this machine (root, Linux).
#[derive(Parser)]
#[command(name = "cluster")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster that stays up, and print its kubeconfig's path.
    Up {
        /// How much of Kubernetes.
        #[arg(long, value_enum, default_value = "node")]
        tier: Tier,
        /// Addresses of nodes, pods and Services.
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
        /// Name for `down`.
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// End one cluster, or all; without an option, clean up after supervisors that were killed.
    Down {
        /// The one to end.
        #[arg(long, conflicts_with = "all")]
        name: Option<String>,
        /// End them all.
        #[arg(long)]
        all: bool,
    },
    /// List the clusters of this machine.
    List,
    /// Start a cluster, run a command with MAILROUTE_KUBECONFIG set, end the cluster; the exit code is the command's.
    Run {
        /// How much of Kubernetes.
        #[arg(long, value_enum, default_value = "node")]
        tier: Tier,
        /// Addresses of nodes, pods and Services.
        #[arg(long, value_enum, default_value = "ipv4")]
        family: Family,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Own one cluster until told to stop; the other commands start this one.
    #[command(hide = true)]
    Supervise {
        #[arg(long, value_enum)]
        tier: Tier,
        #[arg(long, value_enum)]
        family: Family,
        #[arg(long)]
        name: String,
    },
}

// One thread: the kernel ends the programs of a cluster with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Action::Supervise { tier, family, name } => return supervisor::supervise(&name, tier, family).await,
        Action::Run { tier, family, command } => run(tier, family, &command).await,
        Action::Up { tier, family, name } => up(tier, family, &name).await,
        Action::Down { name, all } => down(name.as_deref(), all),
        Action::List => list(),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn up(tier: Tier, family: Family, name: &str) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let cluster = tokio::select! {
        cluster = Cluster::start_named(tier, family, name) => cluster?,
        code = stop.wait() => return Ok(code),
    };
    cluster.keep()?;
    writeln!(io::stdout(), "{}", cluster.kubeconfig().display())?;
    Ok(ExitCode::SUCCESS)
}

async fn run(tier: Tier, family: Family, command: &[String]) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let name = format!("run-{}", std::process::id());
    let cluster = tokio::select! {
        cluster = Cluster::start_named(tier, family, &name) => cluster?,
        code = stop.wait() => return Ok(code),
    };
    // Were this process killed, the command would go on with a cluster that is gone: it goes too.
    let mut child = Command::new("setpriv");
    child.args(["--pdeathsig", "TERM"]).args(command).env(KUBECONFIG_VARIABLE, cluster.kubeconfig());
    let child = child.kill_on_drop(true).spawn();
    let mut child = child.context("cannot run setpriv; `tests/cluster/setup cluster` installs it")?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code_of(status?)),
            // Ctrl-C has reached the command too: it ends by itself, and what it starts to tell is worth waiting for.
            _ = stop.interrupt.recv() => {}
            _ = stop.terminate.recv() => {
                if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                    kill_process(pid, Signal::TERM)?;
                }
            }
        }
    }
}

fn down(name: Option<&str>, all: bool) -> Result<ExitCode> {
    let records = record::list()?;
    let named: Vec<&Record> =
        records.iter().filter(|record| all || Some(record.name.as_str()) == name).collect();
    for record in &named {
        end(record)?;
    }
    if let (Some(name), true) = (name, named.is_empty()) {
        writeln!(io::stderr(), "cluster {name}: not up")?;
    }
    for name in record::sweep()? {
        writeln!(io::stderr(), "cluster {name}: removed what a killed supervisor had left")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn end(record: &Record) -> Result<()> {
    if !record::is_alive(record)? {
        return Ok(());
    }
    let pid = Pid::from_raw(record.supervisor.cast_signed()).context("the record names a process")?;
    kill_process(pid, Signal::TERM)?;
    record::wait_until_dead(record)?;
    writeln!(io::stderr(), "cluster {}: removed", record.name)?;
    Ok(())
}

fn list() -> Result<ExitCode> {
    for record in record::list()? {
        let state = if record::is_alive(&record)? { "up" } else { "left behind" };
        let kubeconfig = record.kubeconfig();
        writeln!(
            io::stdout(),
            "{}\t{}\t{state}\t{}",
            record.name,
            record.tier.as_str(),
            kubeconfig.display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn code_of(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
