//! What tools that wait are told: Stalled and Reconciling.

use super::*;
use crate::inject::Refusal;

fn shown(acceptance: Acceptance) -> Vec<(String, String, String)> {
    let status = Situation { acceptance, ..Situation::new().pod("a").report("a", well()) }.status(at(0));
    let said = |kind: ConditionType| {
        find(&status.conditions, kind).map(|it| (it.status.clone(), it.reason.clone(), it.message.clone()))
    };
    let [stalled, reconciling] = [ConditionType::Stalled, ConditionType::Reconciling].map(said);
    let accepted = said(ConditionType::Accepted).unwrap();
    let both = [("Stalled", stalled), ("Reconciling", reconciling)];
    let both = both.into_iter().filter_map(|(kind, found)| Some((kind.to_owned(), found?)));
    both.map(|(kind, (state, reason, message))| {
        assert_eq!((&state[..], &message), ("True", &accepted.2), "in the words of Accepted");
        (kind, state, reason)
    })
    .collect()
}

fn only(kind: &str, reason: &str) -> Vec<(String, String, String)> {
    vec![(kind.to_owned(), "True".to_owned(), reason.to_owned())]
}

#[test]
fn neither_is_shown_when_the_operator_has_done_its_part() {
    assert_eq!(shown(Acceptance::Rendered), []);
}

#[test]
fn what_pods_find_is_in_neither() {
    let status = Situation::new().pod("a").report("a", refused("535")).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    assert!(
        !types(&status).iter().any(|kind| ["Stalled", "Reconciling"].contains(kind)),
        "{:?}",
        types(&status)
    );
}

#[test]
fn a_route_that_is_not_accepted_is_stalled() {
    let invalid = Acceptance::NotAccepted(Invalid::BlockMissing("smtpRelay").into());
    assert_eq!(shown(invalid), only("Stalled", "Invalid"));
    let (namespace, mailbox) = ("shop".to_owned(), "noreply@contoso.com".to_owned());
    let not_allowed = Acceptance::NotAccepted(MailboxNotAllowed { namespace, mailbox }.into());
    assert_eq!(shown(not_allowed), only("Stalled", "MailboxNotAllowed"));
    let (request, limit) = ("32Mi".into(), "16Mi".into());
    let refusing = Acceptance::Refusing(Refusal::RequestOverLimit { resource: "memory", request, limit });
    assert_eq!(shown(refusing), only("Stalled", "Invalid"));
}

#[test]
fn a_route_that_could_not_be_written_is_reconciling() {
    let unwritten = Acceptance::Unwritten("cannot write the ConfigMap".into());
    assert_eq!(shown(unwritten), only("Reconciling", "RenderFailed"));
}
