//! Programs of Debian packages as peers: SMTP clients in the application's place, Postfix to compare with, Prometheus.
//!
//! The packages are unpacked in the cache (`tests/cluster/setup`) and never installed; `tests/peers/in` runs a program of
//! theirs in a mount namespace of its own, on this machine's network. Root only.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::tools::{cache, complete};

/// Where the packages are unpacked; seen as `/` by the programs.
///
/// # Errors
/// When they are not there.
pub fn root() -> Result<PathBuf> {
    let peers = cache()?.join("peers-1");
    Ok(complete(&peers)?.join("root"))
}

/// A program of the packages, with `work` seen as `/work` and `tests/peers` as `/peers`.
///
/// # Errors
/// When the packages are not there.
pub fn command(work: &Path, program: &[&str]) -> Result<Command> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/in"));
    command.arg(root()?).arg(work).args(program).kill_on_drop(true);
    Ok(command)
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be run or ends with a failure; its output is then part of the error.
pub async fn run(work: &Path, program: &[&str]) -> Result<String> {
    let output = command(work, program)?.output().await.with_context(|| format!("{program:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program:?} ended with {}:\n{out}{err}", output.status);
    Ok(out.into_owned())
}
