//! `docs/troubleshooting.md`: every message that a person can see, as a heading that a search finds.
//!
//! Written from what the programs are tested with: the literal lines of Microsoft in `classify_tests.rs` and of Entra in
//! `aadsts.rs`, each with its meaning there, and from the table of reasons. So a line that is not tested is not on the
//! page, and one that is tested cannot be missing. After a change, write the page again:
//! `MAILROUTE_WRITE=1 cargo test -p mailroute-route --test troubleshooting_doc`

#![allow(clippy::panic, reason = "a test says what it cannot read")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use mailroute_route::condition::{Reason, Subject};

const PAGE: &str = "docs/troubleshooting.md";

const HEAD: &str = "\
<!-- Written from the code; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Troubleshooting: every message

Search this page for the words that you see: in the application's error, in `kubectl describe mailroute`, in the sidecar's log
(`kubectl logs <pod> -c mailroute`), in a dead letter, or in a notification. Where a line of Microsoft's goes on with a host name, a
time or an address, those are left out or stand as examples.

Not there, or no message at all: [mail does not flow](guides/wrong-setup.md) asks in order.
`kubectl exec <pod> -c mailroute -- /mailroute-sidecar check` walks the way and explains each step ([check](guides/check.md)).

In what follows `<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` are the route's own values.

| You see | Look under |
| --- | --- |
| `admission webhook \"inject.mailroute.dev\" denied the request`, `The MailRoute … is invalid`, an Event of the operator | [what the operator says](reference/messages.md), every sentence |
| the name of an alert, such as `MailRouteMailHeld` | [its page](runbooks/README.md) |
| a name in one word and a sentence, such as `SmtpAuthDisabledMailbox: …`, after 451 or in a condition | [Reasons](#reasons) |
| `AADSTS` and a number | [Errors of Entra](#errors-of-entra) |
| a reply with the name of an Exchange server, or one that the log calls `reply` | [Replies of Microsoft 365](#replies-of-microsoft-365) |
| any other reply from `localhost` | [Replies of the sidecar itself](#replies-of-the-sidecar-itself) |
";

/// Lines that stand for those that nobody has seen yet.
const INVENTED: [&str; 5] = [
    "535 Something new",
    "432 4.3.2 A fourth text",
    "451 4.3.0 Later",
    "A code of tomorrow.",
    "354 Start mail input",
];

/// What the sidecar says by itself, where there is something to do, and what. The texts are those of the source.
const OWN: &[(&str, &str)] = &[
    (
        "This pod has no valid mail route yet; see the log of its container mailroute",
        "The ConfigMap `mailroute-<route>` is missing or cannot be used by this version: `kubectl describe mailroute` (condition \
         Accepted), then `kubectl logs <pod> -c mailroute`. No restart is needed.",
    ),
    (
        "The mail queue of this pod is full; try again later",
        "Mail has been held for long, see `kubectl describe mailroute`, or dead letters fill the disk: \
         [queue drop or retry](guides/queue.md). Room: `spec.sidecar.spool.sizeLimit`.",
    ),
    (
        "The mail queue of this pod cannot be written; see the log of its container mailroute",
        "The log names the file and the error of the disk. On a volume of `storageClassName` the pod needs an `fsGroup`.",
    ),
    (
        "Too many recipients for one message without a queue; send to fewer at a time",
        "Send to fewer at a time, or use `spec.delivery.mode: DeliverOrQueue`, which sends in parts.",
    ),
    (
        "Not now: ",
        "What follows is Microsoft's own temporary reply; find it under [Replies of Microsoft 365](#replies-of-microsoft-365). Mode \
         `Deliver` only: the other modes keep the message.",
    ),
    (
        "The MailRoute does not allow this sender:",
        "Send as an address that the reply lists, or add this one to `spec.senders.allow`; \
         [who may be named](reference/smtp.md#who-may-be-named-as-the-sender).",
    ),
    (
        "Direct Send reaches recipients of the tenant's own domains only; the MailRoute needs method ClientSubmission or SmtpRelay for \
         others. Allowed:",
        "Another [method](methods/README.md); or add the domain to `spec.tenant.acceptedDomains`, if it is one.",
    ),
    (
        "Message larger than the limit that EHLO announces (limits.maxMessageBytes of the MailRoute)",
        "Send less, or raise `spec.limits.maxMessageBytes`, and the mailbox's own limit with it: \
         `Set-Mailbox -Identity <mailbox> -MaxSendSize 150MB -MaxReceiveSize 150MB`.",
    ),
    (
        "Too many recipients; send the rest in another message",
        "Most libraries do so by themselves. The bound is `spec.limits.maxRecipients`; Exchange's own: `Set-Mailbox -RecipientLimits`.",
    ),
    (
        "Too many recipients of one domain; send the rest in another message",
        "Microsoft takes 200 of one domain at once. In the modes that queue, the sidecar sends in parts.",
    ),
    (
        "Message contains a CR or LF alone; end lines in CR LF (listen.bareLineEnds of the MailRoute is Refuse)",
        "Mend the library, or set `spec.listen.bareLineEnds: Normalize`.",
    ),
    (
        "Message contains a NUL character; encode binary content as base64",
        "An attachment was put into the message as it is. Use the mail library's own function for attachments.",
    ),
    (
        "Message has more than one From field",
        "Readers would disagree on who sent it. Send one `From`; several authors go into one field, with a `Sender`.",
    ),
    (
        "Too many Received lines: the message goes round in a circle",
        "Something forwards mail to the application that sends it again.",
    ),
    (
        "No room to take the message in; try again later",
        "The spool's volume or the node's disk is full; large messages pass through it. `spec.sidecar.spool.sizeLimit`.",
    ),
    (
        "STARTTLS is not offered; connect without TLS, the connection does not leave this pod",
        "Switch TLS off in the application's SMTP settings (`EnableSsl`, `starttls`, `secure`).",
    ),
    (
        "AUTH is not offered; send without user name and password",
        "Leave user name and password empty; where the application insists on them, set `spec.listen.auth: Ignore`.",
    ),
    (
        "Too many sessions at once; try again later",
        "The application opens more than 100 connections: use a pool, and close what is not used.",
    ),
    (
        "Nothing received for too long. Closing",
        "A pool kept a connection for more than five minutes; [pools](reference/smtp.md#pools-of-connections).",
    ),
];

/// Codes by which Entra says that no federated credential matches, which the time since the first decides.
const UNMATCHED: [(u32, &str); 4] = [
    (70021, "No matching federated identity record found for presented assertion."),
    (700_211, "No matching federated identity record found for presented assertion issuer."),
    (700_212, "No matching federated identity record found for presented assertion audience."),
    (700_213, "No matching federated identity record found for presented assertion subject."),
];

const PLACEHOLDERS: Subject<'_> = Subject {
    mailbox: "<mailbox>",
    client_id: "<client id>",
    tenant: "<tenant>",
    endpoint: "<endpoint>",
    authority: "<authority>",
    secret: "<secret>",
};

#[test]
fn the_page_says_what_the_code_says() {
    let page = page();
    if env::var_os("MAILROUTE_WRITE").is_some() {
        fs::write(absolute(PAGE), &page).expect("the page can be written");
    }
    assert!(
        read(PAGE) == page,
        "{PAGE} differs from the code; write it again: \
         MAILROUTE_WRITE=1 cargo test -p mailroute-route --test troubleshooting_doc"
    );
}

#[test]
fn every_reason_that_asks_for_something_is_a_heading() {
    let page = page();
    for reason in troubles() {
        assert!(page.contains(&format!("\n### `{reason}: ")), "{reason}");
    }
}

#[test]
fn what_the_sidecar_is_said_to_answer_stands_in_its_source() {
    let source = unwrapped(&(read("sidecar/src/smtp/answer.rs") + &read("sidecar/src/relay/reply.rs")));
    for (text, _) in OWN {
        assert!(source.contains(text), "no reply of the sidecar says {text:?}");
    }
}

#[test]
fn the_lines_of_microsoft_are_read_whole() {
    let lines = replies();
    assert!(lines.len() > 90, "only {} replies were read", lines.len());
    assert!(lines.keys().any(|(line, _)| line.starts_with("550 5.7.64 TenantAttribution")), "{lines:#?}");
    assert!(entra().len() > 30, "only {} errors of Entra were read", entra().len());
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "\n## Reasons\n\nThe same words stand in conditions, Events and metrics; those on the way to Microsoft 365 in a 451 and in the log, \
         too.\n",
    );
    for reason in troubles() {
        page.push_str(&format!("\n### `{reason}: {}`\n\n", reason.sentence()));
        page.push_str(&format!(
            "The condition `{}` is {}. {}\n",
            reason.condition(),
            status(reason),
            what_to_do(reason)
        ));
    }
    page.push_str("\n## Errors of Entra\n\nThey stand in the condition `CredentialReady`.\n");
    for (code, sentence) in UNMATCHED {
        page.push_str(&format!("\n### `AADSTS{code}: {sentence}`\n\n{}", unmatched()));
    }
    for (text, reason) in entra() {
        page.push_str(&format!("\n### `{text}`\n\n{}. {}\n", link(reason), what_to_do(reason)));
    }
    page.push_str(
        "\n## Replies of Microsoft 365\n\nIn the order of their codes. Where mail is held, it waits in the queue until the trouble is over; in mode `Deliver` \
         the application is answered 451 instead.\n",
    );
    let hints = hints();
    for ((line, outcome), stages) in replies() {
        let meaning = meaning(&outcome, hint(&hints, &line));
        page.push_str(&format!("\n### `{line}`\n\nAt {}. {meaning}\n", stages.join(", at ")));
    }
    page.push_str("\n## Replies of the sidecar itself\n\nThe others are self-explanatory; [all of them](reference/smtp.md#what-the-sidecar-answers-by-itself).\n");
    for (text, remedy) in OWN {
        page.push_str(&format!("\n### `{}`\n\n{remedy}\n", text.trim()));
    }
    page
}

/// The reasons that say that there is something to do, or to wait for.
fn troubles() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| !reason.holds() || reason.warns())
}

fn status(reason: Reason) -> &'static str {
    match reason {
        Reason::DnsUnavailable | Reason::NoPods | Reason::WaitingForReports => "Unknown",
        reason if reason.holds() => "True, with a warning",
        _ => "False",
    }
}

fn link(reason: Reason) -> String {
    format!("Reason [{reason}](reference/reasons.md#{})", reason.as_str().to_lowercase())
}

fn what_to_do(reason: Reason) -> String {
    let remedy = reason.remedy(&PLACEHOLDERS).replace('<', "\\<").replace('*', "\\*");
    format!("**What to do:** {remedy}")
}

fn unmatched() -> String {
    let (waiting, missing) = (Reason::WaitingForPropagation, Reason::FederationNotTrusted);
    format!(
        "{} for 15 minutes, {} after that. {}\n",
        link(waiting),
        link(missing).replace("Reason ", ""),
        what_to_do(missing)
    )
}

/// What a line comes to, for a person.
fn meaning(outcome: &Outcome, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!(" **What to do:** {hint}.")).unwrap_or_default();
    match outcome {
        Outcome::NewToken => format!(
            "A new token is tried, once. Refused again, it is {}, and mail is held. {}",
            link(Reason::ExchangeRejectedToken).replace("Reason ", "the reason "),
            what_to_do(Reason::ExchangeRejectedToken)
        ),
        Outcome::Later(None) => "Temporary: the message is tried again, or the application told to.".into(),
        Outcome::Later(Some(reason)) => {
            format!("Temporary: it is tried again. {}. {}", link(*reason), what_to_do(*reason))
        }
        Outcome::Held(reason) => {
            format!(
                "No fault of the message: mail is held, none is returned. {}. {}",
                link(*reason),
                what_to_do(*reason)
            )
        }
        Outcome::Refused(whom, None) => format!(
            "The {whom} is refused for good: the application gets this reply, or the message becomes a dead letter.{hint}"
        ),
        Outcome::Refused(whom, Some(reason)) => {
            format!("The {whom} is refused for good. {}. {}", link(*reason), what_to_do(*reason))
        }
    }
}

/// What a line of the test's table comes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    NewToken,
    Later(Option<Reason>),
    Held(Reason),
    Refused(&'static str, Option<Reason>),
}

/// Microsoft's literal lines with what they come to, and the stages at which they do.
fn replies() -> BTreeMap<(String, Outcome), Vec<String>> {
    let source = read("sidecar/src/delivery/classify_tests.rs");
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
        "Outcome::Delivered" => return None,
        other => panic!("what does {other:?} stand for?"),
    })
}

/// Entra's literal errors with their reasons, from a row such as
/// `(400, "invalid_request", 90061, "Request to …", Reason::IssuerUnreachable),`.
fn entra() -> Vec<(String, Reason)> {
    let source = read("entra/src/aadsts.rs");
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

/// The table of hints of the page of replies, by the last two numbers of an enhanced code.
fn hints() -> BTreeMap<String, String> {
    let page = read("docs/reference/replies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| x."));
    rows.filter_map(|row| row.trim_end_matches(" |").split_once(" | "))
        .map(|(code, hint)| (code.to_owned(), hint.to_owned()))
        .collect()
}

fn hint<'a>(hints: &'a BTreeMap<String, String>, line: &str) -> Option<&'a str> {
    let (_, detail) = line.split(' ').nth(1)?.split_once('.')?;
    hints.get(detail).map(String::as_str)
}

/// Source text with strings that go on in the next line made whole.
fn unwrapped(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

fn read(path: &str) -> String {
    fs::read_to_string(absolute(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn absolute(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
