//! Tables of replies: what Microsoft's are taken as, hints about refusals, and what the sidecar answers by itself.

use anyhow::Result;
use mailroute_replies::classify::{At, Code, Detail, Row, TABLE};
use mailroute_replies::graph;
use mailroute_replies::hint::HINTS;
use mailroute_replies::outcome::DeliveryOutcome;
use mailroute_route::condition::Reason;
use mailroute_sidecar::smtp::answer::Answer;

use crate::page::{between, link};

const TABLE_MARKS: (&str, &str) = ("<!-- from the code: begin -->\n", "<!-- from the code: end -->\n");
const HINT_MARKS: (&str, &str) =
    ("<!-- hints from the code: begin -->\n", "<!-- hints from the code: end -->\n");

const GRAPH_MARKS: (&str, &str) =
    ("<!-- Graph's from the code: begin -->\n", "<!-- Graph's from the code: end -->\n");

/// `docs/reference/replies.md` with the rows of the classification and the hints.
pub fn of_microsoft(page: &str) -> Result<String> {
    let rows: String = TABLE.iter().map(classification).collect();
    let head = "| When | Code | Enhanced | Text holds | Taken as | Reason |\n| --- | --- | --- | --- | --- | --- |\n";
    let page = between(page, TABLE_MARKS, &(head.to_owned() + &rows))?;
    let rows: String = graph::TABLE.iter().map(of_graph).collect();
    let head =
        "| Status | `error.code` | Text holds | Taken as | Reason |\n| --- | --- | --- | --- | --- |\n";
    let page = between(&page, GRAPH_MARKS, &(head.to_owned() + &rows))?;
    let hints = HINTS.iter().map(|(subject, detail, hint)| format!("| x.{subject}.{detail} | {hint} |\n"));
    let hints: String = hints.collect();
    between(&page, HINT_MARKS, &format!("| Enhanced | Hint |\n| --- | --- |\n{hints}"))
}

/// `docs/reference/smtp.md` with the answers that say something of their own.
pub fn of_the_sidecar(page: &str) -> Result<String> {
    let rows = Answer::ALL.iter().map(|answer| answer.row());
    let rows = rows.filter_map(|row| Some(format!("| {} {} | `{}` |\n", row.code, row.enhanced?, row.text)));
    let rows: String = rows.collect();
    between(page, TABLE_MARKS, &format!("| Code | Text |\n| --- | --- |\n{rows}"))
}

fn classification(row: &Row) -> String {
    let Row(at, code, detail, text, outcome) = row;
    let text = if text.is_empty() { String::new() } else { format!("`{text}`") };
    let (kind, reason) = taken_as(*outcome);
    let reason = reason.map(|reason| link(reason, "reasons.md")).unwrap_or_default();
    let (at, code, detail) = (stage(*at), reply_code(*code), enhanced(detail));
    format!("| {at} | {code} | {detail} | {text} | {kind} | {reason} |\n")
}

fn of_graph(row: &graph::Row) -> String {
    let graph::Row(statuses, code, text, outcome) = row;
    let quoted = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let (kind, reason) = taken_as(*outcome);
    let reason = reason.map(|reason| link(reason, "reasons.md")).unwrap_or_default();
    let statuses = match (*statuses.start(), *statuses.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    };
    format!("| {statuses} | {} | {} | {kind} | {reason} |\n", quoted(code), quoted(text))
}

const fn stage(at: At) -> &'static str {
    match at {
        At::Any => "any time",
        At::Ehlo => "EHLO",
        At::Auth => "AUTH",
        At::Mail => "MAIL",
        At::Sending => "from MAIL on",
    }
}

fn reply_code(code: Code) -> String {
    match code {
        Code::Transient => "4yz".into(),
        Code::Permanent => "5yz".into(),
        Code::Negative => "4yz, 5yz".into(),
        Code::Is(code) => code.to_string(),
    }
}

fn enhanced(detail: &Detail) -> String {
    match detail {
        None => String::new(),
        Some((subject, details)) if details.start() == details.end() => {
            format!("x.{subject}.{}", details.start())
        }
        Some((subject, details)) => format!("x.{subject}.{} to {}", details.start(), details.end()),
    }
}

const fn taken_as(outcome: DeliveryOutcome) -> (&'static str, Option<Reason>) {
    match outcome {
        DeliveryOutcome::Delivered => ("delivered", None),
        DeliveryOutcome::RouteFault(reason) => ("fault of the route", Some(reason)),
        DeliveryOutcome::Quota(reason) => ("quota", Some(reason)),
        DeliveryOutcome::Transient(reason) => ("transient", reason),
        DeliveryOutcome::RefreshToken => ("new token, once", None),
        DeliveryOutcome::RejectMessage(reason) => ("message refused", reason),
        DeliveryOutcome::RejectRecipient => ("recipient refused", None),
    }
}
