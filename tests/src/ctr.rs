//! `ctr`, containerd's own client, for what no Kubernetes API does: bring images in, and let a container crash.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::tools::search_path;

/// Runs `ctr` on the containers and images of Kubernetes.
///
/// # Errors
/// When it fails; the error is what it said.
pub async fn run<A: AsRef<OsStr>>(socket: &Path, arguments: &[A]) -> Result<()> {
    let mut command = Command::new("ctr");
    command.env("PATH", search_path()).stdin(Stdio::null()).kill_on_drop(true);
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io"]).args(arguments);
    let output =
        command.output().await.context("cannot run ctr; `tests/cluster/setup cluster` installs it")?;
    if !output.status.success() {
        bail!("ctr failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
