//! Pods whose sidecar is not as a new pod would get it: which they are, and, where the route says so, their restart.
//!
//! ```text
//!  pods, route, platform ─► age ─► plan ─► status (named in SidecarsCurrent)
//!                                   │ next, while the route is Ready
//!                                   ▼
//!                                  pace ─► evict (client) ─► history
//! ```
//! * [`age`]: current or not. [`mod@plan`]: who may go next, and what each of the others waits for. [`history`]: what was
//!   evicted and not replaced yet. All pure. [`mod@evict`]: the one call.
//!
//! Invariants: pods are evicted, never deleted, so a PodDisruptionBudget is obeyed; one at a time for each owner, and the
//! next when a new pod has taken its place and is ready; none without a controller that makes it again, none that runs to an
//! end, and none that holds mail; none while the route is not Ready or a new sidecar is not.

pub mod age;
pub mod evict;
pub mod history;
pub mod plan;

use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use self::evict::{Outcome, evict};
use self::history::Evicted;
use self::plan::Plan;
use super::pods::SidecarPod;
use super::{Context, Error};
use crate::crd::MailRoute;
use crate::events::OwnReason;

/// Between two evictions of all routes together: twelve a minute.
pub const PACE: Duration = Duration::from_secs(5);

/// After the API server refused an eviction, pods of the same owner are left alone this long.
const REFUSED: Duration = Duration::from_secs(30);

/// Evicts the pod that is next, if there is one and it is time. Returns when to look again, if sooner than usual.
///
/// # Errors
/// When the API server answers neither yes nor "not now".
pub async fn carry_out(
    route: &MailRoute,
    pods: &[SidecarPod],
    plan: &Plan<'_>,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let Some(next) = &plan.next else { return Ok(None) };
    let (key, rollouts) = (ObjectRef::from_obj(route), &context.rollouts);
    if !rollouts.takes_turn(Instant::now()) {
        return Ok(Some(PACE));
    }
    let namespace = route.namespace().unwrap_or_default();
    let outcome = evict(context.client.clone(), &namespace, &next.pod.name, &next.pod.uid).await;
    context.metrics.eviction(outcome.as_ref().map_or("failed", |outcome| outcome.label()));
    let (pod, owner) = (&next.pod.name, next.owner);
    match outcome {
        Ok(Outcome::Evicted) => {
            rollouts.evicted(&key, owner, Evicted::of(next.pod, owner, pods));
            tracing::info!(namespace, pod, %owner, "evicted a pod whose sidecar is outdated");
            let note = format!("Pod {pod} of {owner} was evicted, as its sidecar is outdated.");
            context.events.note(route.object_ref(&()), OwnReason::PodEvicted.as_str(), "Rollout", note);
        }
        Ok(Outcome::NotNow) => rollouts.refused(&key, owner, Instant::now() + REFUSED),
        Ok(Outcome::Gone) => {}
        Err(source) => {
            // The others need not wait for what is wrong with this one.
            rollouts.refused(&key, owner, Instant::now() + REFUSED);
            return Err(Error::Evict { pod: pod.clone(), source });
        }
    }
    Ok(Some(PACE))
}
