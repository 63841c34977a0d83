//! Sidecars that run and do not report.

use super::*;
use crate::status::sidecars_reporting::silent;

const AFTER: SignedDuration = SignedDuration::from_mins(5);

fn with_silent(situation: Situation) -> Situation {
    let silent = silent(&situation.pods, AFTER, |uid| (uid != "b").then_some(at(1000)), at(0), at(1200));
    Situation { silent, ..situation }
}

fn said(status: &MailRouteStatus, condition: ConditionType) -> (String, String, String) {
    let found = find(&status.conditions, condition).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn a_pod_that_has_not_reported_is_named_with_the_time_in_a_condition_and_in_ready() {
    let situation = Situation::new().pod("a").pod("b").report("a", well());
    let status = with_silent(situation).status(at(1200));
    let named = "1 of 2 pods has not reported: b since 2027-01-15T08:00:00Z.";
    let (state, reason, message) = said(&status, ConditionType::SidecarsReporting);
    assert_eq!((state.as_str(), reason.as_str()), ("False", "SidecarsSilent"));
    assert!(message.starts_with(named), "{message}");
    let (state, reason, message) = said(&status, ConditionType::Ready);
    assert_eq!((state.as_str(), reason.as_str()), ("True", "SidecarsSilent"));
    assert_eq!(message, format!("{named} Mail can flow from the others."));
    assert_eq!((status.sidecars.injected, status.sidecars.silent), (2, 1));
}

#[test]
fn ready_is_unknown_when_no_pod_reports() {
    let status = with_silent(Situation::new().pod("b").report("b", well())).status(at(1200));
    let (state, reason, _) = said(&status, ConditionType::Ready);
    assert_eq!((state.as_str(), reason.as_str()), ("Unknown", "SidecarsSilent"));
}

#[test]
fn a_fault_that_is_met_comes_first() {
    let situation = Situation::new().pod("a").pod("b").report("a", refused("535"));
    let (state, reason, _) = said(&with_silent(situation).status(at(1200)), ConditionType::Ready);
    assert_eq!((state.as_str(), reason.as_str()), ("False", "ExchangeRejectedToken"));
}

#[test]
fn nobody_is_silent_before_it_had_five_minutes_to_report_to_this_leader() {
    let pods = Situation::new().pod("a").new_pod("b", 900).pods;
    let names = |last: Option<i64>, leading: i64, now: i64| {
        let silent = silent(&pods, AFTER, |_| last.map(at), at(leading), at(now));
        silent.into_iter().map(|one| one.pod).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 950, 1200), Vec::<String>::new(), "the leader is new");
    assert_eq!(names(None, 0, 1000), ["a"], "b was created a moment ago");
    assert_eq!(names(Some(800), 0, 1099), Vec::<String>::new());
    assert_eq!(names(Some(800), 0, 1100), ["a", "b"]);
    let mut starting = pods.clone();
    starting.iter_mut().for_each(|pod| pod.ready = false);
    assert_eq!(
        silent(&starting, AFTER, |_| None, at(0), at(5000)),
        [],
        "what does not run is told elsewhere"
    );
}

#[test]
fn what_an_ended_pod_sent_counts_for_a_minute() {
    let situation = Situation::new().pod("a").report("a", well()).told("ended", well());
    let sent = |second| situation.status(at(second)).usage.messages_last_minute;
    assert_eq!([sent(59), sent(60)], [2, 1]);
}
