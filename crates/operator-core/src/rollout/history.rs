//! What was evicted and has not been replaced yet, and when the last eviction was. Pure, apart from the lock; time passed in.
//!
//! Only in the leader's memory. A new leader starts without history and with a pause, since the previous one may just have evicted a
//! pod. At worst, a further pod is evicted of an owner whose last one was not replaced at all; a PodDisruptionBudget bounds that like
//! any other eviction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::PACE;
use super::age::SidecarAge;
use crate::pods::{PodOwner, SidecarPod};

/// A pod that was evicted, and those that its owner had then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictedPod {
    /// Name of the pod.
    pub pod: String,
    peers: BTreeSet<String>,
}

impl EvictedPod {
    /// The pod, about to be gone, of an owner with these pods.
    pub fn of(pod: &SidecarPod, owner: &PodOwner, pods: &[SidecarPod]) -> Self {
        let peers =
            pods.iter().filter(|peer| peer.owner.as_ref() == Some(owner)).map(|peer| peer.uid.clone());
        Self { pod: pod.name.clone(), peers: peers.collect() }
    }

    /// Whether the pod came to its owner since.
    pub fn is_new(&self, owner: &PodOwner, pod: &SidecarPod) -> bool {
        pod.owner.as_ref() == Some(owner) && !self.peers.contains(&pod.uid)
    }

    /// Whether the owner has a ready pod that it did not have then, and that is as it should be.
    fn is_replaced(&self, owner: &PodOwner, pods: &[SidecarPod], ages: &[SidecarAge]) -> bool {
        let mut aged = pods.iter().zip(ages);
        aged.any(|(pod, age)| self.is_new(owner, pod) && pod.is_pod_ready && *age == SidecarAge::Current)
    }
}

/// What happened to the pods of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteEvictions {
    /// Evicted and not replaced yet.
    pub evicted: BTreeMap<PodOwner, EvictedPod>,
    /// Owners whose pods the API server does not evict before that time.
    pub refused: BTreeMap<PodOwner, Instant>,
}

/// The history of all routes, each known by a key. Cheap to ask.
#[derive(Debug)]
pub struct EvictionHistory<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    routes: HashMap<K, RouteEvictions>,
    last: Option<Instant>,
}

impl<K> Default for EvictionHistory<K> {
    fn default() -> Self {
        Self(Mutex::new(State { routes: HashMap::new(), last: None }))
    }
}

impl<K: Clone + Eq + Hash> EvictionHistory<K> {
    /// The history of a route whose pods are these, and of these ages, without what is over by now.
    pub fn of(&self, route: &K, pods: &[SidecarPod], ages: &[SidecarAge], now: Instant) -> RouteEvictions {
        let mut state = self.lock();
        let Some(history) = state.routes.get_mut(route) else { return RouteEvictions::default() };
        let has_pods = |owner: &PodOwner| pods.iter().any(|pod| pod.owner.as_ref() == Some(owner));
        history.evicted.retain(|owner, evicted| has_pods(owner) && !evicted.is_replaced(owner, pods, ages));
        history.refused.retain(|_, until| *until > now);
        history.clone()
    }

    /// This replica leads from now on.
    pub fn begins(&self, now: Instant) {
        *self.lock() = State { routes: HashMap::new(), last: Some(now) };
    }

    /// Whether it is time for an eviction; then it counts as done.
    pub fn takes_turn(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let is_time = state.last.is_none_or(|last| now.saturating_duration_since(last) >= PACE);
        if is_time {
            state.last = Some(now);
        }
        is_time
    }

    /// A pod was evicted.
    pub fn evicted(&self, route: &K, owner: &PodOwner, evicted: EvictedPod) {
        self.lock().routes.entry(route.clone()).or_default().evicted.insert(owner.clone(), evicted);
    }

    /// The API server did not evict a pod, and is not asked again before that time.
    pub fn refused(&self, route: &K, owner: &PodOwner, until: Instant) {
        self.lock().routes.entry(route.clone()).or_default().refused.insert(owner.clone(), until);
    }

    /// The route is gone.
    pub fn forget(&self, route: &K) {
        self.lock().routes.remove(route);
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::samples;

    const fn route() -> &'static str {
        "notifications"
    }

    fn web() -> PodOwner {
        PodOwner { kind: "Deployment".into(), name: "web".into() }
    }

    #[test]
    fn an_eviction_is_over_when_a_new_pod_is_ready() {
        let (rollouts, now) = (EvictionHistory::default(), Instant::now());
        let before = [samples::current("web-1"), samples::current("web-2")];
        rollouts.evicted(&route(), &web(), EvictedPod::of(&before[0], &web(), &before));
        let waits_with = |pods: &[SidecarPod], age: SidecarAge| {
            let ages = vec![age; pods.len()];
            !rollouts.of(&route(), pods, &ages, now).evicted.is_empty()
        };
        let waits = |pods: &[SidecarPod]| waits_with(pods, SidecarAge::Current);
        assert!(waits(&before), "nothing has happened yet");
        assert!(waits(&before[1..]), "the others of before do not count");
        let mut new = samples::current("web-3");
        new.is_pod_ready = false;
        assert!(waits(&[before[1].clone(), new.clone()]));
        new.is_pod_ready = true;
        assert!(
            waits_with(&[before[1].clone(), new.clone()], SidecarAge::Outdated),
            "it is no better than the last"
        );
        assert!(!waits(&[before[1].clone(), new]));
        assert!(!waits(&before), "and it stays over");
    }

    #[test]
    fn an_owner_without_pods_is_forgotten() {
        let (rollouts, now) = (EvictionHistory::default(), Instant::now());
        let pods = [samples::current("web-1")];
        rollouts.evicted(&route(), &web(), EvictedPod::of(&pods[0], &web(), &pods));
        assert!(rollouts.of(&route(), &[], &[], now).evicted.is_empty());
    }

    #[test]
    fn evictions_keep_a_pace_and_refusals_end() {
        let (rollouts, now) = (EvictionHistory::default(), Instant::now());
        assert!(rollouts.takes_turn(now));
        assert!(!rollouts.takes_turn(now + PACE - Duration::from_millis(1)));
        assert!(rollouts.takes_turn(now + PACE));
        rollouts.refused(&route(), &web(), now + Duration::from_secs(30));
        let refused =
            |seconds| !rollouts.of(&route(), &[], &[], now + Duration::from_secs(seconds)).refused.is_empty();
        assert!(refused(29) && !refused(30));
    }

    #[test]
    fn a_change_of_leader_makes_it_no_faster_and_forgets_what_an_earlier_term_knew() {
        let (rollouts, now) = (EvictionHistory::default(), Instant::now());
        rollouts.refused(&route(), &web(), now + Duration::from_secs(30));
        rollouts.begins(now);
        assert!(!rollouts.takes_turn(now + PACE - Duration::from_millis(1)));
        assert!(rollouts.takes_turn(now + PACE));
        assert_eq!(rollouts.of(&route(), &[], &[], now), RouteEvictions::default());
    }

    #[test]
    fn a_route_that_is_gone_leaves_nothing() {
        let (rollouts, now) = (EvictionHistory::default(), Instant::now());
        rollouts.refused(&route(), &web(), now + PACE);
        rollouts.forget(&route());
        assert_eq!(rollouts.of(&route(), &[], &[], now), RouteEvictions::default());
    }
}
