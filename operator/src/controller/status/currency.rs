//! SidecarsCurrent: which pods have an outdated sidecar, by name, and what becomes of them. Pure.
//!
//! Advisory: an older sidecar delivers mail as well as a new one, so Ready does not depend on it. No number in it moves by
//! itself, so that it is written when a pod comes, goes or waits for something else.

use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::super::observe::explanation;
use super::super::rollout::plan::{Outdated, Plan};
use super::Facts;
use super::finding::{FALSE, Finding, TRUE};
use crate::crd::sidecar::Rollout;

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// What the condition should say; none without pods. `others` has Ready.
pub(super) fn finding(facts: &Facts<'_>, others: &[Finding], subject: &Subject<'_>) -> Option<Finding> {
    if facts.pods.is_empty() {
        return None;
    }
    let is_ready = others.iter().any(|it| it.condition == ConditionType::Ready && it.status == TRUE);
    let (plan, reason) = (facts.rollout, reason(facts.rollout, is_ready));
    let (status, message) = match reason {
        Reason::SidecarsCurrent => (TRUE, reason.sentence().to_owned()),
        _ => (FALSE, message(plan, facts.pods.len(), reason, is_ready, subject)),
    };
    let generation = facts.route.meta().generation;
    Some(Finding::new(ConditionType::SidecarsCurrent, status, reason, message, generation))
}

/// Held is what a person has to see to; the rest passes by itself, and is not told of each time.
fn reason(plan: &Plan<'_>, is_ready: bool) -> Reason {
    let lasts = |it: &Outdated<'_>| it.obstacle.as_ref().is_some_and(|obstacle| obstacle.lasts());
    match plan.rollout {
        _ if plan.outdated.is_empty() => Reason::SidecarsCurrent,
        Rollout::Report => Reason::SidecarsOutdated,
        Rollout::Restart if !is_ready || plan.outdated.iter().all(lasts) => Reason::SidecarsHeld,
        Rollout::Restart => Reason::SidecarsRestarting,
    }
}

fn message(plan: &Plan<'_>, pods: usize, reason: Reason, is_ready: bool, subject: &Subject<'_>) -> String {
    let outdated = &plan.outdated;
    let named: Vec<_> = outdated.iter().take(NAMED).map(|it| named(it, is_ready)).collect();
    let more = outdated.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let waits = if plan.rollout == Rollout::Restart && !is_ready { " The route is not Ready." } else { "" };
    format!(
        "{} of {pods} {}: {}{more}.{waits} {}",
        outdated.len(),
        if pods == 1 { "pod" } else { "pods" },
        named.join("; "),
        explanation(reason, subject),
    )
}

/// The pod, what makes it, and what it waits for; while the route is not Ready only what lasts.
fn named(outdated: &Outdated<'_>, is_ready: bool) -> String {
    let pod = &outdated.pod.name;
    let of = outdated.pod.owner.as_ref().map_or_else(String::new, |owner| format!(" of {owner}"));
    let obstacle = outdated.obstacle.as_ref().filter(|obstacle| is_ready || obstacle.lasts());
    let waits = obstacle.map_or_else(String::new, |obstacle| format!(" ({obstacle})"));
    format!("{pod}{of}{waits}")
}
