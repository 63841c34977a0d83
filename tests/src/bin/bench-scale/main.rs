//! The operator as the cluster grows: memory, admission, reports, a change of the leader, and what it says to the API server.
//!
//! ```text
//!  objects in memory ◄──HTTP── operator (a process of its own, as it is shipped) ◄──TLS── reports, one connection each
//!  (an API server)                 ▲                                              ◄──TLS── admission reviews
//!                                  └── its memory and processor time, from /proc
//! ```
//! The API server is one of our own: a real one takes hours to make fifty thousand pods, and the processors of the machine. Objects,
//! lists in pages, watches and the webhook's patches are as with a real one; `bench-operator` measures with that.

#![expect(clippy::print_stdout, reason = "a program for people: its result is what it prints")]

mod api;
mod crowd;
mod objects;
mod picture;
mod reports;
mod run;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use crowd::Size;
use run::{Bench, Point};

/// Measures the operator at several sizes of a cluster, and draws it.
#[derive(Debug, Parser)]
#[command(name = "bench-scale", version)]
struct Arguments {
    /// The operator program, as it is shipped.
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
    /// Routes and pods of each size.
    #[arg(
        long,
        value_name = "ROUTESxPODS",
        value_delimiter = ',',
        default_value = "1000x5000,5000x25000,10000x50000"
    )]
    sizes: Vec<String>,
    /// How long pods report at the rate of the size, seconds.
    #[arg(long, default_value_t = 90)]
    seconds: u32,
    /// At most so many reports a second, where generator and operator share too few processors for all.
    #[arg(long, default_value_t = 1700.0)]
    most_reports: f64,
    /// Whether a change of the leader is measured.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader: bool,
    /// Where the numbers go.
    #[arg(long, value_name = "FILE", default_value = "target/scale.json")]
    json: PathBuf,
    /// Where the picture goes.
    #[arg(long, value_name = "FILE", default_value = "target/scale.svg")]
    picture: PathBuf,
    /// Draw the numbers that are in the file, and measure nothing.
    #[arg(long)]
    draw: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let points: Vec<Point> = if arguments.draw {
        serde_json::from_slice(&std::fs::read(&arguments.json)?)?
    } else {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(measure(&arguments))?
    };
    std::fs::write(&arguments.picture, picture::draw(&points))?;
    println!("{}\ndrawn to {}", run::table(&points), arguments.picture.display());
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for size in &arguments.sizes {
        let size = Size::parse(size)?;
        let bench = Bench::new(&arguments.operator, size, arguments.seconds, arguments.most_reports).await?;
        points.push(bench.run(arguments.leader).await.with_context(|| format!("at {size:?}"))?);
        std::fs::write(&arguments.json, serde_json::to_string_pretty(&points)?)?;
    }
    Ok(points)
}
