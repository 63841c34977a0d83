//! The whole status of a route from what is known of it. Pure: time and the previous status are passed in.
//!
//! Invariants: equal facts give an equal status, whatever the time, so that nothing is written when nothing changed. A
//! condition's transition time moves only with its status. A condition without evidence is left out, apart from Accepted
//! and Ready, which are always there.
//!
//! What was found stands when the pods that found it have ended, as long as the spec is the same: nobody has found anything
//! else, and a person may look only after a Job has failed. It stands until a newer pod finds otherwise, or has been there
//! for three intervals and says nothing of it. After a change of leader the reports come in again one by one. Until all
//! have, or three intervals have passed, what the leader before found stands, unless a fault is reported. Both rules are in
//! `evidence`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Subject};
use mailroute_route::control::Report;

use super::evidence::{Evidence, Gathered};
use super::facts::RouteFacts;
use super::finding::ConditionFinding;
use super::{
    accepted, dns_published, federation_fits, gateway_ready, mailboxes, progress, ready, sidecars_current,
    sidecars_reporting, tenant_quota,
};
use crate::crd::MailRouteStatus;
use crate::crd::status::{GatewayStatus, QueueStatus, Sidecars, UsageStatus};
use crate::pods::SidecarPod;
use crate::resolve;

/// The status that the route should have at `now`.
pub fn compute(facts: &RouteFacts<'_>, now: Timestamp) -> MailRouteStatus {
    let previous = facts.route.status.clone().unwrap_or_default();
    let resolved = facts.resolution.route.as_ref().ok();
    let endpoint = resolved.map(|route| resolve::place(&route.file.method));
    let subject = subject(facts, endpoint.as_deref());
    let reports = Gathered::of(facts);
    let evidence = Evidence::new(facts, &reports, &previous.conditions, &subject, now);
    let settling = evidence.settling;
    let gateway = gateway_ready::status(facts, settling.and(previous.gateway));
    let mut findings = findings(facts, gateway, &previous.conditions, &evidence, now);
    tenant_quota::judge(&mut findings, facts, &subject);
    findings.extend(dns_published::finding(facts, &previous.conditions));
    let reports = reports.live;
    let named = resolved.map(|route| route.file.method.mailboxes()).unwrap_or_default();
    let mut mailboxes = mailboxes::statuses(&named, &reports);
    let (mut queue, mut usage) = sums(&reports);
    let mut sidecars = sidecars(facts);
    if settling.is_some() {
        if previous.observed_generation == facts.route.meta().generation {
            mailboxes = previous.mailboxes;
            sidecars.converged = sidecars.converged.max(previous.sidecars.converged).min(sidecars.injected);
        }
        (queue, usage) = (no_shorter(queue, previous.queue), no_smaller(usage, previous.usage));
    }
    queue.lost = facts.lost;
    usage.messages_last_minute = usage.messages_last_minute.saturating_add(sent_by_ended(facts, now));
    MailRouteStatus {
        observed_generation: facts.route.meta().generation,
        conditions: findings
            .into_iter()
            .map(|finding| finding.into_condition(&previous.conditions, now))
            .collect(),
        sender: resolved.and_then(|route| resolve::sender(&route.file)),
        endpoint,
        sidecars,
        queue,
        gateway,
        usage,
        mailboxes,
        // Not the leader's to write.
        refused: None,
    }
}

fn findings(
    facts: &RouteFacts<'_>,
    gateway: Option<GatewayStatus>,
    previous: &[Condition],
    evidence: &Evidence<'_>,
    now: Timestamp,
) -> Vec<ConditionFinding> {
    let accepted = accepted::finding(facts, evidence);
    let progress = progress::finding(facts, &accepted);
    let mut findings = vec![accepted];
    findings.extend(ConditionType::OBSERVED.into_iter().filter_map(|condition| evidence.finding(condition)));
    let is_settling = evidence.settling.is_some();
    let gateway = gateway_ready::finding(facts, gateway, previous, is_settling, evidence.subject);
    let (counted, beside) = if gateway_ready::counts(facts) { (gateway, None) } else { (None, gateway) };
    findings.extend(counted);
    findings.push(ready::finding(&findings, facts, evidence, now));
    findings.extend(beside);
    findings.extend(sidecars_current::finding(facts, &findings, evidence.subject));
    findings.extend(sidecars_reporting::finding(facts, evidence.subject));
    findings.extend(federation_fits::finding(facts, evidence.subject));
    findings.extend(progress);
    findings
}

fn sidecars(facts: &RouteFacts<'_>) -> Sidecars {
    let generation = facts.route.meta().generation.unwrap_or_default();
    let is_converged = |pod: &&SidecarPod| {
        let reported = facts.reports.get(&pod.uid).map(|reported| &reported.report);
        reported.is_some_and(|report| report.generation >= generation && report.config_error.is_none())
    };
    Sidecars {
        injected: count(facts.pods.iter()),
        ready: count(facts.pods.iter().filter(|pod| pod.ready)),
        converged: count(facts.pods.iter().filter(is_converged)),
        outdated: count(facts.rollout.outdated.iter()),
        missing: count(facts.bare.iter()),
        silent: count(facts.silent.iter()),
    }
}

fn sums(reports: &[&Report]) -> (QueueStatus, UsageStatus) {
    let sum =
        |of: fn(&Report) -> u64| reports.iter().fold(0_u64, |sum, report| sum.saturating_add(of(report)));
    let queue = QueueStatus {
        messages: sum(|r| r.queue.messages),
        oldest_seconds: reports.iter().map(|r| r.queue.oldest_seconds).max().unwrap_or_default(),
        dead_letters: sum(|r| r.queue.dead_letters),
        lost: 0,
    };
    let usage = UsageStatus {
        messages_last_minute: sum(|r| r.usage.messages_last_minute),
        recipients_last_24h: sum(|r| r.usage.recipients_last_24h),
    };
    (queue, usage)
}

/// Messages that pods sent in the last minute which have ended since.
fn sent_by_ended(facts: &RouteFacts<'_>, now: Timestamp) -> u64 {
    let is_live = |uid: &str| facts.pods.iter().any(|pod| pod.uid == uid);
    let ended = facts.reports.iter().filter(|(uid, _)| !is_live(uid)).map(|(_, received)| received);
    let late = ended.filter(|received| now.duration_since(received.at) < SignedDuration::from_mins(1));
    late.fold(0, |sum, received| sum.saturating_add(received.report.usage.messages_last_minute))
}

fn no_shorter(sum: QueueStatus, before: QueueStatus) -> QueueStatus {
    QueueStatus {
        messages: sum.messages.max(before.messages),
        oldest_seconds: sum.oldest_seconds.max(before.oldest_seconds),
        dead_letters: sum.dead_letters.max(before.dead_letters),
        lost: before.lost,
    }
}

fn no_smaller(sum: UsageStatus, before: UsageStatus) -> UsageStatus {
    UsageStatus {
        messages_last_minute: sum.messages_last_minute.max(before.messages_last_minute),
        recipients_last_24h: sum.recipients_last_24h.max(before.recipients_last_24h),
    }
}

/// The names that remedies mention. What a route has none of is named as the reference of reasons names it.
fn subject<'a>(facts: &RouteFacts<'a>, endpoint: Option<&'a str>) -> Subject<'a> {
    let spec = &facts.route.spec;
    let client_id = spec.credential().and_then(|credential| credential.client_id.as_deref());
    let resolved = facts.resolution.route.as_ref().ok();
    let secret = resolved.and_then(|route| route.secret.as_ref());
    let log_in = resolved.and_then(|route| route.file.method.log_in());
    Subject {
        route: facts.route.metadata.name.as_deref().unwrap_or("<route>"),
        mailbox: spec.mailbox().unwrap_or("<mailbox>"),
        client_id: client_id.unwrap_or("<client id>"),
        tenant: &spec.tenant.id,
        endpoint: endpoint.unwrap_or("<endpoint>"),
        authority: log_in.map_or("<authority>", |log_in| &log_in.authority.host),
        secret: secret.map_or("<secret>", |secret| &secret.name),
        key: secret.and_then(|secret| secret.key.as_deref()).unwrap_or("<key>"),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
