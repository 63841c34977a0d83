use mailroute_replies::known_replies::KNOWN_GRAPH_ANSWERS;
use proptest::prelude::*;

use super::*;

fn only(text: &str) -> Explanation {
    let mut found = explain(text, None);
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    found.remove(0)
}

#[test]
fn every_reason_is_explained_by_its_name_in_any_case() {
    for &reason in Reason::ALL {
        let found = explain(reason.as_str(), None);
        assert_eq!(found[0].reason, Some(reason), "{reason}");
    }
    assert_eq!(only("smtpauthdisabledmailbox").reason, Some(Reason::SmtpAuthDisabledMailbox));
}

#[test]
fn a_reply_of_the_sidecar_and_a_line_of_its_log_name_their_reason() {
    let reply = "451 4.7.0 SmtpAuthDisabledMailbox: SMTP AUTH is switched off for the mailbox. See: kubectl describe mailroute notifications -n shop";
    let found = only(reply);
    assert!(found.remedy.contains("Set-CASMailbox -Identity <mailbox>"), "{found:?}");
    let log = r#"{"level":"WARN","queue_id":"1k0v20rrs91sz4h0yms","reply":"550 5.7.60 x","outcome":"reject_message","reason":"SendAsDenied","message":"delivery"}"#;
    assert_eq!(only(log).reason, Some(Reason::SendAsDenied));
}

#[test]
fn every_known_line_of_microsoft_is_taken_as_the_sidecar_takes_it() {
    for (stage, line, outcome) in KNOWN_REPLIES {
        if *outcome == DeliveryOutcome::Delivered
            || !words(line).filter_map(reason_named).collect::<Vec<_>>().is_empty()
        {
            continue;
        }
        let found = explain(line, Some(*stage));
        assert!(found.iter().any(|it| it.reason == outcome.reason()), "{stage:?} {line}: {found:#?}");
        let anywhere = explain(line, None);
        assert!(anywhere.iter().any(|it| it.reason == outcome.reason()), "{line}: {anywhere:#?}");
    }
}

#[test]
fn every_known_answer_of_graph_with_a_code_is_taken_as_the_sidecar_takes_it() {
    for (status, code, message, outcome) in KNOWN_GRAPH_ANSWERS {
        if *outcome == DeliveryOutcome::Delivered {
            continue;
        }
        let quoted = format!("451 4.3.0 Not now: Microsoft Graph answered {status} {code} {message}");
        let found = graph_answer(&quoted).unwrap();
        assert_eq!(found.reason, outcome.reason(), "{quoted}: {found:#?}");
    }
    assert_eq!(only("403 ErrorAccessDenied").reason, Some(Reason::GraphAccessDenied));
}

#[test]
fn errors_of_entra_are_known_by_their_number() {
    assert_eq!(
        only("AADSTS7000222: the secret keys for app 'x' are expired").reason,
        Some(Reason::SecretExpired)
    );
    assert_eq!(only("AADSTS700213").reason, Some(Reason::FederationNotTrusted));
    assert_eq!(explain("AADSTS700027", None).len(), 2, "two meanings");
    assert!(only("AADSTS999999").kind.contains("not in the table"));
}

#[test]
fn a_reply_that_nobody_has_seen_depends_on_the_command() {
    let found = explain("550 5.9.9 Something new", None);
    assert!(found.len() > 2, "{found:#?}");
    let found = explain("550 5.9.9 Something new", Some(Stage::Rcpt));
    assert!(found.len() == 1 && found[0].meaning.starts_with("This recipient"), "{found:#?}");
    assert!(explain("nothing that is known", None).is_empty());
}

#[test]
fn a_condition_of_one_mailbox_of_several_names_it_and_its_trouble() {
    let found = explain("orders@contoso.com: 550 5.7.60 SMTP; Client does not have permissions", None);
    assert!(found.len() > 1, "{found:#?}");
    assert_eq!(found[0].reason, Some(Reason::SendAsDenied));
    let last = found.last().unwrap();
    assert_eq!((&*last.subject, &*last.kind), ("orders@contoso.com", "one mailbox of several"));
    assert!(last.remedy.contains("kubectl mailroute check") && !last.remedy.contains("]("), "{last:?}");
}

#[test]
fn every_condition_is_explained_with_what_it_means() {
    for condition in ConditionType::ALL {
        let found = explain(condition.as_str(), None);
        let own = found.iter().find(|it| it.kind == "condition of a MailRoute").unwrap();
        assert!(own.meaning.starts_with(condition.meaning()), "{own:?}");
    }
    assert!(only("NoPods").kind.contains("True, although"), "as the operator sets it");
}

#[test]
fn a_temporary_reply_inside_of_ours_is_the_one_that_counts() {
    let found = explain(
        "451 4.2.2 Not now: 452 4.2.2 The recipient's mailbox is full; See: kubectl",
        Some(Stage::Message),
    );
    assert!(found[0].subject.starts_with("452 4.2.2 The recipient's"), "{found:#?}");
}

#[test]
fn the_sidecars_own_replies_have_their_remedy_without_markdown() {
    for (said, _) in OWN.iter().filter(|(said, _)| *said != "Not now: ") {
        let found = explain(&format!("452 4.3.1 {said}"), None);
        let own = found.iter().find(|it| it.kind == "reply of the sidecar itself").unwrap();
        assert!(!own.remedy.contains("]("), "{own:?}");
    }
    assert_eq!(without_links("a [b](c.md) d [e"), "a b (docs/c.md) d [e");
}

proptest! {
    #[test]
    fn whatever_is_asked_there_is_an_end(text in any::<String>(), number in 200..600u16) {
        explain(&text, None);
        explain(&format!("{number} {text}"), None);
        explain(&format!("AADSTS{text} [{number}]("), None);
    }
}
