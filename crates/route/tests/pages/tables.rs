//! Tables of the reference pages about replies and refusals, from the source text of the programs.

use crate::page::{check_between, read};

const BEGIN: &str = "<!-- from the code: begin -->\n";
const END: &str = "<!-- from the code: end -->\n";

#[test]
fn the_replies_of_the_local_server_are_those_of_its_table() {
    let source = read("sidecar/src/smtp/answer.rs");
    let rows: Vec<_> = source.split("Self::").filter_map(answer).collect();
    assert!(rows.len() > 30, "the table of sidecar/src/smtp/answer.rs is not read right: {rows:#?}");
    check_between(
        "docs/reference/smtp.md",
        (BEGIN, END),
        &format!("| Code | Text |\n| --- | --- |\n{}", rows.concat()),
    );
}

#[test]
fn the_meaning_of_replies_is_that_of_the_table() {
    let source = read("sidecar/src/outcome/classify.rs");
    let rows: Vec<_> = source.lines().filter_map(classification).collect();
    assert!(rows.len() > 30, "the table of sidecar/src/outcome/classify.rs is not read right: {rows:#?}");
    let head = "| When | Code | Enhanced | Text holds | Taken as | Reason |\n| --- | --- | --- | --- | --- | --- |\n";
    check_between("docs/reference/replies.md", (BEGIN, END), &(head.to_owned() + &rows.concat()));
}

#[test]
fn every_refusal_of_a_pod_is_on_the_page_and_no_other() {
    let source = read("crates/operator-core/src/inject/refusal.rs");
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
    assert_eq!(
        on_page, in_code,
        "docs/reference/annotations.md and crates/operator-core/src/inject/refusal.rs differ"
    );
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
    let kind = outcome.trim_start_matches("DeliveryOutcome::").split('(').next().unwrap_or_default();
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
