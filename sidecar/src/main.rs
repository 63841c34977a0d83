//! The program: arguments, log, runtime, and the wait for the signal to stop.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::queue::Queue;
use mailroute_sidecar::args::send::Send;
use mailroute_sidecar::args::{Check, Cli, Command, Run};
use mailroute_sidecar::cli::{check, health_check, queue, send};
use mailroute_sidecar::logging;
use mailroute_sidecar::shutdown::Signals;

/// Threads for disks and, up to a bound of their own, name look-ups. Few: each may hold memory of its own.
const BLOCKING_THREADS: usize = 4;

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().into_command() {
        Command::Run(run) => {
            logging::start(run.log_format, run.log_level).context("the log cannot be started")?;
            on_runtime(serve(*run)).map(|()| ExitCode::SUCCESS)
        }
        // Without a log: the answer is all there is to say.
        Command::Check(options) => on_runtime(check(*options)),
        Command::Queue(options) => on_runtime(queue(options)),
        Command::Send(options) => on_runtime(send(*options)),
        Command::Alive(options) => {
            let ask = if options.ready { health_check::ask_ready } else { health_check::ask };
            ask(&options.spool_dir, options.admin_listen)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // One thread: a sidecar has little to do, and gives memory back better than with several.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(work);
    // A name look-up under way is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn serve(run: Run) -> anyhow::Result<()> {
    let signals = Signals::listen().context("signals cannot be listened for")?;
    let app = App::start(run, Intervals::default()).await?;
    signals.requested().await;
    tracing::info!("asked to stop");
    app.stop().await;
    Ok(())
}

async fn check(options: Check) -> anyhow::Result<ExitCode> {
    let findings = check::walk(&options).await.context("the metrics cannot be made")?;
    let text = check::print::print(&findings, options.output);
    stdout().write_all(text.as_bytes()).context("the answer cannot be written")?;
    Ok(if findings.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send(options: Send) -> anyhow::Result<ExitCode> {
    let report = send::run(&options).await;
    stdout().write_all(report.print(options.output).as_bytes()).context("the answer cannot be written")?;
    Ok(if report.accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn queue(options: Queue) -> anyhow::Result<ExitCode> {
    match queue::run(&options, &mut stdout()).await {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            let code = error.exit_code();
            writeln!(stderr(), "Error: {:#}", anyhow::Error::new(error))
                .context("the error cannot be written")?;
            Ok(ExitCode::from(code))
        }
    }
}
