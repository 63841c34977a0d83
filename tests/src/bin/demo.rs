//! `make demo`: one message, all the way, on a throw-away Kubernetes.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::demo;
use e2e::stop::Stop;

/// Shows MailRoute at work on a throw-away single-node Kubernetes, with Microsoft 365 simulated.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the cluster up, and print the KUBECONFIG to use.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse().keep).await.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Ctrl-C drops the demo where it stands; with it goes the cluster, and this waits until it has gone.
async fn run(keep: bool) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        outcome = demo::run(keep) => outcome.map(|()| ExitCode::SUCCESS),
        code = stop.wait() => Ok(code),
    }
}
