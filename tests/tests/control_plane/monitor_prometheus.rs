//! A real Prometheus scrapes a real operator and real sidecars: when all is well no alert is even on its way, when it is not
//! each of them fires, but for those of a gateway, and the panels of the dashboard show something in both states.
//!
//! The operator runs in this process behind the chart on a control plane, the sidecars beside it with a simulator each. The
//! rules are those that Helm renders, with values that have them fire after seconds; how long each takes with the values
//! that the chart brings is promtool's to play (`monitor_rules`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Objects};
use e2e::monitoring::{Alert, alerts_of, metrics, queries};
use e2e::prometheus::{Prometheus, Target};
use e2e::replica::until;
use serde_json::{Value, json};

mod borrower;
mod operator;
mod reference;
mod sidecars;

use operator::Stage;
use sidecars::Sidecars;

/// Those that fire once the operator has lost its lease, and once it is gone.
const LAST: [&str; 2] = ["MailRouteOperatorWithoutLeader", "MailRouteOperatorDown"];

/// Those of a gateway, and of pods that have one's certificate: none runs here.
const OF_A_GATEWAY: [&str; 2] = ["MailRouteGatewayNotTaking", "MailRouteIdentityExpiring"];

/// What the metrics begin with that only gateways have. None runs here.
const METRICS_OF_GATEWAYS: [&str; 3] =
    ["mailroute_gateway_", "mailroute_logins_", "mailroute_smtp_certificate_"];

/// What those begin with of pods whose route has a gateway.
const METRICS_OF_HAND_OVERS: [&str; 2] = ["mailroute_handover", "mailroute_identity_"];

/// Panels that show something where a gateway runs.
const PANELS_OF_GATEWAYS: [&str; 2] = ["Taken over", "Octets taken over"];

/// Panels that show something where a route has a gateway.
const PANELS_OF_HAND_OVERS: [&str; 2] = ["Handed over", "Time of a hand-over"];

/// What only exists where a route presents a certificate, and the one that is well has a token.
const OF_A_CERTIFICATE: &str = "Route certificates end in";

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_silent_when_all_is_well_and_fire_when_it_is_not() -> Result<()> {
    let rules = soon()?;
    let all = alerts_of(&rules)?;
    let prometheus = Prometheus::start(&rules).await?;
    let mut stage = Stage::set().await?;
    let mut sidecars = Sidecars::well().await?;
    prometheus.scrape(&[sidecars.targets(), stage.targets()].concat()).await?;
    // Samples before and after are what a rate is made of.
    sidecars.send_well().await?;
    stage.admit().await?;
    stage.borrow_a_token().await?;
    silent(&prometheus, &all).await.context("when all is well")?;
    every_metric_is_there(&prometheus, &all).await?;
    stage.certificate_ends_as_told(&prometheus).await?;
    let empty = [&[OF_A_CERTIFICATE][..], &PANELS_OF_HAND_OVERS, &PANELS_OF_GATEWAYS].concat();
    every_panel_shows_something(&prometheus, &mut sidecars, &empty).await?;

    sidecars.in_trouble().await?;
    stage.second_replica().await?;
    prometheus.scrape(&[sidecars.targets(), stage.targets()].concat()).await?;
    sidecars.make_trouble().await?;
    stage.make_trouble().await?;
    let apart = [&LAST[..], &OF_A_GATEWAY].concat();
    let meant: Vec<_> = all.iter().filter(|alert| !apart.contains(&alert.name.as_str())).collect();
    fire(&prometheus, &meant).await?;
    every_panel_shows_something(&prometheus, &mut sidecars, &PANELS_OF_GATEWAYS).await?;
    stage.samples_of_routes_name_the_route(&prometheus).await?;
    reference::holds(&prometheus).await?;

    stage.lose_the_lease().await?;
    fire(&prometheus, &[named(&all, LAST[0])?]).await?;
    stage.end().await?;
    fire(&prometheus, &[named(&all, LAST[1])?]).await
}

/// The chart's rules with values that nobody has to wait for: an alert fires when it has been so for a second, and mail is
/// held after one and overdue after two.
fn soon() -> Result<Value> {
    let tuned = |alert: &Alert| {
        let threshold = match alert.name.as_str() {
            "MailRouteMailHeld" => json!({"threshold": 1}),
            "MailRouteMailOverdue" => json!({"threshold": 2}),
            _ => json!({}),
        };
        let mut tuned = json!({"for": "1s"});
        tuned
            .as_object_mut()
            .into_iter()
            .for_each(|it| it.extend(threshold.as_object().cloned().unwrap_or_default()));
        (alert.name.clone(), tuned)
    };
    let tuned: Value = e2e::monitoring::alerts()?.iter().map(tuned).collect();
    let values = format!("monitoring.rules={}", json!({"enabled": true, "alerts": tuned}));
    let objects = Objects::parse(&chart::text(&["--set-json", &values])?)?;
    Ok(objects.only("PrometheusRule")?["spec"].clone())
}

fn named<'a>(all: &'a [Alert], name: &str) -> Result<&'a Alert> {
    all.iter().find(|alert| alert.name == name).with_context(|| name.to_owned())
}

/// No expression holds, and nothing fires or waits to. What was not yet so when the programs had just started is waited
/// for.
async fn silent(prometheus: &Prometheus, all: &[Alert]) -> Result<()> {
    until(async || {
        for alert in all {
            let rows = prometheus.query(&alert.expression).await?;
            ensure!(rows.is_empty(), "{}: {rows:?}", alert.name);
        }
        let active = prometheus.alerts().await?;
        ensure!(active.is_empty(), "{active:?}");
        Ok(())
    })
    .await
}

fn is_of_a_gateway(metric: &str) -> bool {
    METRICS_OF_GATEWAYS.iter().any(|start| metric.starts_with(start))
}

/// A silence that comes of a name that nobody uses would not be one.
async fn every_metric_is_there(prometheus: &Prometheus, all: &[Alert]) -> Result<()> {
    let named: BTreeSet<_> = all.iter().flat_map(|alert| metrics(&alert.expression)).collect();
    for metric in named {
        if is_of_a_gateway(&metric) || METRICS_OF_HAND_OVERS.iter().any(|start| metric.starts_with(start)) {
            continue;
        }
        ensure!(!prometheus.query(&metric).await?.is_empty(), "nobody has {metric}");
    }
    Ok(())
}

/// Each fires, at a time of its own, and its texts are filled in.
async fn fire(prometheus: &Prometheus, meant: &[&Alert]) -> Result<()> {
    for alert in meant {
        until(async || {
            let active = prometheus.alerts().await?;
            let ours = |one: &&Value| one["labels"]["alertname"] == alert.name.as_str();
            let states: Vec<_> = active.iter().filter(ours).map(|one| &one["state"]).collect();
            let firing = active.iter().filter(ours).find(|one| one["state"] == "firing");
            let firing =
                firing.with_context(|| format!("{}: {states:?}: {}", alert.name, alert.expression))?;
            let texts = firing["annotations"].to_string();
            let bad = ["{{", "<error", "<no value>", " %!"].iter().find(|bad| texts.contains(**bad));
            ensure!(bad.is_none(), "{}: {texts}", alert.name);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Each query of the dashboard has an answer, but for those of some panels, which have none.
async fn every_panel_shows_something(
    prometheus: &Prometheus,
    sidecars: &mut Sidecars,
    empty: &[&str],
) -> Result<()> {
    sidecars.send_well().await?;
    for query in queries()? {
        let sent = query.sent("1m");
        let filled = !empty.contains(&query.panel.as_str());
        until(async || {
            let rows = prometheus.query(&sent).await?;
            ensure!(rows.is_empty() != filled, "{}: {rows:?} for {sent}", query.panel);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Who is scraped as a pod, with the name of its route when it has a sidecar.
fn pod(address: SocketAddr, namespace: &str, name: &str, route: Option<&str>) -> Target {
    let labels =
        [("namespace", namespace), ("pod", name)].into_iter().chain(route.map(|route| ("route", route)));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    // As the chart's ServiceMonitor has it, and its PodMonitor has not.
    Target { address, labels, honor_labels: route.is_none() }
}

/// A file in place of another, as a kubelet changes a mounted one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}
