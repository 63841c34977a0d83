//! What stands of what was found before: from pods that have ended to the next, and from one leader to the next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;

#[test]
fn the_fault_of_a_job_that_has_ended_stays_to_be_read() {
    let failed = Situation::new().pod("job").report("job", refused("535 5.7.3")).status(at(0));
    let over = Situation::new().after(failed.clone()).status(at(600));
    assert_eq!(said(&over, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let (before, after) = (message(&failed, ConditionType::Ready), message(&over, ConditionType::Ready));
    assert_eq!(after, format!("{before} No pod uses the route now; this is what the last one met."));
    let authenticated = |status: &[Condition]| find(status, ConditionType::Authenticated).cloned();
    assert_eq!(authenticated(&over.conditions), authenticated(&failed.conditions));
    assert_eq!(Situation::new().after(over.clone()).status(at(9000)), over, "and is written once");
}

#[test]
fn a_route_whose_last_job_went_well_stays_ready_and_says_so() {
    let well = Situation::new().pod("job").report("job", well()).status(at(0));
    let over = Situation::new().after(well).status(at(600));
    assert_eq!(said(&over, ConditionType::Ready), ("True", "Ready"));
    assert!(message(&over, ConditionType::Ready).contains("No pod uses the route now"));
    assert_eq!(over.sidecars.injected, 0);
}

#[test]
fn a_change_of_the_spec_clears_what_pods_found_that_are_gone() {
    let failed = Situation::new().pod("job").report("job", refused("535")).status(at(0));
    let changed = Situation::new().changed().report("job", refused("535")).after(failed).status(at(9));
    assert_eq!(said(&changed, ConditionType::Ready), ("True", "NoPods"));
    assert_eq!(types(&changed), ["Accepted", "Ready"]);
}

#[test]
fn what_a_pod_finds_with_the_spec_before_is_cleared_when_it_ends() {
    let behind = Situation::new().changed().pod("job").report("job", refused("535")).status(at(0));
    assert_eq!(said(&behind, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let authenticated = find(&behind.conditions, ConditionType::Authenticated).unwrap();
    assert_eq!(authenticated.observed_generation, Some(3));
    let over = Situation::new().changed().after(behind).status(at(9));
    assert_eq!(said(&over, ConditionType::Ready), ("True", "NoPods"));
}

#[test]
fn a_report_whose_pod_has_ended_when_it_is_looked_at_counts() {
    let waiting = Situation::new().pod("job").status(at(0));
    let over = Situation::new().report("job", refused("535 5.7.3")).after(waiting).status(at(1));
    assert_eq!(said(&over, ConditionType::Authenticated), ("False", "ExchangeRejectedToken"));
    assert_eq!(said(&over, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
}

#[test]
fn the_last_word_of_a_pod_replaces_what_was_found_before() {
    let failed = Situation::new().pod("first").report("first", refused("535")).status(at(0));
    let retried = Situation::new().told("first", refused("535")).report("second", well());
    assert_eq!(said(&retried.after(failed).status(at(9)), ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn a_fault_that_was_overcome_does_not_come_back_when_the_pods_end() {
    let reports = Situation::new().told("first", refused("535")).told("second", well());
    let overcome = Situation::new().pod("second").report("second", well()).status(at(0));
    assert_eq!(said(&reports.after(overcome).status(at(9)), ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn the_next_pod_of_a_cron_job_does_not_take_back_what_was_shown() {
    let over = Situation::new().pod("one").report("one", well()).status(at(0));
    let next = Situation::new().new_pod("two", 600).after(over.clone());
    assert_eq!(said(&next.status(at(601)), ConditionType::Ready), ("True", "Ready"));
    let begun = next.report("two", report(vec![observation(TokenAcquired, "", 1)]));
    assert_eq!(said(&begun.status(at(602)), ConditionType::Ready), ("True", "Ready"));
    let silent = Situation::new().new_pod("two", 600).after(over);
    assert_eq!(said(&silent.status(at(690)), ConditionType::Ready), ("True", "WaitingForReports"));
}

#[test]
fn a_newer_pods_fault_is_told_at_once() {
    let over = Situation::new().pod("one").report("one", well()).status(at(0));
    let next = Situation::new().new_pod("two", 600).report("two", refused("535")).after(over);
    assert_eq!(said(&next.status(at(601)), ConditionType::Ready), ("False", "ExchangeRejectedToken"));
}

#[test]
fn a_new_leader_keeps_what_was_known_until_the_reports_are_in() {
    let before = Situation::new().pod("a").pod("b").report("a", well()).report("b", well()).status(at(0));
    let nothing_yet = Situation::new().pod("a").pod("b").after(before.clone()).settling(5);
    assert_eq!(nothing_yet.status(at(10)), before);
    let too_late = Situation { settling: None, ..nothing_yet };
    assert_eq!(said(&too_late.status(at(100)), ConditionType::Ready), ("True", "WaitingForReports"));
}

#[test]
fn a_new_leader_does_not_take_a_fault_back_before_all_have_reported() {
    let faulty = Situation::new().pod("a").pod("b").report("a", refused("535")).report("b", well());
    let before = faulty.status(at(0));
    let half = Situation::new().pod("a").pod("b").report("b", well()).after(before.clone()).settling(5);
    assert_eq!(said(&half.status(at(10)), ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let whole = half.report("a", well());
    assert_eq!(said(&whole.status(at(20)), ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn a_new_leader_tells_of_a_fault_at_once() {
    let before = Situation::new().pod("a").pod("b").report("a", well()).report("b", well()).status(at(0));
    let fault = Situation::new().pod("a").pod("b").report("a", refused("535")).after(before).settling(5);
    assert_eq!(said(&fault.status(at(10)), ConditionType::Ready), ("False", "ExchangeRejectedToken"));
}

#[test]
fn a_new_leader_takes_back_at_once_what_it_found_itself() {
    let faulty = Situation::new().pod("a").pod("silent").report("a", refused("535")).settling(5);
    let found = faulty.status(at(10));
    let well = Situation::new().pod("a").pod("silent").report("a", well()).after(found).settling(5);
    assert_eq!(said(&well.status(at(20)), ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn a_new_leader_does_not_shrink_sums_before_all_have_reported() {
    let two = Situation::new().pod("a").pod("b").report("a", well()).report("b", well());
    let before = two.status(at(0));
    let half = Situation::new().pod("a").pod("b").report("a", well()).after(before.clone()).settling(5);
    assert_eq!(half.status(at(10)).usage, before.usage);
    let later = Situation { settling: None, ..half };
    assert_eq!(later.status(at(200)).usage.messages_last_minute, 1);
}
