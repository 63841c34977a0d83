//! The panels of the dashboard about sidecars, as a real Prometheus fills them from real sidecars and a browser draws them.
//! That all panels show something is seen where an operator runs (`monitor_prometheus`).

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::browser::Browser;
use e2e::dashboard::{ROWS, Traffic, draw, panels};
use e2e::monitoring::queries;

/// Panels that stay empty while no route presents a certificate and Microsoft 365 throttles nobody.
const EMPTY: [&str; 1] = ["Route certificates end in"];

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_about_sidecars_is_filled_and_drawn() -> Result<()> {
    let traffic = Traffic::start().await?;
    let span = traffic.flow(Duration::from_secs(12)).await?;
    // None is refused, those of the operator included.
    for query in queries()? {
        traffic.prometheus.range(&query.sent(span.rate_interval), span.start, span.end).await?;
    }
    let panels = panels(&traffic.prometheus, &ROWS, span).await?;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let filled = target["series"].as_array().is_some_and(|series| !series.is_empty());
            ensure!(filled != EMPTY.contains(&title), "{title}: {target}");
        }
    }
    let (browser, folder) = (Browser::start().await?, tempfile::tempdir()?);
    let page = draw(&browser, folder.path(), &panels, 1200).await?;
    let empty: Vec<String> = page
        .value("[...document.querySelectorAll('section')].filter((one) => one.innerText.includes('No data')).map((one) => one.querySelector('h3').textContent)")
        .await?;
    ensure!(empty == EMPTY, "nothing is drawn for {empty:?}");
    traffic.stop().await;
    Ok(())
}
