//! `m365-simulator`: see `--help` and README.md.

use clap::Parser;
use mailroute_m365::{app, args::Arguments};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    app::run(Arguments::parse()).await
}
