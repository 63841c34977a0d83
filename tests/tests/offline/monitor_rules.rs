//! Alerts and dashboard as files: what they name exists, each alert has its page, and promtool plays each in both states.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::chart::Objects;
use e2e::monitoring::{alerts, family, metrics, queries, rules};
use e2e::peers;
use e2e::scene::release::repository;
use mailroute_route::condition::{ConditionType, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

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

fn page(name: &str) -> Result<String> {
    let path = repository().join("docs").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Every metric of the reference, with its labels.
fn reference() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let page = page("reference/metrics.md")?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `mailroute_")).map(|rest| {
        let cells: Vec<_> = rest.split(" | ").collect();
        let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (format!("mailroute_{}", cells[0].trim_end_matches('`')), labels)
    });
    Ok(rows.collect())
}

#[test]
fn every_metric_of_an_alert_or_a_panel_is_in_the_reference_with_its_labels() -> Result<()> {
    let reference = reference()?;
    ensure!(reference.len() > 40, "the reference is not read right: {reference:#?}");
    let alerts = alerts()?.into_iter().map(|alert| (alert.name, alert.expression));
    let panels = queries()?.into_iter().map(|query| (query.panel, query.expression));
    for (whose, expression) in alerts.chain(panels) {
        let named = metrics(&expression);
        ensure!(!named.is_empty(), "{whose}: no metric in {expression}");
        for metric in named {
            let labels =
                reference.get(family(&metric)).with_context(|| format!("{whose}: there is no {metric}"))?;
            for label in selected(&expression, &metric) {
                ensure!(
                    labels.contains(&label) || GIVEN.contains(&label.as_str()),
                    "{whose}: {metric} has no {label}"
                );
            }
        }
    }
    Ok(())
}

/// Labels that whoever scrapes gives.
const GIVEN: [&str; 3] = ["namespace", "route", "pod"];

/// The labels by which an expression selects series of a metric.
fn selected(expression: &str, metric: &str) -> Vec<String> {
    let opening = format!("{metric}{{");
    let after = expression.split(&opening).skip(1);
    let selectors = after.filter_map(|rest| rest.split_once('}')).map(|(selector, _)| selector);
    let matchers = selectors.flat_map(|selector| selector.split(", ").flat_map(|part| part.split(",")));
    matchers
        .filter_map(|matcher| matcher.split_once(['=', '!']))
        .map(|(label, _)| label.trim().to_owned())
        .collect()
}

#[test]
fn every_metric_that_tells_of_trouble_is_watched_or_shown() -> Result<()> {
    // What is left out, and why.
    let aside = [
        "mailroute_sessions_open", // how busy an application is
        "mailroute_sessions_total",
        "mailroute_delivered_recipients_total", // the messages are shown
        "mailroute_fast_failures_total",        // a consequence of a condition, which is
        "mailroute_budget_share_ratio",         // a consequence of throttling, which is
        "mailroute_probes_total",               // their result is a condition
        "mailroute_config_errors_total",        // mailroute_config_valid_status says the same
        "mailroute_events_total",               // a side of the reconciliations
    ];
    let expressions: Vec<_> = alerts()?
        .into_iter()
        .map(|alert| alert.expression)
        .chain(queries()?.into_iter().map(|query| query.expression))
        .collect();
    let used: BTreeSet<_> = expressions.iter().flat_map(|expression| metrics(expression)).collect();
    let used: BTreeSet<_> = used.iter().map(|metric| family(metric)).collect();
    let unused: Vec<_> = reference()?.into_keys().filter(|metric| !used.contains(metric.as_str())).collect();
    ensure!(unused.iter().map(String::as_str).collect::<BTreeSet<_>>() == aside.into(), "{unused:#?}");
    Ok(())
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
fn every_alert_has_a_page_and_every_page_an_alert() -> Result<()> {
    let names: BTreeSet<_> = alerts()?.into_iter().map(|alert| alert.name).collect();
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(repository().join("docs/runbooks"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        pages.extend(name.strip_suffix(".md").filter(|name| *name != "README").map(str::to_owned));
    }
    ensure!(names == pages, "alerts {names:#?}\npages {pages:#?}");
    let index = page("runbooks/README.md")?;
    for name in &names {
        let page = page(&format!("runbooks/{name}.md"))?;
        for part in
            [&format!("# {name}\n"), "\n## Meaning\n", "\n## Impact\n", "\n## Diagnosis\n", "\n## Remedy\n"]
        {
            ensure!(page.contains(part), "docs/runbooks/{name}.md lacks {part:?}");
        }
        ensure!(index.contains(&format!("]({name}.md)")), "docs/runbooks/README.md does not list {name}");
    }
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
    let file = fs::read_to_string(e2e::chart::folder().join("files/dashboard.json"))?;
    ensure!(rendered == serde_json::from_str::<Value>(&file)?, "the template changes the dashboard");
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

#[test]
fn the_runbooks_are_linked_from_the_guide() -> Result<()> {
    let guide = page("guides/monitoring.md")?;
    ensure!(
        guide.contains("](../runbooks/README.md)"),
        "docs/guides/monitoring.md does not lead to the runbooks"
    );

    Ok(())
}
