//! The measurements as JSON and as a table for people.

use serde::Serialize;

use crate::outage;
use crate::work::Work;

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was done.
    pub work: String,
    /// By which program: `sidecar`, `postfix`, or `limit` for what no program can exceed; or by which method of the sidecar.
    pub program: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// The table's head.
pub const HEAD: &str = "\
work                              | accepted/s        ratio | delivered/s       ratio | p50 ms      p99 ms      | CPU s/1000       ratio | peak MiB
                                  | sidecar  postfix        | sidecar  postfix        | sidec postf sidec postf | sidecar postfix        | sidec postf";

/// One line of it.
pub fn row(work: &Work, row: &[Measurement]) -> String {
    let value = |program, metric| {
        row.iter().find(|m| m.program == program && m.metric == metric).map_or(f64::NAN, |m| m.value)
    };
    let pair = |metric| (value("sidecar", metric), value("postfix", metric));
    let (accepted, delivered) = (pair("accepted"), pair("delivered"));
    let (p50, p99) = (pair("reply p50"), pair("reply p99"));
    let (cpu, memory) = (pair("cpu"), pair("memory peak"));
    format!(
        "{:<33} | {:>8.0} {:>8.0} {:>5.1} | {:>8.0} {:>8.0} {:>5.1} | {:>5.1} {:>5.1} {:>5.0} {:>5.0} | {:>7.2} {:>7.2} {:>6.3} | {:>5.1} {:>5.1}",
        work.name(),
        accepted.0,
        accepted.1,
        accepted.0 / accepted.1,
        delivered.0,
        delivered.1,
        delivered.0 / delivered.1,
        p50.0,
        p50.1,
        p99.0,
        p99.1,
        cpu.0,
        cpu.1,
        cpu.0 / cpu.1,
        memory.0,
        memory.1,
    )
}

/// What is not part of a work: start, idle memory, the limits, and the methods beside each other.
pub fn summary(measurements: &[Measurement]) -> String {
    let lines: Vec<String> = measurements
        .iter()
        .filter(|m| {
            ["start", outage::NAME].contains(&m.work.as_str()) || !["sidecar", "postfix"].contains(&m.program)
        })
        .map(|m| format!("{:<10} {:<34} {:<28} {:>10.1} {}", m.program, m.work, m.metric, m.value, m.unit))
        .collect();
    lines.join("\n")
}
