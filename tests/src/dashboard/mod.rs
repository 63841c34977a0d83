//! The panels of the dashboard as a page of our own shows them: each query answered by a real Prometheus, each panel drawn
//! by its type. No Grafana has a part in it, and the page says so.

mod traffic;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::chart;
use crate::monitoring::Query;
use crate::prometheus::Prometheus;

pub use self::traffic::{LEASES, ROWS, Traffic};

/// The page, which gets the panels in place of [`PANELS`].
const PAGE: &str = include_str!("page.html");
const PANELS: &str = "PANELS_AS_JSON";

/// What is shown of the time.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// From when on, seconds since the epoch.
    pub start: f64,
    /// Until when.
    pub end: f64,
    /// What rates are taken over, as PromQL has it.
    pub rate_interval: &'static str,
}

/// The panels below these rows of the dashboard, each with the series that Prometheus has for it.
///
/// # Errors
/// When the dashboard has no such row, Prometheus refuses a query, or a panel is of a type that the page does not draw.
pub async fn panels(prometheus: &Prometheus, rows: &[&str], span: Span) -> Result<Vec<Value>> {
    let text = fs::read_to_string(chart::folder().join("files/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut shown = false;
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        if panel["type"] == "row" {
            shown = panel["title"].as_str().is_some_and(|title| rows.contains(&title));
        }
        if shown {
            panels.push(answered(prometheus, panel, span).await?);
        }
    }
    let found = panels.iter().filter(|panel| panel["type"] == "row").count();
    ensure!(found == rows.len(), "the dashboard has {found} of the rows {rows:?}");
    Ok(panels)
}

/// Draws panels in a browser, in a window of this width that is as high as they are.
///
/// # Errors
/// When a script of the page fails.
pub async fn draw(browser: &Browser, folder: &Path, panels: &[Value], width: u32) -> Result<Page> {
    let file = folder.join("dashboard.html");
    // No text of a panel ends the element that it stands in.
    let json = Value::from(panels).to_string().replace('<', "\\u003c");
    fs::write(&file, PAGE.replace(PANELS, &json))?;
    let page = browser.open(&format!("file://{}", file.display())).await?;
    page.resize(width, 600).await?;
    let height: f64 = page.value("document.documentElement.scrollHeight").await?;
    page.resize(width, height as u32).await?;
    ensure!(page.complaints().is_empty(), "{:?}", page.complaints());
    Ok(page)
}

/// A panel with what Prometheus answers: for each target its series and the text that names one in the legend.
async fn answered(prometheus: &Prometheus, panel: &Value, span: Span) -> Result<Value> {
    let title = panel["title"].as_str().context("a panel has a title")?;
    let kind = panel["type"].as_str().unwrap_or_default();
    ensure!(["row", "stat", "timeseries", "table"].contains(&kind), "{title}: nothing draws a {kind}");
    let mut targets = Vec::new();
    for target in panel["targets"].as_array().into_iter().flatten() {
        let expression = target["expr"].as_str().context("a target has an expression")?.to_owned();
        let sent = Query { panel: title.to_owned(), expression }.sent(span.rate_interval);
        let series = prometheus.range(&sent, span.start, span.end).await?;
        targets.push(json!({"legend": target["legendFormat"], "series": series}));
    }
    Ok(json!({
        "type": kind, "title": title, "description": panel["description"], "at": panel["gridPos"],
        "unit": panel["fieldConfig"]["defaults"]["unit"], "targets": targets,
    }))
}
