//! The literal lines of Microsoft and of Entra that the programs are tested with, read from the tests' tables.

use std::collections::BTreeMap;

use mailroute_route::condition::Reason;

use crate::page::read;

/// Lines that stand for those that nobody has seen yet.
const INVENTED: [&str; 5] = [
    "535 Something new",
    "432 4.3.2 A fourth text",
    "451 4.3.0 Later",
    "A code of tomorrow.",
    "354 Start mail input",
];

/// What a line of the test's table comes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    NewToken,
    Later(Option<Reason>),
    Held(Reason),
    Refused(&'static str, Option<Reason>),
}

/// Microsoft's literal lines with what they come to, and the stages at which they do.
pub fn replies() -> BTreeMap<(String, Outcome), Vec<String>> {
    let source = read("sidecar/src/outcome/classify_tests.rs");
    let mut replies: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (stage, line, outcome) in source.lines().filter_map(tested_line) {
        let stages = replies.entry((line, outcome)).or_default();
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    replies
}

/// From a row such as `(Stage::Auth, "535 5.7.3 Authentication unsuccessful [HOST]", RefreshToken),`.
fn tested_line(row: &str) -> Option<(String, String, Outcome)> {
    let (stage, rest) = row.trim().strip_prefix("(Stage::")?.split_once(", \"")?;
    let (line, outcome) = rest.rsplit_once("\", ")?;
    if INVENTED.contains(&line) {
        return None;
    }
    Some((said_at(stage).into(), without_host(line).into(), outcome_of(outcome.trim_end_matches("),"))?))
}

/// `None` for a delivery.
fn outcome_of(text: &str) -> Option<Outcome> {
    let reason = text.split_once("R::").map(|(_, name)| reason_of(name.trim_end_matches(')')));
    let known = |reason: Option<Reason>| reason.unwrap_or_else(|| panic!("{text:?} has no reason"));
    Some(match text.split('(').next().unwrap_or_default() {
        "RefreshToken" => Outcome::NewToken,
        "NOW_NOT" => Outcome::Later(None),
        "UNAVAILABLE" => Outcome::Later(Some(Reason::UpstreamUnavailable)),
        "DEFERRED" => Outcome::Later(Some(Reason::EgressAddressDeferred)),
        "later" => Outcome::Later(Some(known(reason))),
        "RouteFault" | "Quota" => Outcome::Held(known(reason)),
        "RejectMessage" => Outcome::Refused("message", reason),
        "RejectRecipient" => Outcome::Refused("recipient", None),
        "DeliveryOutcome::Delivered" => return None,
        other => panic!("what does {other:?} stand for?"),
    })
}

/// Entra's literal errors with their reasons, from a row such as
/// `(400, "invalid_request", 90061, "Request to …", Reason::IssuerUnreachable),`.
pub fn entra() -> Vec<(String, Reason)> {
    let source = read("crates/entra/src/aadsts.rs");
    let mut errors: Vec<_> = source.lines().filter_map(entra_error).collect();
    errors.sort();
    errors.dedup();
    errors
}

fn entra_error(row: &str) -> Option<(String, Reason)> {
    let (left, name) = row.trim().strip_prefix('(')?.split_once("\", Reason::")?;
    let (numbers, sentence) = left.rsplit_once(", \"")?;
    if INVENTED.contains(&sentence) {
        return None;
    }
    let code = numbers.rsplit_once(", ")?.1.replace('_', "");
    Some((format!("AADSTS{code}: {sentence}"), reason_of(name.trim_end_matches("),"))))
}

fn reason_of(name: &str) -> Reason {
    let found = Reason::ALL.iter().find(|reason| reason.as_str() == name);
    *found.unwrap_or_else(|| panic!("{name:?} is no reason"))
}

fn said_at(stage: &str) -> &str {
    match stage {
        "Greeting" => "the greeting",
        "Ehlo" => "EHLO",
        "StartTls" => "STARTTLS",
        "Auth" => "AUTH",
        "Mail" => "MAIL",
        "Rcpt" => "RCPT",
        "Data" => "DATA",
        "Message" => "the end of the message",
        other => panic!("what does {other:?} stand for?"),
    }
}

/// Without the name of the server and the time, which are different each time.
fn without_host(line: &str) -> &str {
    let Some((text, bracket)) = line.rsplit_once(" [") else { return line };
    let is_host = ["OUTLOOK.COM", "outlook.com", "exchangelabs.com", "Hostname="]
        .iter()
        .any(|part| bracket.contains(part));
    if is_host && bracket.ends_with(']') { text } else { line }
}
