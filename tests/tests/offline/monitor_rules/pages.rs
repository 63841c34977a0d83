//! Alerts and panels beside the pages: the reference of metrics, and a runbook for each alert.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::monitoring::{alerts, family, metrics, queries};
use e2e::scene::release::repository;

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
        "mailroute_build_info",                 // which version runs, for one's own queries
        "mailroute_logins_total",               // failures are refusals, which are
        "mailroute_encoded_header_fields_total", // no fault: what applications send
        "mailroute_rule_actions_total", // what the route asks for; a refused archive copy is a dead letter
        // The status of each route as metrics, for a dashboard of one's own; the alerts ask the sidecars and the conditions.
        "mailroute_route_dead_letter_messages",
        "mailroute_route_lost_messages",
        "mailroute_route_queue_messages",
        "mailroute_route_queue_oldest_age_seconds",
        "mailroute_route_ready_status",
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
fn every_runbook_says_when_its_alert_fires() -> Result<()> {
    for alert in alerts()? {
        let page = page(&format!("runbooks/{}.md", alert.name))?;
        let severity = alert.rule["labels"]["severity"].as_str().context("a severity")?;
        let wait = alert.rule["for"].as_str().map_or("at once".to_owned(), |wait| format!("after {wait}"));
        let threshold = alert.expression.split_once(" # threshold").map_or(String::new(), |(before, _)| {
            format!(" Threshold {}", before.rsplit(' ').next().unwrap_or_default())
        });
        let line = format!("\nSeverity {severity}, {wait}.{threshold}");
        ensure!(page.contains(&line), "docs/runbooks/{}.md lacks {line:?}", alert.name);
    }
    Ok(())
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
