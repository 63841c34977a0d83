//! `docs/reference/metrics.md` lists the metrics of both programs and their labels, no more and no less.

use std::collections::BTreeMap;
use std::fs;

use crate::page::{absolute, read};

#[test]
fn every_metric_is_on_the_page_with_its_labels_and_no_other() {
    let page = read("docs/reference/metrics.md");
    let (sidecar, operator) =
        page.split_once("\n## Operator\n").expect("the page has a part for each program");
    for (program, listed) in [("sidecar", sidecar), ("operator", operator)] {
        let source = metrics_source(program);
        let in_code = metrics_in_code(&source);
        assert!(in_code.len() > 10, "the metrics of the {program} are not read right: {in_code:?}");
        assert_eq!(metrics_on_page(listed), in_code, "docs/reference/metrics.md and the {program} differ");
    }
}

#[test]
fn no_metric_of_one_program_has_the_name_of_another_programs() {
    let (operator, sidecar) = (metrics_source("operator"), metrics_source("sidecar"));
    let (operator, sidecar) = (metrics_in_code(&operator), metrics_in_code(&sidecar));
    let both: Vec<_> = operator.keys().filter(|name| sidecar.contains_key(*name)).collect();
    assert!(both.is_empty(), "a query would add up what has nothing in common: {both:?}");
}

/// The code of a program's module `metrics`, the file and what is in the folder of the same name, without tests.
fn metrics_source(program: &str) -> String {
    let file = format!("{program}/src/metrics.rs");
    let folder = format!("{program}/src/metrics");
    let mut sources = Vec::from_iter(absolute(&file).is_file().then(|| read(&file)));
    if let Ok(entries) = fs::read_dir(absolute(&folder)) {
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<_> =
            names.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{folder}: {error}"));
        names.sort_unstable();
        sources.extend(names.iter().map(|name| read(&format!("{folder}/{name}"))));
    }
    sources.iter().map(|source| without_tests(source)).collect()
}

fn without_tests(source: &str) -> String {
    source.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Each metric that a program makes, with its labels.
fn metrics_in_code(code: &str) -> BTreeMap<&str, Vec<&str>> {
    let parts: Vec<_> = code.split('"').collect();
    let names = parts.iter().enumerate().filter(|(_, part)| is_metric(part));
    names
        .map(|(at, name)| {
            // Its labels are the list before the next metric begins.
            let rest = &parts[at + 1..];
            let end = rest.iter().position(|part| is_metric(part)).unwrap_or(rest.len());
            let begin = rest[..end].iter().position(|part| part.ends_with("&["));
            let labels = begin.map_or(&[][..], |begin| &rest[begin + 1..end]);
            let close = labels.iter().position(|part| part.starts_with(']')).unwrap_or(0);
            (*name, labels[..close].iter().copied().filter(|part| *part != ", ").collect())
        })
        .collect()
}

/// Each metric of a table, with its labels.
fn metrics_on_page(table: &str) -> BTreeMap<&str, Vec<&str>> {
    let rows = table.lines().map(|line| line.split('|').collect::<Vec<_>>());
    rows.filter(|cells| cells.len() > 4)
        .filter_map(|cells| {
            let name = cells[1].trim().trim_matches('`');
            let labels = cells[3].split('`').skip(1).step_by(2).collect();
            is_metric(name).then_some((name, labels))
        })
        .collect()
}

fn is_metric(text: &str) -> bool {
    text.strip_prefix("mailroute_").is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}
