//! A status for each situation that a route can be in.

use mailroute_route::condition::Reason::{
    ConnectFailed, Connected, ExchangeRejectedToken, LoggedIn, MailAccepted, TokenAcquired,
};
use mailroute_route::control::{Observation, Queue, Usage};

use super::super::samples::{self, observation, report};
use super::*;
use crate::crd::mail_route::Method;

const IMAGE: &str = "mailroute.dev/sidecar:0.1.0";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A route and what is known of it.
struct Situation {
    route: MailRoute,
    acceptance: Acceptance,
    pods: Vec<SidecarPod>,
    reports: BTreeMap<String, Received>,
    settling: Option<Timestamp>,
}

impl Situation {
    fn new() -> Self {
        Self {
            route: samples::route(),
            acceptance: Acceptance::Rendered,
            pods: Vec::new(),
            reports: BTreeMap::new(),
            settling: None,
        }
    }

    fn pod(mut self, name: &str) -> Self {
        let (image, created) = (Some(IMAGE.into()), Some(at(-1000)));
        self.pods.push(SidecarPod { uid: name.into(), image, ready: true, created });
        self
    }

    /// A pod that has just been created.
    fn new_pod(self, name: &str, second: i64) -> Self {
        let mut situation = self.pod(name);
        situation
            .pods
            .iter_mut()
            .filter(|pod| pod.uid == name)
            .for_each(|pod| pod.created = Some(at(second)));
        situation
    }

    /// The spec was changed.
    fn changed(mut self) -> Self {
        self.route.metadata.generation = Some(4);
        self
    }

    fn report(mut self, name: &str, report: Report) -> Self {
        let received = Received { pod: name.into(), report, at: at(0), since: at(0), is_told: false };
        self.reports.insert(name.into(), received);
        self
    }

    /// A report that a status has told of already.
    fn told(self, name: &str, report: Report) -> Self {
        let mut situation = self.report(name, report);
        situation.reports.values_mut().for_each(|received| received.is_told = true);
        situation
    }

    fn after(mut self, previous: MailRouteStatus) -> Self {
        self.route.status = Some(previous);
        self
    }

    /// Seen by a leader that leads since `second`.
    fn settling(mut self, second: i64) -> Self {
        self.settling = Some(at(second));
        self
    }

    fn status(&self, now: Timestamp) -> MailRouteStatus {
        let facts = Facts {
            route: &self.route,
            acceptance: &self.acceptance,
            pods: &self.pods,
            reports: &self.reports,
            settling: self.settling,
            sidecar_image: IMAGE,
        };
        compute(&facts, now)
    }
}

fn well() -> Report {
    report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(LoggedIn, "", 1),
        observation(MailAccepted, "", 1),
    ])
}

fn refused(quote: &str) -> Report {
    report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(ExchangeRejectedToken, quote, 1),
    ])
}

fn said(status: &MailRouteStatus, condition: ConditionType) -> (&str, &str) {
    let condition = find(&status.conditions, condition).unwrap();
    (&condition.status, &condition.reason)
}

fn types(status: &MailRouteStatus) -> Vec<&str> {
    status.conditions.iter().map(|condition| condition.type_.as_str()).collect()
}

#[test]
fn a_route_without_pods_is_accepted_and_not_known_to_be_ready() {
    let status = Situation::new().status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("True", "Accepted"));
    assert_eq!(said(&status, ConditionType::Ready), ("Unknown", "NoPods"));
    assert_eq!(types(&status), ["Accepted", "Ready"]);
    assert_eq!(status.endpoint.as_deref(), Some("smtp.office365.com:587"));
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn pods_that_have_not_reported_are_waited_for() {
    let status = Situation::new().pod("a").status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("Unknown", "WaitingForReports"));
    assert_eq!(status.sidecars, Sidecars { injected: 1, ready: 1, outdated: 0 });
}

#[test]
fn a_way_of_which_a_part_is_not_yet_known_is_not_ready() {
    let begun = report(vec![observation(TokenAcquired, "", 1)]);
    let status = Situation::new().pod("a").report("a", begun).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("Unknown", "WaitingForReports"));
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("UpstreamReachable"), "{}", ready.message);
}

#[test]
fn a_way_that_is_open_is_ready_before_the_first_message() {
    let probed = report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(LoggedIn, "", 1),
    ]);
    let status = Situation::new().pod("a").report("a", probed).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    assert_eq!(
        types(&status),
        ["Accepted", "CredentialReady", "UpstreamReachable", "Authenticated", "Ready"]
    );
}

#[test]
fn a_failing_condition_is_the_reason_of_ready_with_reply_and_remedy() {
    let reply = "535 5.7.3 Authentication unsuccessful [AM0PR01]";
    let status = Situation::new().pod("a").report("a", refused(reply)).status(at(0));
    assert_eq!(said(&status, ConditionType::CredentialReady), ("True", "TokenAcquired"));
    assert_eq!(said(&status, ConditionType::Authenticated), ("False", "ExchangeRejectedToken"));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let ready = &find(&status.conditions, ConditionType::Ready).unwrap().message;
    for part in ["Authenticated: 1 of 1 pod:", reply, "Add-MailboxPermission -Identity noreply@contoso.com"] {
        assert!(ready.contains(part), "{part} is not in: {ready}");
    }
}

#[test]
fn the_first_failing_condition_on_the_way_is_named() {
    let cut_off = report(vec![observation(ConnectFailed, "", 1)]);
    let status =
        Situation::new().pod("a").pod("b").report("a", refused("535")).report("b", cut_off).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "ConnectFailed"));
}

#[test]
fn a_report_of_a_pod_that_is_gone_says_nothing() {
    let status = Situation::new().pod("a").report("a", well()).report("gone", refused("535")).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn an_invalid_route_says_which_field() {
    let mut situation = Situation::new();
    situation.acceptance = Acceptance::Invalid(Invalid::Method(Method::SmtpRelay));
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("False", "Invalid"));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "Invalid"));
    let message = &find(&status.conditions, ConditionType::Accepted).unwrap().message;
    assert!(message.contains("spec.method") && message.contains("use ClientSubmission"), "{message}");
}

#[test]
fn a_route_that_could_not_be_written_says_why() {
    let mut situation = Situation::new();
    situation.acceptance = Acceptance::Unwritten("cannot write the ConfigMap mailroute-notifications".into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("False", "RenderFailed"));
}

#[test]
fn equal_facts_give_an_equal_status_at_any_time() {
    let before = Situation::new().pod("a").report("a", well()).status(at(0));
    let after = Situation::new().pod("a").report("a", well()).after(before.clone()).status(at(500));
    assert_eq!(after, before);
}

#[test]
fn a_transition_time_moves_only_with_the_status() {
    let before = Situation::new().pod("a").report("a", refused("535 one")).status(at(0));
    let other_reason = report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(Reason::LoginFailed, "535", 1),
    ]);
    let after = Situation::new().pod("a").report("a", other_reason).after(before.clone()).status(at(60));
    let time = |status: &MailRouteStatus| {
        find(&status.conditions, ConditionType::Authenticated).unwrap().last_transition_time.clone()
    };
    assert_eq!(time(&after), time(&before), "another reason, the same status");
    let well = Situation::new().pod("a").report("a", well()).after(after).status(at(120));
    assert_eq!(time(&well), Time(at(120)));
}

#[test]
fn another_session_id_in_the_reply_is_not_written_again() {
    let before = Situation::new().pod("a").report("a", refused("535 5.7.3 no [AM0]")).status(at(0));
    let next = Situation::new().pod("a").report("a", refused("535 5.7.3 no [DB9]"));
    assert_eq!(next.after(before.clone()).status(at(60)), before);
}

#[test]
fn sidecars_of_another_image_or_generation_are_outdated() {
    let mut situation = Situation::new().pod("a").pod("b").pod("c").pod("d");
    situation.pods[1].image = Some("mailroute.dev/sidecar:0.0.9".into());
    situation.pods[2].ready = false;
    let old = Report { generation: 2, ..well() };
    let status = situation.report("c", old).report("d", well()).status(at(0));
    assert_eq!(status.sidecars, Sidecars { injected: 4, ready: 3, outdated: 2 });
}

#[test]
fn what_sidecars_hold_and_sent_is_summed() {
    let one = Report {
        queue: Queue { messages: 2, oldest_seconds: 9, dead_letters: 1 },
        usage: Usage { messages_last_minute: 3, recipients_last_24h: 5 },
        ..well()
    };
    let two = Report { queue: Queue { messages: 1, oldest_seconds: 30, dead_letters: 0 }, ..one.clone() };
    let status = Situation::new().pod("a").pod("b").report("a", one).report("b", two).status(at(0));
    assert_eq!(status.queue, QueueStatus { messages: 3, oldest_seconds: 30, dead_letters: 1 });
    assert_eq!(status.usage, UsageStatus { messages_last_minute: 6, recipients_last_24h: 10 });
}

#[test]
fn a_sidecar_that_cannot_use_the_configuration_is_told_of() {
    let stuck = Report { config_error: Some("route file has format version 9".into()), ..well() };
    let status = Situation::new().pod("a").report("a", stuck).status(at(0));
    let message = &find(&status.conditions, ConditionType::Accepted).unwrap().message;
    assert!(message.contains("1 of 1 sidecars cannot use it") && message.contains("version 9"), "{message}");
}

fn message(status: &MailRouteStatus, condition: ConditionType) -> &str {
    &find(&status.conditions, condition).unwrap().message
}

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
    assert_eq!(said(&changed, ConditionType::Ready), ("Unknown", "NoPods"));
    assert_eq!(types(&changed), ["Accepted", "Ready"]);
}

#[test]
fn what_a_pod_finds_with_the_spec_before_is_cleared_when_it_ends() {
    let behind = Situation::new().changed().pod("job").report("job", refused("535")).status(at(0));
    assert_eq!(said(&behind, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let authenticated = find(&behind.conditions, ConditionType::Authenticated).unwrap();
    assert_eq!(authenticated.observed_generation, Some(3));
    let over = Situation::new().changed().after(behind).status(at(9));
    assert_eq!(said(&over, ConditionType::Ready), ("Unknown", "NoPods"));
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
fn the_next_pod_of_a_cron_job_does_not_make_the_route_unknown() {
    let over = Situation::new().pod("one").report("one", well()).status(at(0));
    let next = Situation::new().new_pod("two", 600).after(over.clone());
    assert_eq!(said(&next.status(at(601)), ConditionType::Ready), ("True", "Ready"));
    let begun = next.report("two", report(vec![observation(TokenAcquired, "", 1)]));
    assert_eq!(said(&begun.status(at(602)), ConditionType::Ready), ("True", "Ready"));
    let silent = Situation::new().new_pod("two", 600).after(over);
    assert_eq!(said(&silent.status(at(690)), ConditionType::Ready), ("Unknown", "WaitingForReports"));
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
    assert_eq!(said(&too_late.status(at(100)), ConditionType::Ready), ("Unknown", "WaitingForReports"));
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

#[test]
fn messages_stay_below_what_a_condition_holds() {
    let long = "x".repeat(mailroute_route::control::MAX_MESSAGE_BYTES);
    let observed: Vec<Observation> = vec![observation(ExchangeRejectedToken, &long, 1)];
    let status = Situation::new().pod("a").report("a", report(observed)).status(at(0));
    assert!(status.conditions.iter().all(|condition| condition.message.len() < 32_768));
}
