//! What Helm makes of the rules and the dashboard, with values that change them.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Objects};
use e2e::monitoring::{Alert, alerts, alerts_of};
use serde_json::{Value, json};

#[test]
fn values_leave_alerts_out_and_add_labels_and_links() -> Result<()> {
    let objects = Objects::with(&[
        "monitoring.rules.enabled=true",
        "monitoring.rules.disabled={MailRouteSidecarsOutdated}",
        "monitoring.rules.alertLabels.team=mail",
        "monitoring.rules.alertLabels.severity=page",
        "monitoring.rules.runbookUrl=https://runbooks.example.com/mail",
    ])?;
    let rendered = objects.only("PrometheusRule")?;
    let groups = rendered["spec"]["groups"].as_array().context("groups")?;
    let found: Vec<_> =
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    let original = alerts()?;
    ensure!(found.len() == original.len() - 1, "{} alerts", found.len());
    let kept = original.iter().filter(|alert| alert.name != "MailRouteSidecarsOutdated");
    for (rule, alert) in found.into_iter().zip(kept) {
        let mut expected = alert.rule.clone();
        expected["labels"]["team"] = json!("mail");
        let link = format!("https://runbooks.example.com/mail/{}.md", alert.name);
        expected["annotations"]["runbook_url"] = json!(link);
        ensure!(*rule == expected, "found {rule:#}\nexpected {expected:#}");
    }
    Ok(())
}

/// Alerts with a number to compare with that values can replace.
const TUNABLE: [&str; 9] = [
    "MailRouteCaBundleDisputed",
    "MailRouteMailHeld",
    "MailRouteMailOverdue",
    "MailRouteMailRefused",
    "MailRouteBudgetNearlyUsed",
    "MailRouteTokenExpiring",
    "MailRouteCertificateExpiring",
    "MailRouteIdentityExpiring",
    "MailRouteSpoolNearlyFull",
];

#[test]
fn values_tune_how_long_an_alert_waits_and_what_it_compares_with() -> Result<()> {
    let tuned = |alert: &Alert| {
        let threshold =
            TUNABLE.contains(&alert.name.as_str()).then(|| json!({"for": "7m", "threshold": 0.07}));
        (alert.name.clone(), threshold.unwrap_or_else(|| json!({"for": "7m"})))
    };
    let original = alerts()?;
    let values: Value = original.iter().map(tuned).collect();
    let found = alerts_with(&json!({"alerts": values}))?;
    ensure!(found.len() == original.len(), "{} alerts", found.len());
    for (found, original) in found.iter().zip(&original) {
        ensure!(found.rule["for"] == "7m", "{}: {}", found.name, found.rule["for"]);
        let parts: Vec<_> = original.expression.split(" # threshold").collect();
        let expected = match parts[..] {
            [all] => all.to_owned(),
            [before, after] => {
                let (before, _) = before.rsplit_once(' ').context("a number")?;
                format!("{before} 0.07 # threshold{after}")
            }
            _ => anyhow::bail!("{}: several thresholds", original.name),
        };
        ensure!(found.expression == expected, "{}: {}", found.name, found.expression);
        let tunable = TUNABLE.contains(&found.name.as_str());
        ensure!(tunable == (parts.len() == 2), "{} has a threshold: {}", found.name, parts.len() == 2);
    }
    let large = alerts_with(&json!({"alerts": {"MailRouteMailOverdue": {"threshold": 2_592_000}}}))?;
    let overdue = large.iter().find(|alert| alert.name == "MailRouteMailOverdue").context("the alert")?;
    let number = overdue.expression.split_whitespace().rev().nth(2).context("a number")?;
    ensure!(number.parse::<f64>()? == 2_592_000.0, "{}", overdue.expression);
    Ok(())
}

/// The alerts that Helm renders with these values of `monitoring.rules`.
fn alerts_with(values: &Value) -> Result<Vec<Alert>> {
    let mut values = values.clone();
    values["enabled"] = json!(true);
    let objects = Objects::parse(&chart::text(&["--set-json", &format!("monitoring.rules={values}")])?)?;
    alerts_of(&objects.only("PrometheusRule")?["spec"])
}

#[test]
fn an_alert_that_is_not_there_and_a_threshold_that_is_not_are_refused_by_name() -> Result<()> {
    for (values, named) in [
        (json!({"disabled": ["MailRouteMailHold"]}), "MailRouteMailHold"),
        (json!({"alerts": {"MailRouteMailHold": {"for": "1m"}}}), "MailRouteMailHold"),
        (json!({"alerts": {"MailRouteOperatorDown": {"threshold": 1}}}), "MailRouteOperatorDown"),
        (json!({"alerts": {"MailRouteMailHeld": {"for": 60}}}), "for"),
        (json!({"alerts": {"MailRouteMailHeld": {"after": "1m"}}}), "after"),
        (json!({"alerts": {"MailRouteMailHeld": {"threshold": "an hour"}}}), "threshold"),
    ] {
        let refused = alerts_with(&values).err().with_context(|| format!("taken: {values}"))?;
        ensure!(refused.to_string().contains(named), "{values}: {refused}");
    }
    Ok(())
}

#[test]
fn the_dashboard_is_rendered_as_it_is() -> Result<()> {
    let objects = Objects::with(&[
        "monitoring.dashboard.enabled=true",
        "monitoring.dashboard.annotations.folder=Mail",
    ])?;
    let map = objects.only("ConfigMap")?;
    ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1", "{map:#}");
    ensure!(map["metadata"]["annotations"]["folder"] == "Mail", "{map:#}");
    let rendered: Value =
        serde_json::from_str(map["data"]["mailroute.json"].as_str().context("the dashboard")?)?;
    let file = fs::read_to_string(chart::folder().join("files/dashboard.json"))?;
    ensure!(rendered == serde_json::from_str::<Value>(&file)?, "the template changes the dashboard");
    Ok(())
}
