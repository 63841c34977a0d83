//! The whole status of a route from what is known of it. Pure: time and the previous status are passed in.
//!
//! Invariants: equal facts give an equal status, whatever the time, so that nothing is written when nothing changed. A
//! condition's transition time moves only with its status. A condition without evidence is left out, apart from Accepted
//! and Ready, which are always there.
//!
//! What was found stands when the pods that found it have ended, as long as the spec is the same: nobody has found anything
//! else, and a person may look only after a Job has failed. It stands until a newer pod finds otherwise, or has been there
//! for three intervals and says nothing of it.
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
use crate::control::reports::{Received, STALE_AFTER};
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
    let evidence = Evidence {
        live: &reports,
        ended: &untold_reports_of_ended_pods(facts),
        previous: &previous.conditions,
        settling,
        is_succession: facts.pods.iter().all(|pod| is_young(pod, now)),
    };
    let findings = findings(facts, &names, &evidence);
    let (mut queue, mut usage) = sums(&reports);
    if settling.is_some() {
        (queue, usage) = (no_shorter(queue, previous.queue), no_smaller(usage, previous.usage));
    }
    MailRouteStatus {
        observed_generation: facts.route.meta().generation,
        conditions: findings
            .into_iter()
            .map(|finding| finding.into_condition(&previous.conditions, now))
            .collect(),
        endpoint: names.endpoint,
        sidecars: sidecars(facts),
        queue,
        usage,
    }
}

/// What conditions are judged by.
struct Evidence<'a> {
    /// The reports of pods that have not ended.
    live: &'a [&'a Report],
    /// Reports on the spec as it is now whose pods ended before a status told of them.
    ended: &'a [&'a Report],
    /// What was found before.
    previous: &'a [Condition],
    /// See [`Facts::settling`]; none once all pods have reported.
    settling: Option<Timestamp>,
    /// Whether no pod has been there long enough to have said all that it can say.
    is_succession: bool,
}

/// What a condition should say.
struct Finding {
    condition: ConditionType,
    status: &'static str,
    reason: String,
    message: String,
    /// The generation of the spec that it was found with.
    generation: Option<i64>,
}

impl Finding {
    /// One that follows from the spec as it is now.
    fn new(
        facts: &Facts<'_>,
        condition: ConditionType,
        status: &'static str,
        reason: Reason,
        message: String,
    ) -> Self {
        let generation = facts.route.meta().generation;
        Self { condition, status, reason: reason.as_str().to_owned(), message, generation }
    }

    fn into_condition(self, previous: &[Condition], now: Timestamp) -> Condition {
        let before = find(previous, self.condition).filter(|condition| condition.status == self.status);
        Condition {
            type_: self.condition.as_str().to_owned(),
            status: self.status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: self.generation,
            last_transition_time: before
                .map_or_else(|| Time(whole_second(now)), |condition| condition.last_transition_time.clone()),
        }
    }
}

fn findings(facts: &Facts<'_>, names: &Names, evidence: &Evidence<'_>) -> Vec<Finding> {
    let subject = subject(facts.route, names);
    let generation = facts.route.meta().generation;
    let mut findings = vec![accepted(facts, &subject, evidence.live)];
    let met = |condition| evidence.finding(condition, &subject, generation);
    findings.extend(ConditionType::OBSERVED.into_iter().filter_map(met));
    findings.push(ready(&findings, facts, evidence.live, &subject));
    findings
}

impl Evidence<'_> {
    fn finding(
        &self,
        condition: ConditionType,
        subject: &Subject<'_>,
        generation: Option<i64>,
    ) -> Option<Finding> {
        let old = find(self.previous, condition);
        let inherited =
            old.filter(|old| self.settling.is_some_and(|since| old.last_transition_time.0 < since));
        match verdict(condition, self.live, subject) {
            Some(fault) if !fault.holds => Some(observed(fault, old, self.live, generation)),
            verdict => inherited
                .and_then(kept)
                .or_else(|| verdict.map(|verdict| observed(verdict, old, self.live, generation)))
                .or_else(|| self.bequeathed(condition, subject, generation)),
        }
    }

    /// What pods found that have ended since, while nobody can know better.
    fn bequeathed(
        &self,
        condition: ConditionType,
        subject: &Subject<'_>,
        generation: Option<i64>,
    ) -> Option<Finding> {
        if !self.is_succession {
            return None;
        }
        let old = find(self.previous, condition).filter(|old| old.observed_generation == generation);
        verdict(condition, self.ended, subject)
            .map(|verdict| observed(verdict, old, self.ended, generation))
            .or_else(|| old.and_then(kept))
    }
}

fn accepted(facts: &Facts<'_>, subject: &Subject<'_>, reports: &[&Report]) -> Finding {
    let finding =
        |status, reason, message| Finding::new(facts, ConditionType::Accepted, status, reason, message);
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

fn observed(
    verdict: Verdict,
    old: Option<&Condition>,
    reports: &[&Report],
    generation: Option<i64>,
) -> Finding {
    let status = if verdict.holds { TRUE } else { FALSE };
    let said = old.filter(|old| {
        old.status == status
            && old.reason == verdict.reason.as_str()
            && verdict.message.is_said_by(&old.message)
    });
    let message = said.map_or_else(|| verdict.message.text(), |old| old.message.clone());
    let tells = |report: &&&Report| report.observations.iter().any(|o| o.condition == verdict.condition);
    // A sidecar goes on with an older spec until the kubelet has brought it the new one.
    let oldest = reports.iter().filter(tells).map(|report| report.generation).min();
    Finding {
        condition: verdict.condition,
        status,
        reason: verdict.reason.as_str().to_owned(),
        message,
        generation: generation.map(|generation| oldest.unwrap_or(generation).min(generation)),
    }
}

fn kept(old: &Condition) -> Option<Finding> {
    let condition = ConditionType::OBSERVED.into_iter().find(|condition| condition.as_str() == old.type_)?;
    let status = [TRUE, FALSE, UNKNOWN].into_iter().find(|status| *status == old.status)?;
    let (reason, message) = (old.reason.clone(), old.message.clone());
    Some(Finding { condition, status, reason, message, generation: old.observed_generation })
}

/// Ready is the sum: the first failing condition on the way is the cause to name. The way is known to be open when a
/// sidecar has a token, has reached the upstream and has logged in; whether a message is taken shows with the first one.
fn ready(findings: &[Finding], facts: &Facts<'_>, reports: &[&Report], subject: &Subject<'_>) -> Finding {
    let finding =
        |status, reason, message| Finding::new(facts, ConditionType::Ready, status, reason, message);
    let is_over = facts.pods.is_empty();
    if let Some(failing) = findings.iter().find(|finding| finding.status == FALSE) {
        let was_met = is_over && failing.condition != ConditionType::Accepted;
        return Finding {
            condition: ConditionType::Ready,
            status: FALSE,
            reason: failing.reason.clone(),
            message: format!(
                "{}: {}{}",
                failing.condition,
                failing.message,
                if was_met { MET_BY_THE_LAST } else { "" }
            ),
            generation: facts.route.meta().generation,
        };
    }
    match (missing(findings), is_over) {
        (None, true) => {
            finding(TRUE, Reason::Ready, format!("{}{MET_BY_THE_LAST}", Reason::Ready.sentence()))
        }
        (None, false) => finding(TRUE, Reason::Ready, Reason::Ready.sentence().to_owned()),
        (Some(_), true) => finding(UNKNOWN, Reason::NoPods, explanation(Reason::NoPods, subject)),
        (Some(_), false) if reports.is_empty() => {
            finding(UNKNOWN, Reason::WaitingForReports, explanation(Reason::WaitingForReports, subject))
        }
        (Some(condition), false) => finding(
            UNKNOWN,
            Reason::WaitingForReports,
            format!("Sidecars have reported, and none yet of {condition}."),
        ),
    }
}

/// Follows what Ready says of a route that no pod uses any more.
const MET_BY_THE_LAST: &str = " No pod uses the route now; this is what the last one met.";

/// The first part of the way that nothing is known of.
fn missing(findings: &[Finding]) -> Option<ConditionType> {
    let on_the_way =
        [ConditionType::CredentialReady, ConditionType::UpstreamReachable, ConditionType::Authenticated];
    on_the_way.into_iter().find(|condition| !findings.iter().any(|f| f.condition == *condition))
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

/// What came from a pod that had ended when the controller looked again.
fn untold_reports_of_ended_pods<'a>(facts: &Facts<'a>) -> Vec<&'a Report> {
    let generation = facts.route.meta().generation.unwrap_or_default();
    let is_live = |uid: &str| facts.pods.iter().any(|pod| pod.uid == uid);
    let ended = facts.reports.iter().filter(|(uid, received)| !received.is_told && !is_live(uid));
    ended.map(|(_, received)| &received.report).filter(|report| report.generation == generation).collect()
}

/// Whether the pod has not had time yet to report all that it meets.
fn is_young(pod: &SidecarPod, now: Timestamp) -> bool {
    pod.created.is_some_and(|created| now.duration_since(created) < STALE_AFTER)
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
