//! Which pods have an outdated sidecar, which of them may be evicted next, and what each of the others waits for. Pure.

use std::collections::BTreeMap;
use std::fmt;

use mailroute_route::control::Queue;
use mailroute_route::identity::Role;

use super::age::SidecarAge;
use super::history::RouteEvictions;
use crate::crd::sidecar::Rollout;
use crate::inject::Refusal;
use crate::inject::names::INJECTED;
use crate::pods::{PodOwner, SidecarPod};
use crate::reports::ReceivedReport;

/// All that a plan follows from.
#[derive(Debug)]
pub struct RolloutFacts<'a> {
    /// What the route asks for.
    pub rollout: Rollout,
    /// Its pods that have the sidecar and have not ended.
    pub pods: &'a [SidecarPod],
    /// What their sidecars are like beside a new one, in the same order.
    pub ages: &'a [SidecarAge],
    /// The fresh reports for it, by pod uid.
    pub reports: &'a BTreeMap<String, ReceivedReport>,
    /// What was evicted lately.
    pub history: &'a RouteEvictions,
}

/// The pods with an outdated sidecar.
#[derive(Clone, Debug, Default)]
pub struct RolloutPlan<'a> {
    /// What the route asks for.
    pub rollout: Rollout,
    /// They, by owner and name.
    pub outdated: Vec<OutdatedPod<'a>>,
    /// Whom to evict next.
    pub next: Option<NextEviction<'a>>,
}

/// A pod whose sidecar is outdated.
#[derive(Clone, Debug)]
pub struct OutdatedPod<'a> {
    /// The pod.
    pub pod: &'a SidecarPod,
    /// What it waits for; nothing when it may go, or when nobody evicts it.
    pub obstacle: Option<Obstacle>,
}

/// The pod to evict.
#[derive(Clone, Debug)]
pub struct NextEviction<'a> {
    /// The pod.
    pub pod: &'a SidecarPod,
    /// What makes it again.
    pub owner: &'a PodOwner,
}

/// Why a pod is not evicted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing would make it again.
    Unowned,
    /// It is to run to its end: a Job.
    RunsToEnd,
    /// A new pod would be refused.
    Refused(Refusal),
    /// What it holds is not known.
    Unreported,
    /// Dead letters would go with it.
    DeadLetters,
    /// Messages wait in it.
    Mail,
    /// It is ending already.
    Ending,
    /// The sidecar of that pod, which is a new one, does not accept mail yet.
    Newcomer(String),
    /// Another pod of its owner is not ready.
    Peer(String),
    /// Nothing has taken the place of that pod yet.
    Unreplaced(String),
    /// That pod came in the place of one that was evicted, and is outdated as well.
    Futile(String),
    /// The API server refused it a moment ago.
    Budget,
}

impl Obstacle {
    /// Whether it stays until somebody does something about it.
    pub const fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Unowned | Self::RunsToEnd | Self::Refused(_) | Self::DeadLetters | Self::Futile(_)
        )
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowned => write!(f, "no controller would recreate it"),
            Self::RunsToEnd => write!(f, "it runs to completion"),
            Self::Refused(refusal) => write!(f, "a new one would be refused ({})", refusal.reason()),
            Self::Unreported => write!(f, "its sidecar does not report"),
            Self::DeadLetters => {
                write!(f, "it has dead letters; export or drop them with mailroute-sidecar queue")
            }
            Self::Mail => write!(f, "it has queued messages"),
            Self::Ending => write!(f, "it is ending"),
            Self::Newcomer(pod) => write!(f, "the new sidecar of {pod} does not accept mail yet"),
            Self::Peer(pod) => write!(f, "{pod} is not ready"),
            Self::Unreplaced(pod) => write!(f, "no ready pod has replaced {pod} yet"),
            Self::Futile(pod) => write!(
                f,
                "{pod}, which is new, is outdated as well: does another webhook take {INJECTED} away, or another \
                 operator inject?"
            ),
            Self::Budget => write!(f, "a PodDisruptionBudget does not allow it now"),
        }
    }
}

/// Makes the plan. Whether the route is Ready is for the caller to look at: it is known only with the status.
pub fn plan<'a>(known: &RolloutFacts<'a>) -> RolloutPlan<'a> {
    let (mut outdated, mut newcomer) = (Vec::new(), None);
    let mut pods: Vec<_> = known.pods.iter().zip(known.ages).collect();
    pods.sort_unstable_by(|(a, _), (b, _)| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
    for (pod, age) in pods {
        match age {
            SidecarAge::Current if !pod.ready && !pod.is_ending => {
                newcomer = newcomer.or(Some(pod.name.as_str()))
            }
            SidecarAge::Current => {}
            SidecarAge::Outdated => outdated.push((pod, None)),
            SidecarAge::Refused(refusal) => outdated.push((pod, Some(Obstacle::Refused(refusal.clone())))),
        }
    }
    let outdated: Vec<_> = outdated
        .into_iter()
        .map(|(pod, refused)| {
            let obstacle = match known.rollout {
                Rollout::Report => None,
                Rollout::Restart => refused.or_else(|| obstacle(pod, newcomer, known)),
            };
            OutdatedPod { pod, obstacle }
        })
        .collect();
    let next = match known.rollout {
        Rollout::Report => None,
        Rollout::Restart => next(&outdated),
    };
    RolloutPlan { rollout: known.rollout, outdated, next }
}

fn next<'a>(outdated: &[OutdatedPod<'a>]) -> Option<NextEviction<'a>> {
    let free = outdated.iter().find(|it| it.obstacle.is_none())?;
    Some(NextEviction { pod: free.pod, owner: free.pod.owner.as_ref()? })
}

/// What lasts comes first, as it is what a person has to know.
fn obstacle(pod: &SidecarPod, newcomer: Option<&str>, known: &RolloutFacts<'_>) -> Option<Obstacle> {
    let Some(owner) = &pod.owner else { return Some(Obstacle::Unowned) };
    if !pod.runs_on {
        return Some(Obstacle::RunsToEnd);
    }
    if pod.is_ending {
        return Some(Obstacle::Ending);
    }
    let Some(received) = known.reports.get(&pod.uid) else { return Some(Obstacle::Unreported) };
    // What a gateway has is on its claim, which the next pod gets.
    let held = if pod.role == Role::Gateway { Queue::default() } else { received.report.queue };
    if held.dead_letters > 0 {
        return Some(Obstacle::DeadLetters);
    }
    if held.messages > 0 {
        return Some(Obstacle::Mail);
    }
    if let Some(evicted) = known.history.evicted.get(owner) {
        let mut aged = known.pods.iter().zip(known.ages);
        let futile = aged.find(|(pod, age)| evicted.is_new(owner, pod) && **age != SidecarAge::Current);
        return Some(match futile {
            Some((pod, _)) => Obstacle::Futile(pod.name.clone()),
            None => Obstacle::Unreplaced(evicted.pod.clone()),
        });
    }
    let is_peer = |peer: &&SidecarPod| peer.uid != pod.uid && peer.owner.as_ref() == Some(owner);
    let unready = known.pods.iter().filter(is_peer).find(|peer| !peer.is_pod_ready || peer.is_ending);
    if let Some(peer) = unready {
        return Some(Obstacle::Peer(peer.name.clone()));
    }
    if let Some(newcomer) = newcomer {
        return Some(Obstacle::Newcomer(newcomer.to_owned()));
    }
    known.history.refused.contains_key(owner).then_some(Obstacle::Budget)
}

#[cfg(test)]
mod tests;
