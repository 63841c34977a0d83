//! GatewayReady, and the gateway in numbers. Pure.
//!
//! Shown while the route names a gateway. Its message says how many messages wait in the gateway, for somebody who is about to delete
//! the route or the namespace; no age, which would move by itself.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};
use mailroute_route::file::Durability;
use mailroute_route::identity::Role;

use super::aggregate::{ConditionMessage, explanation};
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE, find};
use crate::crd::status::GatewayStatus;
use crate::pods::SidecarPod;

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// Whether Ready depends on the gateway: without it, messages that have to wait are refused. Where no pod sends, nobody misses it, and
/// whoever waits for the route before installing its gateway does not wait for ever.
pub(super) fn counts(facts: &RouteFacts<'_>) -> bool {
    facts.route.spec.delivery.durability == Durability::Gateway && of(facts, Role::Sidecar).next().is_some()
}

/// The gateway in numbers; none of a route that has none. `before` has what it is not believed to be less than while reports are
/// still on their way.
pub(super) fn status(facts: &RouteFacts<'_>, before: Option<GatewayStatus>) -> Option<GatewayStatus> {
    let pods: Vec<_> = of(facts, Role::Gateway).collect();
    if pods.is_empty() && facts.route.spec.gateway.is_none() {
        return None;
    }
    let queues = pods.iter().filter_map(|pod| facts.reports.get(&pod.uid)).map(|it| it.report.queue);
    let least = before.unwrap_or_default();
    let (queued, oldest) = queues.fold((0_u64, 0), |(queued, oldest), queue| {
        (queued.saturating_add(queue.messages), queue.oldest_seconds.max(oldest))
    });
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Some(GatewayStatus {
        pods: count(pods.len()),
        ready: count(pods.iter().filter(|pod| takes_over(facts, pod)).count()),
        queued: queued.max(least.queued),
        oldest_seconds: oldest.max(least.oldest_seconds),
    })
}

/// What the condition should say; none of a route that names no gateway. `is_settling`: reports are still on their way.
pub(super) fn finding(
    facts: &RouteFacts<'_>,
    status: Option<GatewayStatus>,
    previous: &[Condition],
    is_settling: bool,
    subject: &Subject<'_>,
) -> Option<ConditionFinding> {
    facts.route.spec.gateway.as_ref()?;
    let status = status.unwrap_or_default();
    let old = find(previous, ConditionType::GatewayReady);
    let said = |status, reason, message| {
        let generation = facts.route.meta().generation;
        Some(ConditionFinding::new(ConditionType::GatewayReady, status, reason, message, generation))
    };
    if status.pods == 0 {
        return said(FALSE, Reason::GatewayMissing, explanation(Reason::GatewayMissing, subject));
    }
    if status.ready == 0 {
        let reason = Reason::GatewayNotReady;
        return said(FALSE, reason, written(old, reason, &not_ready(facts, subject)));
    }
    if let Some(message) = unreachable(facts, subject) {
        let reason = Reason::GatewayUnreachable;
        return said(FALSE, reason, written(old, reason, &message));
    }
    match old.filter(|old| is_settling && old.reason == Reason::GatewayUnreachable.as_str()) {
        Some(old) => said(FALSE, Reason::GatewayUnreachable, old.message.clone()),
        None => said(TRUE, Reason::GatewayReady, ready(status)),
    }
}

fn of<'a>(facts: &RouteFacts<'a>, role: Role) -> impl Iterator<Item = &'a SidecarPod> + use<'a> {
    facts.pods.iter().filter(move |pod| pod.role == role)
}

/// One that is asked to end takes nothing over, nor does one without a certificate.
fn takes_over(facts: &RouteFacts<'_>, pod: &SidecarPod) -> bool {
    pod.ready && !pod.is_ending && error_of(facts, pod).is_none()
}

/// What a pod reports of gateways, and when it did.
fn error_of<'a>(facts: &RouteFacts<'a>, pod: &SidecarPod) -> Option<(Timestamp, &'a str)> {
    let newest = facts.reports.get(&pod.uid)?;
    Some((newest.at, newest.report.gateway_error.as_deref()?))
}

/// The text of a message; what is written already when it says the same.
fn written(old: Option<&Condition>, reason: Reason, message: &ConditionMessage) -> String {
    let old = old.filter(|old| old.reason == reason.as_str() && message.is_said_by(&old.message));
    old.map_or_else(|| message.text(), |old| old.message.clone())
}

/// Which pods are not ready, and what the newest report of them says.
fn not_ready(facts: &RouteFacts<'_>, subject: &Subject<'_>) -> ConditionMessage {
    let names: Vec<_> = of(facts, Role::Gateway).take(NAMED).map(|pod| pod.name.as_str()).collect();
    let newest = of(facts, Role::Gateway).filter_map(|pod| error_of(facts, pod)).max_by_key(|(at, _)| *at);
    let quote = newest.map_or("", |(_, error)| error);
    ConditionMessage::named(&names.join(", "), quote, Reason::GatewayNotReady, subject)
}

/// What sidecars met that wanted to hand over; none while all that report can.
fn unreachable(facts: &RouteFacts<'_>, subject: &Subject<'_>) -> Option<ConditionMessage> {
    let reports: Vec<_> = of(facts, Role::Sidecar).filter_map(|pod| facts.reports.get(&pod.uid)).collect();
    let errors: Vec<_> =
        reports.iter().filter_map(|it| Some((it.at, it.report.gateway_error.as_deref()?))).collect();
    let (_, newest) = errors.iter().max_by_key(|(at, _)| at)?;
    let reason = Reason::GatewayUnreachable;
    Some(ConditionMessage::of(errors.len(), reports.len(), newest, reason, subject))
}

fn ready(status: GatewayStatus) -> String {
    let GatewayStatus { pods, ready, queued, .. } = status;
    let waits = match queued {
        0 => "No message waits in it.",
        1 => {
            "1 message waits in it: before you delete the route, the gateway or the namespace, see that it is delivered or exported."
        }
        _ => &format!(
            "{queued} messages wait in it: before you delete the route, the gateway or the namespace, see that they are \
             delivered or exported."
        ),
    };
    let (noun, verb) = (if pods == 1 { "pod" } else { "pods" }, if ready == 1 { "is" } else { "are" });
    format!("{ready} of {pods} gateway {noun} {verb} ready. {waits}")
}
