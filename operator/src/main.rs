//! The program: reads the command line and hands over.

use std::io::{self, Write};

use anyhow::Context;
use clap::Parser;
use mailroute_operator::args::{Cli, Command, Run};
use mailroute_operator::{app, inject_files, installation_test, logging};
use mailroute_operator_core::crd;

/// Threads that run tasks. The work is waiting; more threads than this only cost memory on a large node.
const THREADS: usize = 2;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(flags) => run(*flags),
        Command::Inject(flags) => {
            inject_files::run(&flags, &mut io::stdin(), &mut io::stdout(), &mut io::stderr())?;
            Ok(())
        }
        Command::Crd => Ok(io::stdout().write_all(crd::definition::manifest()?.as_bytes())?),
        Command::Test(test) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(installation_test::run(&test, &mut io::stdout()))
        }
    }
}

fn run(flags: Run) -> anyhow::Result<()> {
    logging::start(flags.log_format, flags.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(app::run(flags));
    // A name look-up that hangs would otherwise keep the process after its work has ended.
    runtime.shutdown_background();
    ended
}
