//! SidecarsCurrent: which pods have an outdated sidecar, by name, and what becomes of them. Pure.
//!
//! Advisory: an older sidecar delivers mail as well as a new one, so Ready does not depend on it. No number in it moves by
//! itself, so that it is written when a pod comes, goes or waits for something else.

use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::aggregate::explanation;
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE};
use super::ready;
use crate::crd::sidecar::Rollout;
use crate::pods::{BarePod, PodOwner};
use crate::rollout::plan::{OutdatedPod, RolloutPlan};

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// What the condition should say; none without pods. `others` has Ready.
pub(super) fn finding(
    facts: &RouteFacts<'_>,
    others: &[ConditionFinding],
    subject: &Subject<'_>,
) -> Option<ConditionFinding> {
    if facts.pods.is_empty() && facts.bare.is_empty() {
        return None;
    }
    let is_ready = ready::is_found(&facts.route.spec, others);
    let (plan, reason) = (facts.rollout, reason(facts.rollout, is_ready));
    let without = without(facts.bare, subject);
    let (status, reason, message) = match reason {
        Reason::SidecarsCurrent if without.is_some() => (FALSE, Reason::SidecarsMissing, String::new()),
        Reason::SidecarsCurrent => (TRUE, reason, reason.sentence().to_owned()),
        _ => {
            let waits = if is_ready { "" } else { waits(plan, others) };
            (FALSE, reason, message(plan, facts.pods.len(), reason, (is_ready, waits), subject))
        }
    };
    let parts = [message, without.unwrap_or_default()];
    let message = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let generation = facts.route.meta().generation;
    Some(ConditionFinding::new(ConditionType::SidecarsCurrent, status, reason, message, generation))
}

/// Tells of pods that have the label and nothing else.
fn without(bare: &[BarePod], subject: &Subject<'_>) -> Option<String> {
    let named = bare.iter().take(NAMED).map(|pod| called(&pod.name, pod.owner.as_ref()));
    let (named, more) = (named.collect::<Vec<_>>().join("; "), more(bare.len()));
    let explanation = explanation(Reason::SidecarsMissing, subject);
    (!bare.is_empty()).then(|| format!("Without sidecar: {named}{more}. {explanation}"))
}

/// Held is what a person has to see to; the rest passes by itself, and is not told of each time.
fn reason(plan: &RolloutPlan<'_>, is_ready: bool) -> Reason {
    let lasts = |it: &OutdatedPod<'_>| it.obstacle.as_ref().is_some_and(|obstacle| obstacle.lasts());
    match plan.rollout {
        _ if plan.outdated.is_empty() => Reason::SidecarsCurrent,
        Rollout::Report => Reason::SidecarsOutdated,
        Rollout::Restart if !is_ready || plan.outdated.iter().all(lasts) => Reason::SidecarsHeld,
        Rollout::Restart => Reason::SidecarsRestarting,
    }
}

fn message(
    plan: &RolloutPlan<'_>,
    pods: usize,
    reason: Reason,
    (is_ready, waits): (bool, &str),
    subject: &Subject<'_>,
) -> String {
    let outdated = &plan.outdated;
    let named: Vec<_> = outdated.iter().take(NAMED).map(|it| named(it, is_ready)).collect();
    let more = more(outdated.len());
    format!(
        "{} of {pods} {}: {}{more}.{waits} {}",
        outdated.len(),
        if pods == 1 { "pod" } else { "pods" },
        named.join("; "),
        explanation(reason, subject),
    )
}

/// What a restart waits for that is not the fault of a single pod.
fn waits(plan: &RolloutPlan<'_>, others: &[ConditionFinding]) -> &'static str {
    let is_ready = others.iter().any(|it| it.condition == ConditionType::Ready && it.status == TRUE);
    match (plan.rollout, is_ready) {
        (Rollout::Report, _) => "",
        (Rollout::Restart, true) => " No pod has shown yet that mail can flow.",
        (Rollout::Restart, false) => " The route is not Ready.",
    }
}

/// The pod, what makes it, and what it waits for; while the route as a whole is waited for, only what lasts.
fn named(outdated: &OutdatedPod<'_>, is_ready: bool) -> String {
    let called = called(&outdated.pod.name, outdated.pod.owner.as_ref());
    let obstacle = outdated.obstacle.as_ref().filter(|obstacle| is_ready || obstacle.lasts());
    let waits = obstacle.map_or_else(String::new, |obstacle| format!(" ({obstacle})"));
    format!("{called}{waits}")
}

fn called(pod: &str, owner: Option<&PodOwner>) -> String {
    owner.map_or_else(|| pod.to_owned(), |owner| format!("{pod} of {owner}"))
}

/// What follows the names when there are others.
fn more(pods: usize) -> String {
    let more = pods.saturating_sub(NAMED);
    if more > 0 { format!("; and {more} more") } else { String::new() }
}
