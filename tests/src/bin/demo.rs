//! `make demo`: one message, all the way, on a throw-away Kubernetes.

use anyhow::Result;
use clap::Parser;
use e2e::demo;

/// Shows MailRoute at work on a throw-away single-node Kubernetes, with Microsoft 365 simulated.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the cluster up, and print the KUBECONFIG to use.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    demo::run(Arguments::parse().keep).await
}
