//! What tools that wait for an object make of it: kstatus, by which Helm and Flux wait, and Argo CD with the health check of
//! `docs/examples`. Both in the program of `tests/cluster/kstatus`, from the libraries that those tools have.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::scene::release::repository;
use crate::tools::Tools;

/// A verdict in the words of the tool that gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// `Current` or `Healthy`, for example.
    pub status: String,
    /// Why.
    pub message: String,
}

/// The verdicts on one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Verdicts {
    /// Of kstatus.
    pub kstatus: Verdict,
    /// Of Argo CD.
    #[serde(rename = "argoCD")]
    pub argo_cd: Verdict,
}

impl Verdicts {
    /// Both in a word each: kstatus, then Argo CD.
    pub fn words(&self) -> (&str, &str) {
        (&self.kstatus.status, &self.argo_cd.status)
    }
}

/// The verdicts on an object as the API server has it.
///
/// # Errors
/// When the program is missing or fails.
pub fn verdicts(object: &Value) -> Result<Verdicts> {
    let health = repository().join("docs/examples/argo-cd-health.lua");
    let mut command = Command::new(Tools::kstatus()?);
    command.arg(health).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run kstatus")?;
    let mut stdin = child.stdin.take().context("the input is a pipe")?;
    stdin.write_all(object.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kstatus: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
