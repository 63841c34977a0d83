//! Restarts pods whose sidecar is outdated, where their route says so: one step of the plan that `rollout` makes.
//!
//! Invariants: pods are evicted, never deleted, so a PodDisruptionBudget is obeyed; none while the route is not Ready, or
//! its pods have not shown that mail can flow.

use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt};
use mailroute_operator_core::pods::SidecarPod;
use mailroute_operator_core::rollout::PACE;
use mailroute_operator_core::rollout::history::EvictedPod;
use mailroute_operator_core::rollout::plan::RolloutPlan;

use super::context::{Context, Error};
use super::evict::{EvictionOutcome, evict};
use crate::cache::route::OpenRoute;
use crate::events::OwnReason;

/// After the API server refused an eviction, pods of the same owner are left alone this long.
const REFUSED: Duration = Duration::from_secs(30);

/// Evicts the pod that is next, if there is one and it is time. Returns when to look again, if sooner than usual.
///
/// # Errors
/// When the API server answers neither yes nor "not now".
pub async fn carry_out(
    route: &OpenRoute,
    pods: &[SidecarPod],
    plan: &RolloutPlan<'_>,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let Some(next) = &plan.next else { return Ok(None) };
    let (key, rollouts) = (route.reference(), &context.rollouts);
    if !rollouts.takes_turn(Instant::now()) {
        return Ok(Some(PACE));
    }
    let namespace = route.namespace().unwrap_or_default();
    let outcome = evict(context.client.clone(), &namespace, &next.pod.name, &next.pod.uid).await;
    context.metrics.eviction(outcome.as_ref().map_or("failed", |outcome| outcome.label()));
    let (pod, owner) = (&next.pod.name, next.owner);
    match outcome {
        Ok(EvictionOutcome::Evicted) => {
            rollouts.evicted(&key, owner, EvictedPod::of(next.pod, owner, pods));
            tracing::info!(namespace, pod, %owner, "evicted a pod whose sidecar is outdated");
            let note = format!("Pod {pod} of {owner} was evicted because its sidecar is outdated.");
            context.events.note(route.object_ref(&()), OwnReason::PodEvicted.as_str(), "Rollout", note);
        }
        Ok(EvictionOutcome::NotNow) => rollouts.refused(&key, owner, Instant::now() + REFUSED),
        Ok(EvictionOutcome::Gone) => {}
        Err(source) => {
            // The others need not wait for what is wrong with this one.
            rollouts.refused(&key, owner, Instant::now() + REFUSED);
            return Err(Error::Evict { pod: pod.clone(), source });
        }
    }
    Ok(Some(PACE))
}
