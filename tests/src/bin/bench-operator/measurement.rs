//! The numbers: as a list of JSON objects, in the form that `tests/bench` writes too, and as a table for people.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was done.
    work: String,
    /// By which program.
    program: &'static str,
    /// What was measured.
    metric: String,
    /// How much.
    value: f64,
    /// Of what.
    unit: &'static str,
}

/// The numbers of one run.
pub struct Measurements {
    work: String,
    list: Vec<Measurement>,
}

/// Who is measured.
const PROGRAM: &str = "operator";

impl Measurements {
    /// None yet, of this work.
    pub const fn new(work: String) -> Self {
        Self { work, list: Vec::new() }
    }

    /// One number.
    pub fn add(&mut self, metric: &str, value: f64, unit: &'static str) {
        let (work, metric) = (self.work.clone(), metric.to_owned());
        self.list.push(Measurement { work, program: PROGRAM, metric, value, unit });
    }

    /// Median, 99th percentile and the longest of some times.
    pub fn times(&mut self, metric: &str, took: &[Duration]) {
        let mut sorted: Vec<_> = took.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            // The smallest value that this part of all values does not exceed.
            let rank = (part * sorted.len() as f64).ceil() as usize;
            let value = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN);
            self.add(&format!("{metric} {name}"), value, "ms");
        }
    }

    /// The value of a metric.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.list.iter().find(|measurement| measurement.metric == metric).map(|it| it.value)
    }

    /// A line for each.
    pub fn table(&self) -> String {
        let line = |it: &Measurement| format!("{:<42} {:>10.2} {}", it.metric, it.value, it.unit);
        let lines: Vec<_> = self.list.iter().map(line).collect();
        format!("{}\n{}", self.work, lines.join("\n"))
    }

    /// The list.
    pub fn into_list(self) -> Vec<Measurement> {
        self.list
    }
}

/// Adds the numbers to the list in a file, in place of older ones of the operator.
///
/// # Errors
/// When the file holds something else, or cannot be written.
pub fn add_to(file: &Path, list: &[Measurement]) -> Result<()> {
    let mut all: Vec<Value> = match std::fs::read(file) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is no list", file.display()))?
        }
        Err(_) => Vec::new(),
    };
    all.retain(|measurement| measurement["program"] != json!(PROGRAM));
    all.extend(list.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut measured = Measurements::new("work".into());
        let took: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        measured.times("answer", &took);
        let values = ["p50", "p99", "max"].map(|name| measured.value(&format!("answer {name}")).unwrap());
        assert_eq!(values, [50.0, 99.0, 100.0]);
    }

    #[test]
    fn older_numbers_of_the_operator_are_replaced_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench.json");
        let old = json!([{"program": "sidecar", "value": 1.0}, {"program": "operator", "value": 2.0}]);
        std::fs::write(&file, old.to_string()).unwrap();
        let mut measured = Measurements::new("work".into());
        measured.add("memory", 3.0, "MiB");
        add_to(&file, &measured.into_list()).unwrap();
        let now: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let kept: Vec<_> = now.iter().map(|it| (it["program"].as_str().unwrap(), &it["value"])).collect();
        assert_eq!(kept, [("sidecar", &json!(1.0)), ("operator", &json!(3.0))]);
    }
}
