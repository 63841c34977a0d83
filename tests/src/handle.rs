//! The pipe between a test and the supervisor of its cluster.
//!
//! The supervisor's standard output carries [`Message`]s, a line of JSON each; its standard input carries nothing but
//! its end (take the cluster down) or the word [`KEEP`] (never mind the end). Progress goes to this process's standard
//! error as it comes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::{env, io, thread};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::description::{Description, Family, Tier};

/// The line that unties a cluster from the process that started it.
pub const KEEP: &str = "keep";

/// What a supervisor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// A step is done; a sentence for people.
    Progress(String),
    /// The cluster is up.
    Ready(Description),
    /// The cluster could not be started, or one of its programs ended by itself.
    Failed(String),
}

/// A supervisor that was started here. Dropping it ends the cluster and waits until nothing is left of it.
pub struct Supervised {
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    reader: Mutex<Option<thread::JoinHandle<()>>>,
    description: Option<Description>,
}

impl Supervised {
    /// Starts a supervisor and waits until its cluster is up.
    ///
    /// # Errors
    /// What the supervisor says.
    pub async fn start(tier: Tier, family: Family, name: &str) -> Result<Self> {
        let (mut supervised, first) = Self::spawn(tier, family, name)?;
        let said = first.await.unwrap_or_else(|_| Err(anyhow!("its supervisor ended without a word")));
        supervised.description = Some(said.with_context(|| format!("cluster {name} did not start"))?);
        Ok(supervised)
    }

    fn spawn(
        tier: Tier,
        family: Family,
        name: &str,
    ) -> Result<(Self, oneshot::Receiver<Result<Description>>)> {
        let program = supervisor_program()?;
        let mut command = Command::new(&program);
        command.arg("supervise").args(["--name", name, "--tier", tier.as_str(), "--family", family.as_str()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the supervisor's output is a pipe")?;
        let (tell, told) = oneshot::channel();
        let reader = thread::spawn(move || relay(stdout, tell));
        let (child, stdin, reader) = (Mutex::new(child), Mutex::new(stdin), Mutex::new(Some(reader)));
        Ok((Self { child, stdin, reader, description: None }, told))
    }

    /// What the supervisor told of its cluster.
    pub fn description(&self) -> &Description {
        self.description.as_ref().expect("a started supervisor has described its cluster")
    }

    /// Leaves the cluster up when this process ends.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn keep(&self) -> Result<()> {
        let mut stdin = self.stdin.lock().map_err(|_| anyhow!("the handle was poisoned by a panic"))?;
        let Some(mut pipe) = stdin.take() else { return Ok(()) };
        writeln!(pipe, "{KEEP}").context("the cluster's supervisor is gone")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A cluster that is kept has no pipe any more, and nothing to wait for.
        let Some(pipe) = self.stdin.get_mut().ok().and_then(Option::take) else { return };
        drop(pipe);
        if let Ok(child) = self.child.get_mut() {
            let _ = child.wait();
        }
        if let Some(reader) = self.reader.get_mut().ok().and_then(Option::take) {
            let _ = reader.join();
        }
    }
}

/// Reads the supervisor to its end: the first verdict goes to whoever waits for it, the rest to people.
fn relay(stdout: ChildStdout, tell: oneshot::Sender<Result<Description>>) {
    let mut tell = Some(tell);
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let verdict = match serde_json::from_str(&line) {
            Ok(Message::Ready(description)) => Ok(description),
            Ok(Message::Failed(text)) => {
                // Whoever waits for the verdict shows it; later nobody does.
                if tell.is_none() {
                    say(&text);
                }
                Err(anyhow!(text))
            }
            Ok(Message::Progress(text)) => {
                say(&text);
                continue;
            }
            Err(_) => continue,
        };
        if let Some(tell) = tell.take() {
            let _ = tell.send(verdict);
        }
    }
}

fn say(text: &str) {
    // Nobody may be reading any more; the supervisor must be read to its end all the same.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The `cluster` program, which cargo puts beside a program of this crate and one folder above a test.
fn supervisor_program() -> Result<PathBuf> {
    let this = env::current_exe().context("cannot tell where this program is")?;
    let found =
        this.ancestors().skip(1).take(2).map(|folder| folder.join("cluster")).find(|path| is_program(path));
    match found {
        Some(path) => Ok(path),
        None => {
            bail!("the program `cluster` is not beside {}: run `cargo build -p e2e --bins`", this.display())
        }
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
