//! The literal lines of Microsoft and of Entra that the programs are tested with, as a person meets them.

use std::collections::BTreeMap;

use mailroute_replies::classify::Stage;
use mailroute_replies::known_errors::{FEDERATED, OF_CERTIFICATES};
use mailroute_replies::known_replies::KNOWN_REPLIES;
use mailroute_replies::outcome::DeliveryOutcome as Meant;
use mailroute_route::condition::Reason;

/// What a line comes to, in the order of the page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    NewToken,
    Later(Option<Reason>),
    Held(Reason),
    Refused(&'static str, Option<Reason>),
}

impl Outcome {
    /// `None` for a delivery.
    const fn of(meant: Meant) -> Option<Self> {
        Some(match meant {
            Meant::Delivered => return None,
            Meant::RefreshToken => Self::NewToken,
            Meant::Transient(reason) => Self::Later(reason),
            Meant::RouteFault(reason) | Meant::Quota(reason) => Self::Held(reason),
            Meant::RejectMessage(reason) => Self::Refused("message", reason),
            Meant::RejectRecipient => Self::Refused("recipient", None),
        })
    }
}

/// Microsoft's literal lines with what they come to, and the stages at which they do.
pub fn replies() -> BTreeMap<(&'static str, Outcome), Vec<&'static str>> {
    let mut replies: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (stage, line, meant) in KNOWN_REPLIES {
        let Some(outcome) = Outcome::of(*meant) else { continue };
        let stages = replies.entry((without_host(line), outcome)).or_default();
        let stage = said_at(*stage);
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    replies
}

/// Entra's literal errors with their reasons.
pub fn entra() -> Vec<(String, Reason)> {
    let known = FEDERATED.iter().chain(OF_CERTIFICATES);
    let mut errors: Vec<_> =
        known.map(|(_, _, code, sentence, reason)| (format!("AADSTS{code}: {sentence}"), *reason)).collect();
    errors.sort();
    errors.dedup();
    errors
}

const fn said_at(stage: Stage) -> &'static str {
    match stage {
        Stage::Message => "the end of the message",
        other => other.as_str(),
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
