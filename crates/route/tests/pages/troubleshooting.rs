//! `docs/troubleshooting.md`: every message that a person can see, as a heading that a search finds.
//!
//! Written from what the programs are tested with: the literal lines of Microsoft in `classify_tests.rs` and of Entra in
//! `aadsts.rs`, each with its meaning there, and from the table of reasons. So a line that is not tested is not on the
//! page, and one that is tested cannot be missing.

mod lines;
mod own;

use std::collections::BTreeMap;

use mailroute_route::condition::Reason;

use self::lines::{Outcome, entra, replies};
use self::own::OWN;
use crate::page::{PLACEHOLDERS, check, read};

const HEAD: &str = "\
<!-- Written from the code; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Troubleshooting: every message

Search this page for the words that you see: in the application's error, in `kubectl describe mailroute`, in the sidecar's log
(`kubectl logs <pod> -c mailroute`), in a dead letter, or in a notification. Host names, times and addresses at the end of Microsoft's
texts are left out or replaced by examples.

If the text is not here, or there is none, follow [mail does not flow](guides/wrong-setup.md).
`kubectl exec <pod> -c mailroute -- /mailroute-sidecar check` tests the connection and explains each step ([check](guides/check.md)).

On this page `<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` stand for the route's values.

| You see | Look under |
| --- | --- |
| `admission webhook \"inject.mailroute.dev\" denied the request`, `The MailRoute … is invalid`, an Event of the operator | [messages of the operator](reference/messages.md) |
| the name of an alert, such as `MailRouteMailHeld` | [its page](runbooks/README.md) |
| a reason with a sentence, such as `SmtpAuthDisabledMailbox: …`, after 451 or in a condition | [Reasons](#reasons) |
| `AADSTS` and a number | [Errors of Entra](#errors-of-entra) |
| a reply with the name of an Exchange server, or `reply` in the log | [Replies of Microsoft 365](#replies-of-microsoft-365) |
| any other reply from `localhost` | [Replies of the sidecar itself](#replies-of-the-sidecar-itself) |
";

/// Codes by which Entra says that no federated credential matches, which the time since the first decides.
const UNMATCHED: [(u32, &str); 4] = [
    (70021, "No matching federated identity record found for presented assertion."),
    (700_211, "No matching federated identity record found for presented assertion issuer."),
    (700_212, "No matching federated identity record found for presented assertion audience."),
    (700_213, "No matching federated identity record found for presented assertion subject."),
];

#[test]
fn the_page_says_what_the_code_says() {
    check("docs/troubleshooting.md", &page());
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
    let source = unwrapped(&(read("sidecar/src/smtp/answer.rs") + &read("sidecar/src/accept/reply.rs")));
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
        "\n## Reasons\n\nConditions, Events and metrics use these reasons; 451 replies and the log use those about the \
         connection to Microsoft 365.\n",
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
    page.push_str("\n## Errors of Entra\n\nThey appear in the condition `CredentialReady`.\n");
    for (code, sentence) in UNMATCHED {
        page.push_str(&format!("\n### `AADSTS{code}: {sentence}`\n\n{}", unmatched()));
    }
    for (text, reason) in entra() {
        page.push_str(&format!("\n### `{text}`\n\n{}. {}\n", link(reason), what_to_do(reason)));
    }
    page.push_str(
        "\n## Replies of Microsoft 365\n\nIn the order of their codes. Held mail waits in the queue until the problem is \
         solved; in mode `Deliver` the application gets 451 instead.\n",
    );
    let hints = hints();
    for ((line, outcome), stages) in replies() {
        let meaning = meaning(&outcome, hint(&hints, &line));
        page.push_str(&format!("\n### `{line}`\n\nAt {}. {meaning}\n", stages.join(", at ")));
    }
    page.push_str("\n## Replies of the sidecar itself\n\nThe others are self-explanatory; [all of them](reference/smtp.md#the-sidecars-own-replies).\n");
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
            "The sidecar tries once more with a new token. If it is refused again, mail is held with {}. {}",
            link(Reason::ExchangeRejectedToken).replace("Reason ", "the reason "),
            what_to_do(Reason::ExchangeRejectedToken)
        ),
        Outcome::Later(None) => {
            "Temporary: the sidecar tries again, or in mode `Deliver` the application gets 451.".into()
        }
        Outcome::Later(Some(reason)) => {
            format!("Temporary: it is tried again. {}. {}", link(*reason), what_to_do(*reason))
        }
        Outcome::Held(reason) => {
            format!(
                "Not a fault of the message: mail is held, and none is returned. {}. {}",
                link(*reason),
                what_to_do(*reason)
            )
        }
        Outcome::Refused(whom, None) => format!(
            "The {whom} is permanently refused: the application gets this reply, or the message becomes a dead letter.{hint}"
        ),
        Outcome::Refused(whom, Some(reason)) => {
            format!(
                "The {whom} is refused: the application gets this reply, and a queued message waits. {}. {}",
                link(*reason),
                what_to_do(*reason)
            )
        }
    }
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
