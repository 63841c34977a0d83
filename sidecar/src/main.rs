//! The program: arguments, log, runtime, and the wait for the signal to stop.

use anyhow::Context;
use clap::Parser;
use mailroute_sidecar::app::{App, Timing};
use mailroute_sidecar::args::{Cli, Run};
use mailroute_sidecar::logging;
use mailroute_sidecar::shutdown::Signals;

/// Threads for disks and name look-ups. Few: each may hold memory of its own.
const BLOCKING_THREADS: usize = 4;

fn main() -> anyhow::Result<()> {
    let run = Cli::parse().into_run();
    logging::start(run.log_format, run.log_level).context("the log cannot be started")?;
    // One thread: a sidecar has little to do, and gives memory back better than with several.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(serve(run));
    // A name look-up under way is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(run: Run) -> anyhow::Result<()> {
    let signals = Signals::listen().context("signals cannot be listened for")?;
    let app = App::start(run, Timing::default()).await?;
    signals.requested().await;
    tracing::info!("asked to stop");
    app.stop().await;
    Ok(())
}
