//! Alerts and dashboard as files: what they name exists, each alert has its page, values tune it, and promtool plays each in
//! both states.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::monitoring::{alerts, rules};
use e2e::peers;
use mailroute_route::condition::{ConditionType, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

mod pages;
mod values;

/// An alert in both states; the form is explained in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    alert: String,
    quiet: BTreeMap<String, String>,
    firing: BTreeMap<String, String>,
    waits: u32,
    fires: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn cases() -> Result<Vec<Case>> {
    Ok(serde_saphyr::from_str(include_str!("monitor_rules/cases.yaml"))?)
}

#[test]
fn the_reasons_that_alert_are_those_of_conditions_that_do_not_hold() -> Result<()> {
    let alert =
        alerts()?.into_iter().find(|alert| alert.name == "MailRouteConditionFalse").context("the alert")?;
    let (_, rest) = alert.expression.split_once("reason!~\"").context("reasons")?;
    let listed: BTreeSet<_> = rest.split_once('"').context("reasons end")?.0.split('|').collect();
    let observed = Reason::ALL.iter().filter(|reason| ConditionType::OBSERVED.contains(&reason.condition()));
    let holding: BTreeSet<_> =
        observed.filter(|reason| reason.holds()).map(|reason| reason.as_str()).collect();
    ensure!(listed == holding, "listed {listed:?}, holding {holding:?}");
    Ok(())
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_happened() -> Result<()> {
    for alert in alerts()? {
        let severity = alert.rule["labels"]["severity"].as_str();
        ensure!(matches!(severity, Some("critical" | "warning" | "info")), "{}: {severity:?}", alert.name);
        for text in ["summary", "description"] {
            let text = alert.rule["annotations"][text]
                .as_str()
                .with_context(|| format!("{}: {text}", alert.name))?;
            ensure!(text.ends_with('.'), "{}: {text:?}", alert.name);
        }
    }
    Ok(())
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_rules() -> Result<()> {
    let work = tempfile::tempdir()?;
    fs::copy(e2e::chart::folder().join("files/alerts.yaml"), work.path().join("alerts.yaml"))?;
    let told = peers::run(work.path(), &["promtool", "check", "rules", "/work/alerts.yaml"]).await?;
    ensure!(told.contains(&format!("{} rules found", alerts()?.len())), "{told}");
    Ok(())
}

#[tokio::test]
async fn each_alert_is_quiet_when_all_is_well_and_fires_when_it_is_not() -> Result<()> {
    let (cases, alerts) = (cases()?, alerts()?);
    let played: Vec<_> = cases.iter().map(|case| case.alert.as_str()).collect();
    let written: Vec<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    ensure!(played == written, "cases.yaml and alerts.yaml differ: {played:?} {written:?}");

    let work = tempfile::tempdir()?;
    let write = |name: &str, content: &Value| fs::write(work.path().join(name), content.to_string());
    write("alerts.yaml", &without_texts(rules()?))?;
    let tests: Vec<_> =
        cases.iter().zip(&alerts).flat_map(|(case, alert)| plays(case, &alert.rule)).collect();
    let document = json!({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests});
    write("tests.yaml", &document)?;
    peers::run(work.path(), &["promtool", "test", "rules", "/work/tests.yaml"]).await?;
    Ok(())
}

/// The rules without what is written for people, which has numbers that a test would have to work out once more.
fn without_texts(mut rules: Value) -> Value {
    let groups = rules["groups"].as_array_mut().into_iter().flatten();
    for rule in groups.flat_map(|group| group["rules"].as_array_mut().into_iter().flatten()) {
        if let Some(rule) = rule.as_object_mut() {
            rule.remove("annotations");
        }
    }
    rules
}

/// The two plays of an alert, in promtool's form.
fn plays(case: &Case, rule: &Value) -> [Value; 2] {
    let mut labels = json!(case.labels);
    labels["severity"] = rule["labels"]["severity"].clone();
    let at = |minute: u32, expected: Value| json!({"eval_time": format!("{minute}m"), "alertname": case.alert, "exp_alerts": expected});
    let play = |state: &str, samples: &BTreeMap<String, String>, looks: Value| {
        let series: Vec<_> =
            samples.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
        let name = format!("{} {state}", case.alert);
        json!({"name": name, "interval": "1m", "input_series": series, "alert_rule_test": looks})
    };
    [
        play("quiet", &case.quiet, json!([at(case.fires, json!([]))])),
        play(
            "firing",
            &case.firing,
            json!([at(case.waits, json!([])), at(case.fires, json!([{"exp_labels": labels}]))]),
        ),
    ]
}
