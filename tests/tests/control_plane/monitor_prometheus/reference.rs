//! What Prometheus has scraped beside the reference page: types, and values of labels.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::prometheus::Prometheus;
use e2e::scene::release::repository;
use mailroute_route::condition::{ConditionType, Reason};

/// A row of the page.
struct Row {
    metric: String,
    kind: String,
    labels: Vec<String>,
    meaning: String,
}

impl Row {
    fn of(line: &str) -> Option<Self> {
        let cells: Vec<_> = line.splitn(5, '|').map(str::trim).collect();
        let [_, metric, kind, labels, meaning] = cells[..] else { return None };
        let metric = metric.trim_matches('`').to_owned();
        Some(Self {
            metric,
            kind: kind.to_owned(),
            labels: code(labels).collect(),
            meaning: meaning.to_owned(),
        })
    }

    /// Everything that the row sets as code, and the row of a metric that it names, and the pages that it leads to: the
    /// values of its labels are among it.
    fn listed(&self, all: &[Self]) -> Result<BTreeSet<String>> {
        let own: BTreeSet<_> = code(&self.meaning).collect();
        let named = all.iter().filter(|other| own.contains(&other.metric));
        let mut listed: BTreeSet<_> = named.flat_map(|other| code(&other.meaning)).collect();
        listed.extend(own);
        for link in self.meaning.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let page = link.0.split('#').next().unwrap_or_default();
            let page = std::fs::read_to_string(repository().join("docs/reference").join(page))?;
            page.lines().for_each(|line| listed.extend(code(line)));
        }
        Ok(listed)
    }
}

/// What a text sets as code.
fn code(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn rows() -> Result<Vec<Row>> {
    let page = std::fs::read_to_string(repository().join("docs/reference/metrics.md"))?;
    let rows: Vec<_> =
        page.lines().filter(|line| line.starts_with("| `mailroute_")).filter_map(Row::of).collect();
    ensure!(rows.len() > 40, "the page is not read right: {} rows", rows.len());
    Ok(rows)
}

/// Each metric, but for those of gateways, was scraped, and is of the type that the page names. Its labels have values that the
/// page lists, or conditions and reasons, which have a page of their own.
pub(super) async fn holds(prometheus: &Prometheus) -> Result<()> {
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let conditions = ConditionType::OBSERVED.iter().map(|condition| condition.as_str());
    let elsewhere: BTreeSet<_> = reasons.chain(conditions).collect();
    let (types, rows) = (prometheus.types().await?, rows()?);
    for row in rows.iter().filter(|row| !super::is_of_a_gateway(&row.metric)) {
        let kind = types.get(&row.metric).with_context(|| format!("nobody has {}", row.metric))?;
        ensure!(*kind == row.kind, "{} is a {kind}, and a {} on the page", row.metric, row.kind);
        let listed = row.listed(&rows)?;
        for (label, value) in values(prometheus, row).await? {
            let known = listed.contains(&value) || elsewhere.contains(value.as_str()) || value.is_empty();
            ensure!(known, "{} has {label}={value:?}, which its row does not list", row.metric);
        }
    }
    Ok(())
}

/// The labels of a metric with their values. Versions and routes are as many as there are, and what was wrong with a
/// request that is no admission review is a matter between API servers and the operator.
async fn values(prometheus: &Prometheus, row: &Row) -> Result<BTreeSet<(String, String)>> {
    let series = if row.kind == "histogram" { format!("{}_count", row.metric) } else { row.metric.clone() };
    let mut found = prometheus.query(&series).await?;
    found.retain(|sample| {
        row.metric != "mailroute_admissions_total" || sample["metric"]["outcome"] != "failed"
    });
    let open = ["version", "namespace", "route"];
    let labels = row.labels.iter().filter(|label| !open.contains(&label.as_str()));
    let of = |label: &String| {
        let values = found.iter().filter_map(|sample| sample["metric"][label].as_str());
        values.map(|value| (label.clone(), value.to_owned())).collect::<Vec<_>>()
    };
    Ok(labels.flat_map(of).collect())
}
