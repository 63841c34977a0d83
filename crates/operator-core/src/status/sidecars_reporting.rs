//! SidecarsReporting: which sidecars run and have not reported for minutes, by name. Pure.
//!
//! Left out while all report. Times are those of the last reports, not ages, so that the message does not change by itself.

use jiff::{SignedDuration, Timestamp};
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::aggregate::explanation;
use super::facts::{RouteFacts, SilentSidecar};
use super::finding::{ConditionFinding, FALSE};
use crate::pods::SidecarPod;

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// The sidecars among `pods` that have not reported for the time `after`, the longest first. `last` has the time of a pod's last
/// report by its uid, `leading` is when this leader began to hear them.
pub fn silent(
    pods: &[SidecarPod],
    after: SignedDuration,
    last: impl Fn(&str) -> Option<Timestamp>,
    leading: Timestamp,
    now: Timestamp,
) -> Vec<SilentSidecar> {
    let mut silent: Vec<_> = pods
        .iter()
        .filter(|pod| pod.ready && !pod.is_ending)
        .map(|pod| {
            let never = pod.created.map_or(leading, |created| created.max(leading));
            SilentSidecar { pod: pod.name.clone(), since: last(&pod.uid).unwrap_or(never) }
        })
        .filter(|silent| now.duration_since(silent.since) >= after)
        .collect();
    silent.sort_unstable_by(|a, b| (a.since, &a.pod).cmp(&(b.since, &b.pod)));
    silent
}

/// What the condition should say; none while all report.
pub(super) fn finding(facts: &RouteFacts<'_>, subject: &Subject<'_>) -> Option<ConditionFinding> {
    let message = format!("{} {}", sentence(facts)?, explanation(Reason::SidecarsSilent, subject));
    let generation = facts.route.meta().generation;
    let (condition, reason) = (ConditionType::SidecarsReporting, Reason::SidecarsSilent);
    Some(ConditionFinding::new(condition, FALSE, reason, message, generation))
}

/// How many are silent, which and since when; none while all report.
pub(super) fn sentence(facts: &RouteFacts<'_>) -> Option<String> {
    let (silent, pods) = (facts.silent, facts.pods.len());
    let named =
        |one: &SilentSidecar| format!("{} since {}", one.pod, one.since.strftime("%Y-%m-%dT%H:%M:%SZ"));
    let names = silent.iter().take(NAMED).map(named).collect::<Vec<_>>().join(", ");
    let more = silent.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let (count, have) = (silent.len(), if silent.len() == 1 { "has" } else { "have" });
    let of = if pods == 1 { "pod" } else { "pods" };
    (!silent.is_empty()).then(|| format!("{count} of {pods} {of} {have} not reported: {names}{more}."))
}
