//! The sidecar and Postfix side by side on one machine, in one run: ratios, not absolute numbers.
//!
//! ```text
//!  generator ──SMTP──► program under test ──SMTP, TLS──► sink
//!  (this process)      (sidecar or Postfix)              (a process of its own)
//! ```
//! ```text
//!  sidecars' client side ──XSPOOL, mutual TLS──► gateway ──SMTP, TLS──► sink
//!  generator             ──SMTP,   mutual TLS──► Postfix ──SMTP, TLS──► sink
//! ```
//! Both programs relay to the same sink over verified TLS, with the same number of connections, from a spool on the same
//! disk. Beside them the limits are measured: the generator straight to the sink, and what the disk makes durable.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: its result is what it prints"
)]

mod disk;
mod generator;
mod measure;
mod methods;
mod outage;
mod plot;
mod process;
mod program;
mod sink;
mod table;
mod work;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::measure::Bench;
use crate::table::Measurement;

/// Measures the sidecar beside Postfix and prints a table.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The sidecar program, as it is shipped; without it the sidecar is left out. `make bench` names both.
    #[arg(long, value_name = "FILE")]
    sidecar: Option<PathBuf>,
    /// Where Debian's packages are unpacked; without it Postfix is left out.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Only works whose name holds this text; `methods` for Graph beside client submission alone.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Longest time of sending in one work, seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where plots are written, one SVG for each question; none without it.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Where the measurements are written as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The upstream: takes mail and forgets it. Used by the program itself.
    #[command(hide = true)]
    Sink(sink::Arguments),
    /// Microsoft 365, simulated. Used by the program itself.
    #[command(hide = true)]
    Simulator(methods::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Some(Command::Sink(sink)) => runtime.block_on(sink::run(sink)),
        Some(Command::Simulator(simulator)) => runtime.block_on(methods::simulate(simulator)),
        None => runtime.block_on(run(arguments)),
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let bench = Bench { sidecar: arguments.sidecar, peers: arguments.peers, seconds: arguments.seconds };
    let mut measurements: Vec<Measurement> = Vec::new();
    let works: Vec<_> =
        work::all().into_iter().filter(|work| work.name().contains(&arguments.only)).collect();
    println!("{}", table::HEAD);
    measurements.extend(bench.starts().await?);
    for (number, work) in works.iter().enumerate() {
        eprint!("\r[{}/{}] {:<60}\r", number + 1, works.len(), work.name());
        let row = bench.measure(work).await.with_context(|| work.name())?;
        println!("{}", table::row(work, &row));
        measurements.extend(row);
    }
    if let Some(sidecar) = bench.sidecar.as_deref().filter(|_| "methods".contains(&arguments.only)) {
        measurements.extend(methods::measure(sidecar, bench.seconds).await?);
    }
    if outage::NAME.contains(&arguments.only) {
        measurements.extend(bench.outages().await?);
    }
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder)?;
        for plot in &plot::ALL {
            if let Some(svg) = plot.draw(&measurements) {
                std::fs::write(folder.join(plot.name).with_extension("svg"), svg)?;
            }
        }
    }
    if let Some(folder) = arguments.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&arguments.json, serde_json::to_string_pretty(&measurements)?)?;
    println!("\n{}", table::summary(&measurements));
    println!("written to {}", arguments.json.display());
    Ok(())
}
