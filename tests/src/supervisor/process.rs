//! The running programs of a cluster.
//!
//! Each runs in the cluster's network namespace, with an environment of its own and its output in a file, and is killed
//! by the kernel when the supervisor dies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use futures::future::select_all;
use tokio::process::{Child, Command};

use super::programs::Program;
use super::record::Record;
use crate::tools::search_path;

/// Lines of a program's log that an error shows.
const TAIL: usize = 15;

/// The programs of one cluster, in the order of their start.
#[derive(Debug)]
pub struct Programs {
    namespace: PathBuf,
    home: PathBuf,
    logs: PathBuf,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    log: PathBuf,
    may_end: bool,
    child: Child,
}

impl Programs {
    /// None yet.
    pub fn new(record: &Record) -> Self {
        let (namespace, home, logs) = (record.namespace(), record.file("home"), record.file("logs"));
        Self { namespace, home, logs, running: Vec::new() }
    }

    /// Starts a program. It must be called on the supervisor's main thread: the kernel ends a child with the thread that
    /// made it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(&mut self, program: &Program) -> Result<()> {
        fs::create_dir_all(&self.logs)?;
        fs::create_dir_all(&self.home)?;
        let log = self.logs.join(format!("{}.log", program.name));
        let output = File::create(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]).arg(net(&self.namespace)).arg(&program.path);
        command.args(&program.arguments);
        command.env_clear().env("PATH", search_path()).env("HOME", &self.home);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.name))?;
        self.running.push(Running { name: program.name, log, may_end: program.may_end, child });
        Ok(())
    }

    /// Their process ids.
    pub fn ids(&self) -> Vec<u32> {
        self.running.iter().filter_map(|running| running.child.id()).collect()
    }

    /// Waits until one of them ends, which is a failure, and tells which and what it said last.
    ///
    /// # Errors
    /// Always.
    pub async fn first_to_end(&mut self) -> Result<()> {
        let (status, which) = self.wait_for_an_end().await;
        let Running { name, log, .. } = &self.running[which];
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        bail!("{name} ended ({status}); its last lines:\n{}", tail(log))
    }

    async fn wait_for_an_end(&mut self) -> (std::io::Result<ExitStatus>, usize) {
        let last = |(_, running): &(usize, &mut Running)| !running.may_end;
        let ends = self.running.iter_mut().enumerate().filter(last);
        let ends: Vec<_> = ends
            .map(|(which, running)| Box::pin(async move { (running.child.wait().await, which) }))
            .collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        select_all(ends).await.0
    }

    /// Waits for all of them, which have been killed, so that no zombie is left.
    pub async fn reap(&mut self) {
        for running in &mut self.running {
            let _ = running.child.kill().await;
        }
    }
}

/// The option of `nsenter` that enters a network namespace.
fn net(namespace: &Path) -> String {
    format!("--net={}", namespace.display())
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
