//! The panels of the dashboard about sidecars, as a real Prometheus fills them from real sidecars and a browser draws them.
//! That all panels show something is seen where an operator runs (`monitor_prometheus`).

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::browser::Browser;
use e2e::dashboard::{LEASES, ROWS, Traffic, draw, panels};
use e2e::monitoring::queries;
use serde_json::Value;

/// Panels that stay empty without an operator, and while no route presents a certificate.
const EMPTY: [&str; 2] = [LEASES, "Route certificates end in"];

/// Panels that may stay at zero: of what does not happen here, or not for sure in so short a time.
const QUIET: [&str; 8] = [
    "Dead letters",
    "How they left the queue",
    "Given up, damaged, told",
    "Waits for the budget",
    "Throttled by Microsoft 365",
    "Token exchanges",
    "Connections",
    "Sidecars with an unusable configuration",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_about_sidecars_is_filled_and_drawn() -> Result<()> {
    let traffic = Traffic::start().await?;
    let span = traffic.flow(Duration::from_secs(12)).await?;
    // None is refused, those of the operator included.
    for query in queries()? {
        traffic.prometheus.range(&query.sent(span.rate_interval), span.start, span.end).await?;
    }
    let panels = panels(&traffic.prometheus, &ROWS, span).await?;
    let mut seen = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let filled = target["series"].as_array().is_some_and(|series| !series.is_empty());
            ensure!(filled != EMPTY.contains(&title), "{title}: {target}");
        }
        ensure!(moves(panel) || EMPTY.contains(&title) || QUIET.contains(&title), "{title}: all is zero");
        seen.push(title);
    }
    ensure!(
        EMPTY.iter().chain(&QUIET).all(|title| seen.contains(title)),
        "a panel has another title: {seen:?}"
    );
    let (browser, folder) = (Browser::start().await?, tempfile::tempdir()?);
    let page = draw(&browser, folder.path(), &panels, 1200).await?;
    let empty: Vec<String> = page
        .value("[...document.querySelectorAll('section')].filter((one) => one.innerText.includes('No data')).map((one) => one.querySelector('h3').textContent)")
        .await?;
    ensure!(empty == EMPTY, "nothing is drawn for {empty:?}");
    traffic.stop().await;
    Ok(())
}

/// Whether a series of the panel has a value other than zero.
fn moves(panel: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let series = list(&panel["targets"]).into_iter().flat_map(|target| list(&target["series"]));
    let mut values = series.flat_map(|one| list(&one["values"]));
    values.any(|pair| {
        pair[1].as_str().and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value > 0.0)
    })
}
