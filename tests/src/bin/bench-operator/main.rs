//! The operator under the load of a large cluster: 1 000 MailRoutes and 5 000 labelled pods, 100 new pods a second.
//!
//! ```text
//!  routes ──► API server ──watch──► operator (a process of its own, as it is shipped, with the chart's rights)
//!  pods ────► API server ──webhook──►  │
//!  questions, 100 a second ────────────┘  ──► time of each answer
//! ```
//! The first process meets the crowd as it grows, by way of the API server. Then it is restarted, as an upgrade would, and
//! the second one, which finds everything there, is measured. Run it by `make bench`.

#![expect(clippy::print_stdout, reason = "a program for people: its result is what it prints")]

mod crowd;
mod measurement;
mod questions;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::replica::program::Operator;
use e2e::replica::stage::Stage;
use e2e::{Cluster, Tier};
use mailroute_operator::pki::Lifetimes;

use crowd::Crowd;
use measurement::Measurements;

/// Measures the operator on a control plane and adds the numbers to a list.
#[derive(Debug, Parser)]
#[command(name = "bench-operator", version)]
struct Arguments {
    /// The operator program, as it is shipped.
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
    /// MailRoutes.
    #[arg(long, default_value_t = 1000)]
    routes: usize,
    /// Size of an annotation that each MailRoute has, KiB: authors fill them as they like, up to 256.
    #[arg(long, default_value_t = 0, value_name = "KIB", value_parser = clap::value_parser!(u16).range(0..=255))]
    annotation: u16,
    /// Labelled pods.
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// New pods a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long questions are asked at that rate, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// The list that the measurements are added to, in place of older ones of the operator.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let cluster = Cluster::shared(Tier::ControlPlane).await?;
    let stage = Stage::on(cluster, &[], &[], Lifetimes::default()).await?;
    let mut work = format!("{} routes, {} pods", arguments.routes, arguments.pods);
    if arguments.annotation > 0 {
        work = format!("{work}, {} KiB of annotations on each route", arguments.annotation);
    }
    let mut measured = Measurements::new(work);

    println!("making {} routes …", arguments.routes);
    let crowd = Crowd::with_routes(&stage, arguments.routes, arguments.annotation.into()).await?;
    let began = Instant::now();
    let operator = Operator::start(&stage, &arguments.operator, 0).await?;
    operator.is_ready().await?;
    measured.add("start to ready, routes only", began.elapsed().as_secs_f64(), "s");
    operator.has_reconciled(arguments.routes as f64).await?;
    measured.add("start to every route rendered", began.elapsed().as_secs_f64(), "s");
    let memory = operator.memory()?;
    measured.add("memory, routes only", mebibytes(memory.resident), "MiB");
    measured.add("memory, routes only, peak", mebibytes(memory.peak), "MiB");

    operator.serve(&stage).await?;
    println!("making {} pods, {} a second …", arguments.pods, arguments.rate);
    let made = crowd.make_pods(arguments.pods, arguments.rate).await?;
    measured.add("pods made through the API server", made.rate, "pods/s");
    measured.times("pod made through the API server", &made.took);
    measured.add("memory, while pods were made, peak", mebibytes(operator.memory()?.peak), "MiB");
    let began = Instant::now();
    operator.stop().await?;
    measured.add("SIGTERM to exit", began.elapsed().as_secs_f64(), "s");

    let began = Instant::now();
    let mut operator = Operator::start(&stage, &arguments.operator, 1).await?;
    operator.is_ready().await?;
    measured.add("start to ready", began.elapsed().as_secs_f64(), "s");
    operator.serve(&stage).await?;
    println!("asking {} times a second for {} s …", arguments.rate, arguments.seconds);
    let before = operator.processor_seconds()?;
    let asked = questions::ask(&stage, &crowd, operator.webhook, arguments.rate, arguments.seconds);
    let (took, highest) = operator.watched(asked).await?;
    let used = operator.processor_seconds()? - before;
    measured.times("admission", &took);
    measured.add("memory steady, highest", mebibytes(highest), "MiB");
    measured.add("memory since the start, peak", mebibytes(operator.memory()?.peak), "MiB");
    measured.add("processor", used / f64::from(arguments.seconds), "cores");
    operator.stop().await?;

    println!("\n{}", measured.table());
    for (metric, limit, unit) in [("admission p99", 20.0, "ms"), ("memory steady, highest", 128.0, "MiB")] {
        let value = measured.value(metric).context(metric)?;
        let verdict = if value < limit { "kept" } else { "BROKEN" };
        println!("promise: {metric} under {limit} {unit}: {value:.1} {unit}, {verdict}");
    }
    let list = measured.into_list();
    measurement::add_to(&arguments.json, &list)?;
    println!("added to {}", arguments.json.display());
    stage.namespace.finish()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1024 * 1024)
}

/// How long one of the steps before a measurement may take.
const PATIENCE: Duration = Duration::from_secs(300);
