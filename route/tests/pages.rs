//! Reference pages that list what the programs say, compared with the source text of the programs.
//!
//! Text is compared, not values, so that a page about both programs needs neither of them built. The tables between
//! the two marks of a page are written again by `MAILROUTE_WRITE=1 cargo test -p mailroute-route --test pages`.

#![allow(clippy::panic, reason = "a test says what it cannot read")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

const BEGIN: &str = "<!-- from the code: begin -->\n";
const END: &str = "<!-- from the code: end -->\n";

#[test]
fn the_replies_of_the_local_server_are_those_of_its_table() {
    let source = read("sidecar/src/smtp/answer.rs");
    let rows: Vec<_> = source.split("Self::").filter_map(answer).collect();
    assert!(rows.len() > 30, "the table of sidecar/src/smtp/answer.rs is not read right: {rows:#?}");
    check("docs/reference/smtp.md", &format!("| Code | Text |\n| --- | --- |\n{}", rows.concat()));
}

#[test]
fn the_meaning_of_replies_is_that_of_the_table() {
    let source = read("sidecar/src/delivery/classify.rs");
    let rows: Vec<_> = source.lines().filter_map(classification).collect();
    assert!(rows.len() > 30, "the table of sidecar/src/delivery/classify.rs is not read right: {rows:#?}");
    let head = "| When | Code | Enhanced | Text holds | Taken as | Reason |\n| --- | --- | --- | --- | --- | --- |\n";
    check("docs/reference/replies.md", &(head.to_owned() + &rows.concat()));
}

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

#[test]
fn every_refusal_of_a_pod_is_on_the_page_and_no_other() {
    let source = read("operator/src/inject/refusal.rs");
    let (_, arms) =
        source.split_once("pub const fn reason").expect("the reasons are a function of that name");
    let (arms, _) = arms.split_once("\n    }\n").expect("a function ends");
    let mut in_code: Vec<_> = arms.split('"').skip(1).step_by(2).collect();
    let page = read("docs/reference/annotations.md");
    let (_, listed) = page.split_once("## What is refused").expect("the page has that part");
    let mut on_page: Vec<_> =
        listed.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    in_code.sort_unstable();
    on_page.sort_unstable();
    assert_eq!(on_page, in_code, "docs/reference/annotations.md and operator/src/inject/refusal.rs differ");
}

/// Compares, or on request writes, what stands between the marks of a page.
fn check(path: &str, table: &str) {
    let page = read(path);
    let parts = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?)));
    let (head, (present, tail)) = parts.unwrap_or_else(|| panic!("{path} lacks the marks {BEGIN}{END}"));
    if env::var_os("MAILROUTE_WRITE").is_some() {
        fs::write(absolute(path), [head, BEGIN, table, END, tail].concat()).expect("the page can be written");
    } else {
        assert!(
            present == table,
            "{path} differs from the code; write it again: \
             MAILROUTE_WRITE=1 cargo test -p mailroute-route --test pages"
        );
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(absolute(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn absolute(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A row from an arm such as `Ok => done(250, 0, 0, "OK"),`.
fn answer(arm: &str) -> Option<String> {
    let (_, call) = arm.split_once(" => ")?;
    let numbers = call.strip_prefix("done(").or_else(|| call.strip_prefix("refused("))?;
    let mut numbers = numbers.split(',').map(str::trim);
    let (code, subject, detail) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let class = code.chars().next()?;
    let text = call.split('"').nth(1)?;
    Some(format!("| {code} {class}.{subject}.{detail} | `{text}` |\n"))
}

/// A row from a line such as `Row(Auth, Is(535), is(7, 139), "security defaults", RouteFault(R::AuthenticationPolicy)),`.
fn classification(line: &str) -> Option<String> {
    let row = line.trim().strip_prefix("Row(")?.strip_suffix("),")?;
    let (left, right) = row.split_once('"')?;
    let (text, outcome) = right.split_once('"')?;
    let mut left = left.splitn(3, ',').map(str::trim);
    let (at, code, detail) = (left.next()?, left.next()?, left.next()?);
    let text = if text.is_empty() { String::new() } else { format!("`{text}`") };
    let (kind, reason) = taken_as(outcome.trim_start_matches(',').trim());
    let (at, code, detail) = (stage(at), reply_code(code), enhanced(detail));
    Some(format!("| {at} | {code} | {detail} | {text} | {kind} | {reason} |\n"))
}

fn stage(at: &str) -> &str {
    match at {
        "Any" => "any time",
        "Ehlo" => "EHLO",
        "Auth" => "AUTH",
        "Mail" => "MAIL",
        "Sending" => "from MAIL on",
        other => panic!("what does {other:?} stand for?"),
    }
}

fn reply_code(code: &str) -> &str {
    match code {
        "Transient" => "4yz",
        "Permanent" => "5yz",
        "Negative" => "4yz, 5yz",
        is => is.trim_start_matches("Is(").trim_end_matches(')'),
    }
}

fn enhanced(detail: &str) -> String {
    let numbers = detail.trim_end_matches(',').trim_end_matches(')').split_once('(');
    let numbers: Vec<_> = numbers.map_or("", |(_, numbers)| numbers).split(',').map(str::trim).collect();
    match numbers[..] {
        [subject, detail] => format!("x.{subject}.{detail}"),
        [subject, from, to] => format!("x.{subject}.{from} to {to}"),
        _ => String::new(),
    }
}

fn taken_as(outcome: &str) -> (&str, String) {
    let reason = outcome.split_once("R::").map_or("", |(_, reason)| reason.trim_end_matches(')'));
    let link = if reason.is_empty() {
        String::new()
    } else {
        format!("[{reason}](reasons.md#{})", reason.to_lowercase())
    };
    let kind = outcome.trim_start_matches("Outcome::").split('(').next().unwrap_or_default();
    let kind = match kind {
        "RouteFault" => "fault of the route",
        "Quota" => "quota",
        "later" | "Transient" => "transient",
        "RefreshToken" => "new token, once",
        "RejectMessage" => "message refused",
        "RejectRecipient" => "recipient refused",
        other => panic!("what does {other:?} stand for?"),
    };
    (kind, link)
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
