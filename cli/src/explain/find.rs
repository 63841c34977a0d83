//! What a text is about: reasons, conditions, replies and errors that the tables of the programs know. Pure.
//!
//! The text may be anything that a person has in front of them: a word of a condition, a reply, a line of a log. Whatever is
//! known in it is explained, the most certain first.

use mailroute_replies::classify::{Stage, classify};
use mailroute_replies::graph::{self, GraphReply};
use mailroute_replies::hint;
use mailroute_replies::known_errors::{FEDERATED, OF_CERTIFICATES, UNMATCHED};
use mailroute_replies::known_replies::KNOWN_REPLIES;
use mailroute_replies::one_of_several;
use mailroute_replies::outcome::{DeliveryOutcome, one_line};
use mailroute_replies::own::OWN;
use mailroute_replies::reply::Reply;
use mailroute_route::condition::{ConditionType, PLACEHOLDERS, Reason};
use serde::Serialize;

/// Longest text that is looked at, octets: a line of a log.
const MAX_TEXT: usize = 8 * 1024;

/// Every stage at which a reply that is not positive may come.
const STAGES: [Stage; 8] = [
    Stage::Greeting,
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Auth,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::Message,
];

/// One thing that is known of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What it is: `SmtpAuthDisabledMailbox`, `550 5.7.60 …`.
    pub subject: String,
    /// Its kind, in a few words.
    pub kind: String,
    /// What it means.
    pub meaning: String,
    /// What to do about it; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// The reason by which conditions, metrics and logs name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Where the documentation says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Everything that is known of a text. `at` says which command a reply in it answers.
pub fn explain(text: &str, at: Option<Stage>) -> Vec<Explanation> {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut found: Vec<Explanation> = words(text).filter_map(reason_named).map(of_reason).collect();
    found.extend(entra(text));
    found.extend(own(text));
    // A reply of ours that names a reason says no more than that.
    if found.is_empty() {
        found.extend(graph_answer(text));
    }
    if found.is_empty() {
        found.extend(replies(text, at));
    }
    found.extend(words(text).filter_map(condition_named).map(of_condition));
    found.extend(one_mailbox(text));
    let mut once = Vec::with_capacity(found.len());
    for explanation in found {
        if !once.contains(&explanation) {
            once.push(explanation);
        }
    }
    once
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 3)
}

/// `Ready`, `Accepted` and `CertificateValid` are reasons and conditions. A text of its own may be in small letters.
fn reason_named(word: &str) -> Option<Reason> {
    let exact = Reason::ALL.iter().copied().find(|reason| reason.as_str() == word);
    exact.or_else(|| {
        let is_long = |reason: &Reason| reason.as_str().chars().filter(char::is_ascii_uppercase).count() > 1;
        Reason::ALL
            .iter()
            .copied()
            .find(|reason| is_long(reason) && reason.as_str().eq_ignore_ascii_case(word))
    })
}

fn condition_named(word: &str) -> Option<ConditionType> {
    ConditionType::ALL.into_iter().find(|condition| condition.as_str() == word)
}

fn anchor(reason: Reason) -> String {
    format!("docs/reference/reasons.md#{}", reason.as_str().to_lowercase())
}

fn of_reason(reason: Reason) -> Explanation {
    Explanation {
        subject: reason.to_string(),
        kind: format!("reason of the condition {} ({})", reason.condition(), reason.status()),
        meaning: reason.sentence().into(),
        remedy: reason.remedy(&PLACEHOLDERS),
        reason: Some(reason),
        page: Some(anchor(reason)),
    }
}

fn of_condition(condition: ConditionType) -> Explanation {
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| reason.condition() == condition)
        .map(|reason| reason.as_str())
        .collect();
    Explanation {
        subject: condition.to_string(),
        kind: "condition of a MailRoute".into(),
        meaning: format!("{} Its reasons: {}.", condition.meaning(), reasons.join(", ")),
        remedy: "kubectl mailroute status <route> shows which of them holds.".into(),
        reason: None,
        page: Some(format!("docs/reference/reasons.md#{}", condition.as_str().to_lowercase())),
    }
}

/// What it says that a text names one mailbox of several.
fn one_mailbox(text: &str) -> Option<Explanation> {
    Some(Explanation {
        subject: one_of_several::mailbox_of(text)?.into(),
        kind: "one mailbox of several".into(),
        meaning: one_of_several::MEANING.into(),
        remedy: without_links(one_of_several::REMEDY),
        reason: None,
        page: Some("docs/troubleshooting.md#one-mailbox-of-several".into()),
    })
}

/// The errors of Entra whose numbers are in the text.
fn entra(text: &str) -> Vec<Explanation> {
    let numbers = text.split("AADSTS").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u32>().ok()
    });
    let known = |number: u32| {
        let unmatched = UNMATCHED.iter().filter(move |(_, _, code, _)| *code == number);
        let unmatched = unmatched.map(|(_, _, _, sentence)| (*sentence, Reason::FederationNotTrusted));
        let others =
            FEDERATED.iter().chain(OF_CERTIFICATES).filter(move |(_, _, code, _, _)| *code == number);
        unmatched.chain(others.map(|(_, _, _, sentence, reason)| (*sentence, *reason)))
    };
    let mut found = Vec::new();
    for number in numbers {
        let mut reasons = Vec::new();
        for (sentence, reason) in known(number) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
                let subject = format!("AADSTS{number}: {sentence}");
                let kind = format!("error of Entra; reason {reason} of the condition {}", reason.condition());
                found.push(Explanation { subject, kind, ..of_reason(reason) });
            }
        }
        if reasons.is_empty() {
            found.push(Explanation {
                subject: format!("AADSTS{number}"),
                kind: "error of Entra that is not in the table".into(),
                ..of_reason(Reason::CredentialRejected)
            });
        }
    }
    found
}

/// The sidecar's own replies.
fn own(text: &str) -> Option<Explanation> {
    let (said, remedy) =
        OWN.iter().find(|(said, _)| text.contains(said.trim_end()) && said.len() > "Not now: ".len())?;
    Some(Explanation {
        subject: (*said).into(),
        kind: "reply of the sidecar itself".into(),
        meaning: "The application got this from localhost; Microsoft 365 was not asked.".into(),
        remedy: without_links(remedy),
        reason: None,
        page: Some("docs/troubleshooting.md#replies-of-the-sidecar-itself".into()),
    })
}

/// Markdown without its links: `[text](page)` becomes `text (docs/page)`.
fn without_links(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(name, tail)| Some((name, tail.split_once(')')?))) {
            Some((name, (page, tail))) => {
                let page =
                    if page.starts_with('#') { format!("troubleshooting.md{page}") } else { page.into() };
                text.push_str(&format!("{name} (docs/{page})"));
                rest = tail;
            }
            None => {
                text.push('[');
                rest = link;
            }
        }
    }
    text + rest
}

/// An answer of Microsoft Graph: a status and an `error.code` of the table.
fn graph_answer(text: &str) -> Option<Explanation> {
    let code =
        |word: &&str| graph::TABLE.iter().any(|row| !row.1.is_empty() && row.1.eq_ignore_ascii_case(word));
    let code = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| code(word));
    let says_graph = text.contains("Microsoft Graph answered");
    let mut numbers = text.split(|c: char| !c.is_ascii_alphanumeric());
    let status =
        numbers.find_map(|word| word.parse::<u16>().ok().filter(|status| (200..600).contains(status)));
    if code.is_none() && !says_graph {
        return None;
    }
    let code = code.unwrap_or_default();
    let by_code =
        || graph::TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(code)).map(|row| *row.0.start());
    let quoted =
        if says_graph { text.split("Microsoft Graph answered").nth(1).and_then(first_number) } else { None };
    let status = quoted.or(status).or_else(by_code)?;
    let reply = GraphReply { status, code: code.into(), message: text.into(), ..GraphReply::default() };
    let outcome = graph::classify(&reply);
    let subject = format!("{status} {code}").trim_end().to_owned();
    Some(of_outcome(subject, "answer of Microsoft Graph".into(), outcome, None))
}

fn first_number(text: &str) -> Option<u16> {
    text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty())?.parse().ok()
}

/// The SMTP reply in the text, as it is taken at each command where it may come.
fn replies(text: &str, at: Option<Stage>) -> Vec<Explanation> {
    let Some(reply) = reply(text) else { return Vec::new() };
    if reply.is_positive() {
        return vec![Explanation {
            subject: one_line(&reply),
            kind: "positive reply".into(),
            meaning: if reply.text().contains("queued as ") {
                "The sidecar has stored the message and will deliver it.".into()
            } else {
                "The command was carried out. At the end of a message: Microsoft 365 has accepted it.".into()
            },
            remedy: "kubectl mailroute trace <Message-ID> tells what became of a message.".into(),
            reason: None,
            page: Some("docs/reference/replies.md#replies-to-the-application".into()),
        }];
    }
    let stages: Vec<Stage> = at.map_or_else(|| likely(&reply), |at| vec![at]);
    let mut outcomes: Vec<(DeliveryOutcome, Vec<&str>)> = Vec::new();
    for stage in stages {
        let outcome = classify(stage, &reply);
        match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, stages)) => stages.push(stage.as_str()),
            None => outcomes.push((outcome, vec![stage.as_str()])),
        }
    }
    let explained = outcomes.into_iter().map(|(outcome, stages)| {
        let kind = format!("reply of Microsoft 365 at {}", stages.join(", "));
        of_outcome(one_line(&reply), kind, outcome, hint::of(&reply))
    });
    explained.collect()
}

/// The stages at which this very line is known, or else all.
fn likely(reply: &Reply) -> Vec<Stage> {
    let text = reply.text().to_ascii_lowercase();
    let is_it = |line: &str| {
        read(line).is_some_and(|known| {
            let beginning: String = known.text().to_ascii_lowercase().chars().take(30).collect();
            (known.code, known.enhanced) == (reply.code, reply.enhanced)
                && text.starts_with(beginning.trim_end())
        })
    };
    let mut stages: Vec<Stage> = Vec::new();
    for (stage, line, _) in KNOWN_REPLIES {
        if is_it(line) && !stages.contains(stage) {
            stages.push(*stage);
        }
    }
    if stages.is_empty() { STAGES.to_vec() } else { stages }
}

/// The first reply that begins at some word of the text, the one inside of ours first: `451 4.3.0 Not now: 452 4.2.2 …`.
fn reply(text: &str) -> Option<Reply> {
    let text = text.split_once("Not now: ").map_or(text, |(_, inner)| inner);
    let starts = text.char_indices().filter(|&(at, c)| {
        matches!(c, '2' | '4' | '5')
            && !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '.')
    });
    let found: Vec<Reply> = starts.filter_map(|(at, _)| read(&text[at..])).collect();
    // A number of three digits may be anything; with an enhanced code it is a reply.
    found.iter().find(|reply| reply.enhanced.is_some()).or(found.first()).cloned()
}

fn read(line: &str) -> Option<Reply> {
    let line = line.lines().next().unwrap_or_default().trim_end_matches(['"', '\'', '`']);
    let mut wire = line.as_bytes().to_vec();
    // A line of a reply of several lines stands for all of it.
    if let Some(mark) = wire.get_mut(3).filter(|mark| **mark == b'-') {
        *mark = b' ';
    }
    wire.extend_from_slice(b"\r\n");
    Reply::parse(&wire).ok().flatten().map(|(reply, _)| reply)
}

fn of_outcome(subject: String, kind: String, outcome: DeliveryOutcome, hint: Option<&str>) -> Explanation {
    let reason = outcome.reason();
    let meaning = match outcome {
        DeliveryOutcome::Delivered => "Microsoft 365 has accepted the message.",
        DeliveryOutcome::Transient(_) => {
            "Temporary: the sidecar tries again. In mode Deliver the application gets 451."
        }
        DeliveryOutcome::RefreshToken => {
            "The token is refused: the sidecar tries once more with a new one. If that is refused too, mail is held."
        }
        DeliveryOutcome::RouteFault(_) => {
            "Not a fault of the message: mail is held until the route works again, and none is returned."
        }
        DeliveryOutcome::Quota(_) => "A limit is used up: mail is held until there is room again.",
        DeliveryOutcome::RejectRecipient => {
            "This recipient is refused for good: the application gets the reply, or the message becomes a dead letter for it."
        }
        DeliveryOutcome::RejectMessage(None) => {
            "This message is refused for good: the application gets the reply, or it becomes a dead letter."
        }
        DeliveryOutcome::RejectMessage(Some(_)) => {
            "This message is refused: the application gets the reply; one that is queued is tried again until the cause is gone."
        }
    };
    let sentence = reason.map(|reason| format!(" {reason}: {}", reason.sentence())).unwrap_or_default();
    let remedy = reason.map(|reason| reason.remedy(&PLACEHOLDERS)).filter(|remedy| !remedy.is_empty());
    let page =
        reason.map_or("docs/reference/replies.md#how-microsofts-replies-are-interpreted".into(), anchor);
    Explanation {
        subject,
        kind,
        meaning: format!("{meaning}{sentence}"),
        remedy: remedy.or(hint.map(|hint| format!("The likely cause: {hint}."))).unwrap_or_default(),
        reason,
        page: Some(page),
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
