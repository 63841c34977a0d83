//! What the observed conditions are judged by: whose word counts, and how long. Pure.
//!
//! The reports of the pods that are there count first. Without them, what was found before stands: while this leader is new
//! and reports are on their way, and from pods that have ended to those that follow them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Subject};
use mailroute_route::control::Report;

use super::aggregate::{ConditionVerdict, verdict};
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE, find};
use crate::STALE_AFTER;
use crate::pods::SidecarPod;

/// The reports that count.
pub(super) struct Gathered<'a> {
    /// Those of pods that have not ended.
    pub(super) live: Vec<&'a Report>,
    /// Those on the spec as it is now whose pods ended before a status told of them.
    ended: Vec<&'a Report>,
}

impl<'a> Gathered<'a> {
    pub(super) fn of(facts: &RouteFacts<'a>) -> Self {
        let generation = facts.route.meta().generation.unwrap_or_default();
        let is_live = |uid: &str| facts.pods.iter().any(|pod| pod.uid == uid);
        let live = facts.pods.iter().filter_map(|pod| facts.reports.get(&pod.uid));
        let ended = facts.reports.iter().filter(|(uid, received)| !received.is_told && !is_live(uid));
        let ended = ended.map(|(_, received)| &received.report);
        Self {
            live: live.map(|received| &received.report).collect(),
            ended: ended.filter(|report| report.generation == generation).collect(),
        }
    }
}

/// All that the observed conditions follow from.
pub(super) struct Evidence<'a> {
    /// The reports of pods that have not ended.
    pub(super) live: &'a [&'a Report],
    /// The reports of pods that have ended and that nobody was told of.
    ended: &'a [&'a Report],
    /// What was found before.
    previous: &'a [Condition],
    /// See [`RouteFacts::settling`]; none once all pods have reported.
    pub(super) settling: Option<Timestamp>,
    /// Whether no pod has been there long enough to have said all that it can say.
    is_succession: bool,
    /// What messages name.
    pub(super) subject: &'a Subject<'a>,
    /// Of the spec as it is now.
    generation: Option<i64>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(
        facts: &RouteFacts<'_>,
        reports: &'a Gathered<'a>,
        previous: &'a [Condition],
        subject: &'a Subject<'a>,
        now: Timestamp,
    ) -> Self {
        Self {
            live: &reports.live,
            ended: &reports.ended,
            previous,
            settling: facts.settling.filter(|_| reports.live.len() < facts.pods.len()),
            is_succession: facts.pods.iter().all(|pod| is_young(pod, now)),
            subject,
            generation: facts.route.meta().generation,
        }
    }

    /// What an observed condition should say; none without evidence.
    pub(super) fn finding(&self, condition: ConditionType) -> Option<ConditionFinding> {
        let old = find(self.previous, condition);
        let inherited =
            old.filter(|old| self.settling.is_some_and(|since| old.last_transition_time.0 < since));
        match verdict(condition, self.live, self.subject) {
            Some(fault) if !fault.holds => Some(self.observed(fault, old, self.live)),
            verdict => inherited
                .and_then(ConditionFinding::kept)
                .or_else(|| verdict.map(|verdict| self.observed(verdict, old, self.live)))
                .or_else(|| self.bequeathed(condition)),
        }
    }

    /// What pods found that have ended since, while nobody can know better.
    fn bequeathed(&self, condition: ConditionType) -> Option<ConditionFinding> {
        if !self.is_succession {
            return None;
        }
        let old = find(self.previous, condition).filter(|old| old.observed_generation == self.generation);
        verdict(condition, self.ended, self.subject)
            .map(|verdict| self.observed(verdict, old, self.ended))
            .or_else(|| old.and_then(ConditionFinding::kept))
    }

    fn observed(
        &self,
        verdict: ConditionVerdict,
        old: Option<&Condition>,
        reports: &[&Report],
    ) -> ConditionFinding {
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
        let generation = self.generation.map(|now| oldest.unwrap_or(now).min(now));
        ConditionFinding::new(verdict.condition, status, verdict.reason, message, generation)
    }
}

/// Whether the pod has not had time yet to report all that it meets.
fn is_young(pod: &SidecarPod, now: Timestamp) -> bool {
    pod.created.is_some_and(|created| now.duration_since(created) < STALE_AFTER)
}
