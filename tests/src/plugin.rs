//! `kubectl mailroute` in the hands of a test: the program's own function, with what it writes kept.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};
use mailroute_cli::terminal::{Style, Terminal};
use serde_json::Value;

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code.
    pub code: u8,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The output as JSON, of a command that ended with this code.
    ///
    /// # Errors
    /// When it ended with another one, or printed no JSON.
    pub fn json(&self, code: u8) -> Result<Value> {
        ensure!(self.code == code, "{self:#?}");
        Ok(serde_json::from_str(&self.out)?)
    }
}

/// Runs a command with a kubeconfig.
pub async fn plugin(kubeconfig: &Path, namespace: &str, words: &[&str]) -> Ran {
    let kubeconfig = kubeconfig.display().to_string();
    let first = ["kubectl-mailroute", "--kubeconfig", &kubeconfig, "--namespace", namespace];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal =
        Terminal { out: &mut out, err: &mut err, style: Style::default(), shows_progress: false };
    let code = mailroute_cli::run(first.iter().chain(words).map(OsString::from), &mut terminal).await;
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Ran { code, out: text(out), err: text(err) }
}
