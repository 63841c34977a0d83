//! A real Prometheus scrapes a real operator and real sidecars: when all is well every alert is silent, when it is not they
//! speak, and every panel of the dashboard shows something.
//!
//! The operator runs in this process behind the chart on a control plane, the sidecars beside it with a simulator each.
//! What needs hours is left to promtool (`monitor_rules`).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::chart;
use e2e::monitoring::{Alert, alerts, metrics, queries};
use e2e::prometheus::{Prometheus, Target};
use e2e::replica::until;

mod operator;
mod sidecars;

use operator::Stage;
use sidecars::Sidecars;

/// Alerts that only promtool plays in the firing state, and why.
const PLAYED: [&str; 4] = [
    // Half an hour, and a day.
    "MailRouteMailHeld",
    "MailRouteMailOverdue",
    // A token that Entra let live for long, and then no other.
    "MailRouteTokenExpiring",
    // The operator's own identity at Entra, which this stage has not got.
    "MailRouteBrokerFailing",
];

/// Those whose expression says something once the operator has lost its lease, and once it is gone.
const LAST: [&str; 2] = ["MailRouteOperatorWithoutLeader", "MailRouteOperatorDown"];

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_silent_when_all_is_well_and_speak_when_it_is_not() -> Result<()> {
    let all = alerts()?;
    let prometheus = Prometheus::start(&chart::folder().join("files/alerts.yaml")).await?;
    let mut stage = Stage::set().await?;
    let mut sidecars = Sidecars::well().await?;
    prometheus.scrape(&[sidecars.targets(), stage.targets()].concat()).await?;
    // Samples before and after are what a rate is made of.
    sidecars.send_well().await?;
    stage.admit().await?;
    silent(&prometheus, &all).await.context("when all is well")?;
    every_metric_is_there(&prometheus, &all).await?;

    sidecars.in_trouble().await?;
    stage.second_replica().await?;
    prometheus.scrape(&[sidecars.targets(), stage.targets()].concat()).await?;
    sidecars.make_trouble().await?;
    stage.make_trouble().await?;
    let meant: Vec<_> =
        all.iter().filter(|alert| ![&PLAYED[..], &LAST].concat().contains(&alert.name.as_str())).collect();
    speak(&prometheus, &meant).await?;
    texts_are_filled_in(&prometheus, &meant).await?;
    every_panel_shows_something(&prometheus, &mut sidecars).await?;

    stage.lose_the_lease().await?;
    speak(&prometheus, &[named(&all, LAST[0])?]).await?;
    stage.end().await?;
    speak(&prometheus, &[named(&all, LAST[1])?]).await
}

fn named<'a>(all: &'a [Alert], name: &str) -> Result<&'a Alert> {
    all.iter().find(|alert| alert.name == name).with_context(|| name.to_owned())
}

/// No expression holds. What was not yet so when the programs had just started is waited for.
async fn silent(prometheus: &Prometheus, all: &[Alert]) -> Result<()> {
    until(async || {
        for alert in all {
            let rows = prometheus.query(&alert.expression).await?;
            ensure!(rows.is_empty(), "{}: {rows:?}", alert.name);
        }
        Ok(())
    })
    .await
}

/// A silence that comes of a name that nobody uses would not be one.
async fn every_metric_is_there(prometheus: &Prometheus, all: &[Alert]) -> Result<()> {
    let named: BTreeSet<_> = all.iter().flat_map(|alert| metrics(&alert.expression)).collect();
    for metric in named {
        ensure!(!prometheus.query(&metric).await?.is_empty(), "nobody has {metric}");
    }
    Ok(())
}

/// Every expression holds, at a time of its own.
async fn speak(prometheus: &Prometheus, meant: &[&Alert]) -> Result<()> {
    for alert in meant {
        until(async || {
            let rows = prometheus.query(&alert.expression).await?;
            ensure!(!rows.is_empty(), "{} is silent: {}", alert.name, alert.expression);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Prometheus has evaluated the rules too, and the templates of their texts.
async fn texts_are_filled_in(prometheus: &Prometheus, meant: &[&Alert]) -> Result<()> {
    until(async || {
        let active = prometheus.alerts().await?;
        for alert in meant {
            let one = active.iter().find(|active| active["labels"]["alertname"] == alert.name.as_str());
            let texts =
                one.with_context(|| format!("{} is not active", alert.name))?["annotations"].to_string();
            let bad = ["{{", "<error", "<no value>", " %!"].iter().find(|bad| texts.contains(**bad));
            ensure!(bad.is_none(), "{}: {texts}", alert.name);
        }
        Ok(())
    })
    .await
}

async fn every_panel_shows_something(prometheus: &Prometheus, sidecars: &mut Sidecars) -> Result<()> {
    sidecars.send_well().await?;
    for query in queries()? {
        let sent = query.sent("1m");
        until(async || {
            ensure!(!prometheus.query(&sent).await?.is_empty(), "{}: nothing for {sent}", query.panel);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The one who is scraped as the pod of a route.
fn sidecar(address: std::net::SocketAddr, route: &'static str) -> Target {
    Target { address, namespace: "shop", pod: format!("{route}-0"), route: Some(route) }
}

/// A file in place of another, as a kubelet changes a mounted one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}
