//! `docs/troubleshooting.md`: every message that a person can see, as a heading that a search finds.
//!
//! Made of what the programs are tested with: the literal lines of Microsoft and of Entra, each with its meaning, and of the
//! table of reasons. So a line that is not tested is not on the page, and one that is tested cannot be missing.

mod lines;

use mailroute_replies::hint::HINTS;
use mailroute_replies::known_errors::UNMATCHED;
use mailroute_replies::one_of_several;
use mailroute_replies::own::OWN;
use mailroute_route::condition::{PLACEHOLDERS, Reason};

use self::lines::{Outcome, entra, replies};
use crate::page::link as link_to;

const HEAD: &str = "\
<!-- Written from the code; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Troubleshooting: every message

Search this page for the words that you see: in the application's error, in `kubectl describe mailroute`, in the sidecar's log
(`kubectl logs <pod> -c mailroute`), in a dead letter, or in a notification. Host names, times and addresses at the end of Microsoft's
texts are left out or replaced by examples.

If the text is not here, or there is none, follow [mail does not flow](guides/wrong-setup.md).
`kubectl exec <pod> -c mailroute -- /mailroute-sidecar check` tests the connection and explains each step ([check](guides/check.md)).

On this page `<route>`, `<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` stand for the route's values.

| You see | Look under |
| --- | --- |
| `admission webhook \"inject.mailroute.dev\" denied the request`, `The MailRoute … is invalid`, an Event of the operator | [messages of the operator](reference/messages.md) |
| the name of an alert, such as `MailRouteMailHeld` | [its page](runbooks/README.md) |
| a reason with a sentence, such as `SmtpAuthDisabledMailbox: …`, after 451 or in a condition | [Reasons](#reasons) |
| `AADSTS` and a number | [Errors of Entra](#errors-of-entra) |
| an address in front of a condition's message, such as `orders@contoso.com: 535 …` | [One mailbox of several](#one-mailbox-of-several) |
| a reply with the name of an Exchange server, or `reply` in the log | [Replies of Microsoft 365](#replies-of-microsoft-365) |
| any other reply from `localhost` | [Replies of the sidecar itself](#replies-of-the-sidecar-itself) |
";

pub fn page() -> String {
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
            reason.status(),
            what_to_do(reason)
        ));
    }
    page.push_str(&format!(
        "\n## One mailbox of several\n\n### `{}`\n\n{} **What to do:** {}\n",
        one_of_several::TEXT,
        one_of_several::MEANING,
        one_of_several::REMEDY
    ));
    page.push_str("\n## Errors of Entra\n\nThey appear in the condition `CredentialReady`.\n");
    for (_, _, code, sentence) in UNMATCHED {
        page.push_str(&format!("\n### `AADSTS{code}: {sentence}`\n\n{}", unmatched()));
    }
    for (text, reason) in entra() {
        page.push_str(&format!("\n### `{text}`\n\n{}. {}\n", link(reason), what_to_do(reason)));
    }
    page.push_str(
        "\n## Replies of Microsoft 365\n\nIn the order of their codes. Held mail waits in the queue until the problem is \
         solved; in mode `Deliver` the application gets 451 instead.\n",
    );
    for ((line, outcome), stages) in replies() {
        let meaning = meaning(&outcome, hint(line));
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

fn link(reason: Reason) -> String {
    format!("Reason {}", link_to(reason, "reference/reasons.md"))
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

fn hint(line: &str) -> Option<&'static str> {
    let (_, detail) = line.split(' ').nth(1)?.split_once('.')?;
    let hint = HINTS.iter().find(|(subject, number, _)| detail == format!("{subject}.{number}"));
    hint.map(|(_, _, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use mailroute_sidecar::accept::reply::OWN_TEXTS;
    use mailroute_sidecar::smtp::answer::Answer;

    use super::*;

    #[test]
    fn every_reason_that_asks_for_something_is_a_heading() {
        let page = page();
        for reason in troubles() {
            assert!(page.contains(&format!("\n### `{reason}: ")), "{reason}");
        }
    }

    #[test]
    fn what_the_sidecar_is_said_to_answer_is_one_of_its_answers() {
        for (text, _) in OWN {
            let is_said =
                OWN_TEXTS.contains(text) || Answer::ALL.iter().any(|answer| answer.row().text == *text);
            assert!(is_said, "no reply of the sidecar says {text:?}");
        }
    }
}
