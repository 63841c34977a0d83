//! The whole status of a route from what is known of it. Pure: time and the previous status are passed in.
//!
//! Invariants: equal facts give an equal status, whatever the time, so that nothing is written when nothing changed. A
//! condition's transition time moves only with its status. A condition without evidence is left out, apart from Accepted
//! and Ready, which are always there.
//!
//! After a change of leader the reports come in again one by one. Until all have, or three intervals have passed, what the
//! leader before found stands, unless a fault is reported.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};
use mailroute_route::control::Report;

use super::observe::{Verdict, explanation, verdict};
use super::pods::SidecarPod;
use super::validate::{self, Invalid};
use crate::control::reports::Received;
use crate::crd::status::{QueueStatus, Sidecars, UsageStatus};
use crate::crd::{MailRoute, MailRouteStatus};

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

/// How far the route got on its way to its sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Its configuration is rendered.
    Rendered,
    /// It cannot be rendered.
    Invalid(Invalid),
    /// It could not be written, for this reason.
    Unwritten(String),
}

/// What is known of a route.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The route, with the status that it has.
    pub route: &'a MailRoute,
    /// How far it got.
    pub acceptance: &'a Acceptance,
    /// Its pods that have the sidecar and have not ended.
    pub pods: &'a [SidecarPod],
    /// The fresh reports for it, by pod uid.
    pub reports: &'a BTreeMap<String, Received>,
    /// While this leader is so new that reports may still be on their way: since when it leads.
    pub settling: Option<Timestamp>,
    /// The image that is injected now.
    pub sidecar_image: &'a str,
}

/// The names that remedies mention.
struct Names {
    endpoint: Option<String>,
    authority: String,
}

/// The status that the route should have at `now`.
pub fn compute(facts: &Facts<'_>, now: Timestamp) -> MailRouteStatus {
    let previous = facts.route.status.clone().unwrap_or_default();
    let names = names(facts.route);
    let reports = reports_of_live_pods(facts);
    let settling = facts.settling.filter(|_| reports.len() < facts.pods.len());
    let findings = findings(facts, &names, &reports, &previous, settling);
    let (mut queue, mut usage) = sums(&reports);
    if settling.is_some() {
        (queue, usage) = (no_shorter(queue, previous.queue), no_smaller(usage, previous.usage));
    }
    MailRouteStatus {
        observed_generation: facts.route.meta().generation,
        conditions: findings
            .into_iter()
            .map(|finding| finding.into_condition(&previous.conditions, facts.route.meta().generation, now))
            .collect(),
        endpoint: names.endpoint,
        sidecars: sidecars(facts),
        queue,
        usage,
    }
}

/// What a condition should say.
struct Finding {
    condition: ConditionType,
    status: &'static str,
    reason: String,
    message: String,
}

impl Finding {
    fn new(condition: ConditionType, status: &'static str, reason: Reason, message: String) -> Self {
        Self { condition, status, reason: reason.as_str().to_owned(), message }
    }

    fn into_condition(self, previous: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let before = find(previous, self.condition).filter(|condition| condition.status == self.status);
        Condition {
            type_: self.condition.as_str().to_owned(),
            status: self.status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| Time(whole_second(now)), |condition| condition.last_transition_time.clone()),
        }
    }
}

fn findings(
    facts: &Facts<'_>,
    names: &Names,
    reports: &[&Report],
    previous: &MailRouteStatus,
    settling: Option<Timestamp>,
) -> Vec<Finding> {
    let subject = subject(facts.route, names);
    let mut findings = vec![accepted(facts, &subject, reports)];
    for condition in ConditionType::OBSERVED {
        let old = find(&previous.conditions, condition);
        let inherited = old.filter(|old| settling.is_some_and(|since| old.last_transition_time.0 < since));
        let found = match verdict(condition, reports, &subject) {
            Some(fault) if !fault.holds => Some(observed(fault, old)),
            verdict => inherited.and_then(kept).or_else(|| verdict.map(|verdict| observed(verdict, old))),
        };
        findings.extend(found);
    }
    findings.push(ready(&findings, facts, reports, &subject));
    findings
}

fn accepted(facts: &Facts<'_>, subject: &Subject<'_>, reports: &[&Report]) -> Finding {
    let finding = |status, reason, message| Finding::new(ConditionType::Accepted, status, reason, message);
    match facts.acceptance {
        Acceptance::Rendered => finding(TRUE, Reason::Accepted, accepted_message(reports)),
        Acceptance::Invalid(invalid) => finding(FALSE, Reason::Invalid, format!("{invalid}.")),
        Acceptance::Unwritten(error) => finding(
            FALSE,
            Reason::RenderFailed,
            format!("{error}. {}", explanation(Reason::RenderFailed, subject)),
        ),
    }
}

/// Sidecars that cannot use the newest configuration say so; they go on with the last good one.
fn accepted_message(reports: &[&Report]) -> String {
    let refusing: Vec<_> = reports.iter().filter_map(|report| report.config_error.as_deref()).collect();
    let sentence = Reason::Accepted.sentence();
    match refusing.first() {
        None => sentence.to_owned(),
        Some(error) => format!(
            "{sentence} {} of {} sidecars cannot use it and keep the last good one: {error}. Restart those pods to get \
             the current sidecar.",
            refusing.len(),
            reports.len()
        ),
    }
}

fn observed(verdict: Verdict, old: Option<&Condition>) -> Finding {
    let status = if verdict.holds { TRUE } else { FALSE };
    let said = old.filter(|old| {
        old.status == status
            && old.reason == verdict.reason.as_str()
            && verdict.message.is_said_by(&old.message)
    });
    let message = said.map_or_else(|| verdict.message.text(), |old| old.message.clone());
    Finding::new(verdict.condition, status, verdict.reason, message)
}

fn kept(old: &Condition) -> Option<Finding> {
    let condition = ConditionType::OBSERVED.into_iter().find(|condition| condition.as_str() == old.type_)?;
    let status = [TRUE, FALSE, UNKNOWN].into_iter().find(|status| *status == old.status)?;
    Some(Finding { condition, status, reason: old.reason.clone(), message: old.message.clone() })
}

/// Ready is the sum: the first failing condition on the way is the cause to name. The way is known to be open when a
/// sidecar has a token, has reached the upstream and has logged in; whether a message is taken shows with the first one.
fn ready(findings: &[Finding], facts: &Facts<'_>, reports: &[&Report], subject: &Subject<'_>) -> Finding {
    let finding = |status, reason, message| Finding::new(ConditionType::Ready, status, reason, message);
    if let Some(failing) = findings.iter().find(|finding| finding.status == FALSE) {
        let message = format!("{}: {}", failing.condition, failing.message);
        return Finding {
            condition: ConditionType::Ready,
            status: FALSE,
            reason: failing.reason.clone(),
            message,
        };
    }
    if facts.pods.is_empty() {
        return finding(UNKNOWN, Reason::NoPods, explanation(Reason::NoPods, subject));
    }
    let on_the_way =
        [ConditionType::CredentialReady, ConditionType::UpstreamReachable, ConditionType::Authenticated];
    let missing = on_the_way.iter().find(|condition| !findings.iter().any(|f| f.condition == **condition));
    match missing {
        None => finding(TRUE, Reason::Ready, Reason::Ready.sentence().to_owned()),
        Some(_) if reports.is_empty() => {
            finding(UNKNOWN, Reason::WaitingForReports, explanation(Reason::WaitingForReports, subject))
        }
        Some(condition) => finding(
            UNKNOWN,
            Reason::WaitingForReports,
            format!("Sidecars have reported, and none yet of {condition}."),
        ),
    }
}

fn sidecars(facts: &Facts<'_>) -> Sidecars {
    let generation = facts.route.meta().generation.unwrap_or_default();
    let behind = |pod: &SidecarPod| {
        let reported = facts.reports.get(&pod.uid);
        pod.image.as_deref() != Some(facts.sidecar_image)
            || reported.is_some_and(|reported| reported.report.generation < generation)
    };
    Sidecars {
        injected: count(facts.pods.iter()),
        ready: count(facts.pods.iter().filter(|pod| pod.ready)),
        outdated: count(facts.pods.iter().filter(|pod| behind(pod))),
    }
}

fn sums(reports: &[&Report]) -> (QueueStatus, UsageStatus) {
    let sum =
        |of: fn(&Report) -> u64| reports.iter().fold(0_u64, |sum, report| sum.saturating_add(of(report)));
    let queue = QueueStatus {
        messages: sum(|r| r.queue.messages),
        oldest_seconds: reports.iter().map(|r| r.queue.oldest_seconds).max().unwrap_or_default(),
        dead_letters: sum(|r| r.queue.dead_letters),
    };
    let usage = UsageStatus {
        messages_last_minute: sum(|r| r.usage.messages_last_minute),
        recipients_last_24h: sum(|r| r.usage.recipients_last_24h),
    };
    (queue, usage)
}

fn no_shorter(sum: QueueStatus, before: QueueStatus) -> QueueStatus {
    QueueStatus {
        messages: sum.messages.max(before.messages),
        oldest_seconds: sum.oldest_seconds.max(before.oldest_seconds),
        dead_letters: sum.dead_letters.max(before.dead_letters),
    }
}

fn no_smaller(sum: UsageStatus, before: UsageStatus) -> UsageStatus {
    UsageStatus {
        messages_last_minute: sum.messages_last_minute.max(before.messages_last_minute),
        recipients_last_24h: sum.recipients_last_24h.max(before.recipients_last_24h),
    }
}

fn reports_of_live_pods<'a>(facts: &Facts<'a>) -> Vec<&'a Report> {
    facts.pods.iter().filter_map(|pod| facts.reports.get(&pod.uid)).map(|received| &received.report).collect()
}

fn names(route: &MailRoute) -> Names {
    let endpoint = validate::endpoint(&route.spec).ok();
    Names {
        endpoint: endpoint.map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port)),
        authority: validate::authority(&route.spec).host,
    }
}

fn subject<'a>(route: &'a MailRoute, names: &'a Names) -> Subject<'a> {
    let submission = route.spec.client_submission.as_ref();
    Subject {
        mailbox: submission.map_or("", |submission| &submission.mailbox),
        client_id: submission.map_or("", |submission| &submission.credential.client_id),
        tenant: &route.spec.tenant.id,
        endpoint: names.endpoint.as_deref().unwrap_or_default(),
        authority: &names.authority,
    }
}

fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|candidate| candidate.type_ == condition.as_str())
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// metav1.Time has whole seconds; what is finer would differ from what is read back.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
