//! Pages that are written by hand: what their tables say of conditions, reasons, replies, metrics, annotations and clouds is
//! so.
//!
//! That the trouble of each row of the way in really shows so is tested with a sidecar and a simulator
//! (`sidecar/tests/relay/first_mail.rs`, `first_mail_elsewhere.rs`), which look at the same rows: they have to be of one form.

#![expect(clippy::panic, clippy::expect_used, reason = "a test says what it cannot read")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use mailroute_operator_core::crd::cloud::Cloud;
use mailroute_operator_core::crd::method::Method;
use mailroute_operator_core::inject::names::{INJECTED, KEYS};
use mailroute_operator_core::resolve::LimitPreset;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::file::SubmissionService;
use mailroute_sidecar::outcome::health::Health;

const WAY_IN: &str = "docs/getting-started.md";

/// The head of a table of what is shown while something is missing.
const MISSING: &str = "| Missing | Condition | Reason |";

#[test]
fn every_step_of_the_way_in_has_commands_and_what_is_shown_while_it_is_missing() {
    let page = read(WAY_IN);
    let steps = page.split("\n## ").filter(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let mut count = 0;
    for step in steps {
        let title = step.lines().next().unwrap_or_default();
        assert!(step.contains("\n```"), "{title}: no command");
        let rows = rows(step, MISSING);
        assert!(!rows.is_empty(), "{title}: nothing says what is shown while it is missing");
        for row in rows {
            let [_, condition, reason] = &row[..] else { panic!("{title}: {row:?}") };
            let known = reasons_in(reason);
            assert_eq!(known.len(), 1, "{title}: {row:?}");
            let status = if known[0].condition() == ConditionType::Ready { "True" } else { "False" };
            assert_eq!(*condition, format!("`{}` {status}", known[0].condition()), "{title}");
            assert_eq!(*reason, format!("`{}`", known[0]), "{title}");
        }
        count += 1;
    }
    assert!(count >= 7, "only {count} steps were found");
}

#[test]
fn what_is_missing_shows_under_a_condition_that_has_the_reason() {
    let pages = [
        WAY_IN,
        "docs/guides/operator-identity.md",
        "docs/methods/graph.md",
        "docs/methods/high-volume-email.md",
        "docs/methods/communication-services.md",
    ];
    for path in pages {
        let page = read(path);
        let rows = rows(&page, MISSING);
        assert!(!rows.is_empty(), "{path}: the table is not read right: {rows:?}");
        for row in rows {
            let [_, condition, reasons] = &row[..] else { panic!("{path}: {row:?}") };
            let named = reasons_in(reasons);
            assert!(!named.is_empty(), "{path}: {row:?}");
            for reason in named {
                let shown = format!("`{}` ", reason.condition());
                assert!(condition.starts_with(&shown), "{path}: {reason} is no reason of {condition}");
            }
        }
    }
}

#[test]
fn replies_on_the_pages_of_methods_have_the_reasons_of_the_table() {
    let known = read("docs/troubleshooting.md");
    for path in ["docs/methods/smtp-relay.md", "docs/methods/direct-send.md"] {
        let page = read(path);
        let rows = rows(&page, "| Reply | Reason |");
        assert!(rows.len() > 4, "{path}: the table is not read right: {rows:?}");
        for row in rows {
            // The second of two is the end of a range, or another code for the same.
            let said = row[0].split('`').nth(1).unwrap_or_default();
            let meanings = meanings(&known, said);
            assert!(!meanings.is_empty(), "{path}: troubleshooting knows no reply {said:?}");
            match reasons_in(row[1])[..] {
                [] => assert!(
                    meanings.iter().all(|it| !it.contains("Reason [")),
                    "{path}: {said:?} has a reason"
                ),
                [reason] => {
                    let link = format!("Reason [{reason}]");
                    assert!(meanings.iter().any(|it| it.contains(&link)), "{path}: {said:?} is not {reason}");
                }
                _ => panic!("{path}: {row:?}"),
            }
        }
    }
}

#[test]
fn the_endpoints_of_every_cloud_are_on_the_page_of_client_submission() {
    let page = read("docs/methods/client-submission.md");
    for cloud in [Cloud::Global, Cloud::USGovernment, Cloud::USGovernmentDoD, Cloud::China] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{cloud:?}`"))).expect("a row");
        let preset = cloud.preset();
        let host = preset.submission_host.unwrap_or("endpoint.host");
        assert!(row.contains(preset.authority_host) && row.contains(&format!("`{host}`")), "{row}");
    }
}

#[test]
fn the_graph_of_every_cloud_is_on_its_page() {
    let page = read("docs/methods/graph.md");
    for cloud in [Cloud::Global, Cloud::USGovernment, Cloud::USGovernmentDoD, Cloud::China] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{cloud:?}`"))).expect("a row");
        assert!(row.ends_with(&format!("| `{}` |", cloud.preset().graph_host)), "{row}");
    }
}

#[test]
fn every_way_is_on_the_page_that_helps_to_choose() {
    let page = read("docs/methods/README.md");
    let (choices, _) = page.split_once("\n## ").expect("the questions, and a comparison");
    let methods =
        ["ClientSubmission", "Graph", "SmtpRelay", "DirectSend"].map(|it| format!("`method: {it}`"));
    let services =
        ["HighVolumeEmail", "CommunicationServices"].map(|it| format!("`clientSubmission.service: {it}`"));
    for way in methods.iter().chain(&services) {
        assert_eq!(choices.matches(way.as_str()).count(), 1, "{way}");
    }
}

/// What stands for a limit in the table of presets.
fn limit(limit: Option<u32>) -> String {
    match limit {
        Some(10_000) => "10 000".to_owned(),
        Some(limit) => limit.to_string(),
        None => String::new(),
    }
}

#[test]
fn the_presets_of_limits_are_those_that_routes_get() {
    use Method::{ClientSubmission, DirectSend, Graph, SmtpRelay};
    use SubmissionService::{CommunicationServices, ExchangeOnline, HighVolumeEmail};
    let page = read("docs/guides/limits.md");
    for (title, method, service) in [
        ("client submission, `ExchangeOnline`", ClientSubmission, ExchangeOnline),
        ("client submission, `HighVolumeEmail`", ClientSubmission, HighVolumeEmail),
        ("client submission, `CommunicationServices`", ClientSubmission, CommunicationServices),
        ("Graph", Graph, ExchangeOnline),
        ("SMTP relay, Direct Send", SmtpRelay, ExchangeOnline),
        ("SMTP relay, Direct Send", DirectSend, ExchangeOnline),
    ] {
        let row = page.lines().find(|line| line.starts_with(&format!("| {title} |"))).expect("a row");
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let preset = LimitPreset::of(method, service);
        let windows = [preset.messages_per_minute, preset.messages_per_hour, preset.recipients_per_day];
        assert_eq!(cells[1..4], windows.map(limit), "{row}");
        assert!(cells[4].starts_with(&preset.connections.to_string()), "{row}");
        assert_eq!(cells[5], preset.max_recipients.to_string(), "{row}");
        let size = match preset.max_message_bytes {
            10_000_000 => "10 MB".to_owned(),
            bytes => format!("{} MiB", bytes >> 20),
        };
        assert!(cells[6].ends_with(&size), "{row}");
    }
}

#[test]
fn the_annotations_on_the_page_are_those_that_there_are() {
    let page = read("docs/reference/annotations.md");
    let (_, listed) = page.split_once("\n## Annotations\n").expect("the page has that part");
    let listed = listed.split("\n## ").next().unwrap_or_default();
    let rows = listed.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let expected: BTreeSet<_> = KEYS.into_iter().chain([INJECTED]).collect();
    assert_eq!(rows.collect::<BTreeSet<_>>(), expected);
}

/// Values that a meaning need not name: those of reasons have pages of their own, and there is one of the version.
const ELSEWHERE: [(&str, &str); 4] = [
    ("mailroute_build_info", "version"),
    ("mailroute_operator_build_info", "version"),
    ("mailroute_admissions_total", "reason"),
    ("mailroute_webhook_finding_status", "reason"),
];

#[test]
fn the_meaning_of_a_metric_names_every_value_of_its_labels() {
    let page = read("docs/reference/metrics.md");
    for text in [sidecar_metrics(), operator_metrics()] {
        for (metric, label, value) in shown(&text) {
            let meaning = meaning(&page, metric);
            let is_named = meaning.contains(&format!("`{value}`")) || ELSEWHERE.contains(&(metric, label));
            assert!(is_named, "{metric}: {label} {value:?} is not in {meaning:?}");
        }
    }
}

/// Metrics of the operator of which the meaning names every value, and other words as code.
const CLOSED: [(&str, &[&str]); 11] = [
    ("mailroute_reconciles_total", &[]),
    ("mailroute_reports_received_total", &[]),
    ("mailroute_leases_total", &[]),
    ("mailroute_token_requests_total", &["broker.applications"]),
    ("mailroute_certificate_requests_total", &[]),
    ("mailroute_review_requests_total", &[]),
    ("mailroute_admissions_total", &["reason"]),
    ("mailroute_evictions_total", &["rollout: Restart"]),
    ("mailroute_ca_bundle_writes_total", &["caBundle"]),
    ("mailroute_events_total", &[]),
    ("mailroute_dns_looks_total", &[]),
];

#[test]
fn the_meaning_of_a_metric_names_no_value_that_there_is_not() {
    let (page, text) = (read("docs/reference/metrics.md"), operator_metrics());
    let mut values: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (metric, _, value) in shown(&text).filter(|(_, label, _)| *label != "reason") {
        values.entry(metric).or_default().insert(value);
    }
    for (metric, words) in CLOSED {
        let mut listed: BTreeSet<_> = meaning(&page, metric).split('`').skip(1).step_by(2).collect();
        listed.retain(|word| !words.contains(word));
        assert_eq!(listed, values[metric], "{metric}");
    }
}

fn sidecar_metrics() -> String {
    let metrics = mailroute_sidecar::metrics::Metrics::new().expect("metrics");
    String::from_utf8(metrics.render(&Health::default())).expect("text")
}

fn operator_metrics() -> String {
    let metrics = mailroute_operator::metrics::Metrics::new().expect("metrics");
    metrics.text().expect("metrics are printed")
}

/// Metric, label and value of what a program shows before anything has happened, apart from histograms.
fn shown(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let labelled = series.filter_map(|line| {
        let (metric, rest) = line.split_once('{')?;
        Some((metric, rest.split_once('}')?.0))
    });
    let plain =
        labelled.filter(|(metric, _)| !["_bucket", "_sum", "_count"].iter().any(|end| metric.ends_with(end)));
    plain.flat_map(|(metric, labels)| {
        let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(move |(label, value)| (metric, label, value.trim_matches('"')));
        pairs.filter(|(_, _, value)| !value.is_empty())
    })
}

/// The last cell of a metric's row.
fn meaning<'p>(page: &'p str, metric: &str) -> &'p str {
    let row = page.lines().find(|line| line.starts_with(&format!("| `{metric}` |")));
    row.and_then(|row| row.rsplit_once(" | ")).unwrap_or_else(|| panic!("no row of {metric}")).1
}

fn read(path: &str) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(repository.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the tables with this head, as cells.
fn rows<'p>(page: &'p str, head: &str) -> Vec<Vec<&'p str>> {
    let tables = page.split("\n\n").filter_map(|part| Some(&part[part.find(head)?..]));
    let rows = tables.flat_map(|table| table.lines().skip(2));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The reasons that a cell names, as code or as links.
fn reasons_in(cell: &str) -> Vec<Reason> {
    let mut words: Vec<_> = cell.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.dedup();
    words
        .iter()
        .filter_map(|word| Reason::ALL.iter().find(|reason| reason.as_str() == *word).copied())
        .collect()
}

/// What troubleshooting says of every reply that has these words, in this order.
fn meanings<'p>(page: &'p str, said: &str) -> Vec<&'p str> {
    let entries = page.split("\n### `").filter_map(|entry| entry.split_once("`\n"));
    entries.filter(|(heading, _)| has_in_order(heading, said)).map(|(_, meaning)| meaning).collect()
}

fn has_in_order(heading: &str, said: &str) -> bool {
    let mut rest = heading;
    said.split(' ').all(|word| match rest.find(word) {
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}
