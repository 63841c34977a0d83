//! What the chart brings for Prometheus and Grafana, as values: alerts, panels, and the metrics that they name.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::chart;

/// An alert rule.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// Its expression.
    pub expression: String,
    /// The whole rule.
    pub rule: Value,
}

/// A query of a panel of the dashboard.
#[derive(Debug, Clone)]
pub struct Query {
    /// Title of the panel.
    pub panel: String,
    /// The expression as Grafana has it, with its variables.
    pub expression: String,
}

/// The file of rules that the chart brings, in Prometheus' own form.
///
/// # Errors
/// When it cannot be read.
pub fn rules() -> Result<Value> {
    let text = fs::read_to_string(chart::folder().join("files/alerts.yaml"))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// Every alert of that file.
///
/// # Errors
/// When the file cannot be read.
pub fn alerts() -> Result<Vec<Alert>> {
    alerts_of(&rules()?)
}

/// Every alert of a document of rules.
///
/// # Errors
/// When it is of another form.
pub fn alerts_of(rules: &Value) -> Result<Vec<Alert>> {
    let groups = rules["groups"].as_array().context("groups")?;
    let text =
        |rule: &Value, key: &str| rule[key].as_str().map(str::to_owned).with_context(|| key.to_owned());
    let all = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    all.map(|rule| {
        Ok(Alert { name: text(rule, "alert")?, expression: text(rule, "expr")?, rule: rule.clone() })
    })
    .collect()
}

/// Every query of the dashboard.
///
/// # Errors
/// When the dashboard cannot be read.
pub fn queries() -> Result<Vec<Query>> {
    let text = fs::read_to_string(chart::folder().join("files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a panel has a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("a target has an expression")?.to_owned();
            queries.push(Query { panel: title.to_owned(), expression });
        }
    }
    Ok(queries)
}

impl Query {
    /// The expression as Grafana sends it, for all namespaces and routes.
    pub fn sent(&self, rate_interval: &str) -> String {
        self.expression
            .replace("$__rate_interval", rate_interval)
            .replace("\"$namespace\"", "\".*\"")
            .replace("\"$route\"", "\".*\"")
    }
}

/// The metrics that an expression names.
pub fn metrics(expression: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !part(c)).filter(|word| word.starts_with("mailroute_"));
    words.map(str::to_owned).collect()
}

/// The metric as the reference lists it: a histogram is one, and has three names in expressions.
pub fn family(metric: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric)
}
