//! What Ready says while pods of the route are refused. Pure.

use jiff::{SignedDuration, Timestamp};
use kube::Resource;
use mailroute_route::condition::Reason;

use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE};
use crate::crd::status::RefusedPod;

/// For so long a refusal stands without another one: a controller tries again after 17 minutes at the latest.
const STANDS_FOR: SignedDuration = SignedDuration::from_mins(20);

/// Ready with what is refused. A fault that was found goes first; pods that run are not concerned.
pub(super) fn with(ready: ConditionFinding, facts: &RouteFacts<'_>, now: Timestamp) -> ConditionFinding {
    let Some(refused) = current(facts, now).filter(|_| ready.status != FALSE) else { return ready };
    let message = format!("The pod {} was refused: {}", refused.pod, refused.message);
    let reason = Reason::PodsRefused.as_str().into();
    if facts.pods.is_empty() {
        return ConditionFinding { status: FALSE, reason, message, ..ready };
    }
    ConditionFinding { reason, message: format!("{message} Of the running pods: {}", ready.message), ..ready }
}

/// The refusal that stands: of the spec as it is now, of late, and with no pod let in since.
fn current<'a>(facts: &RouteFacts<'a>, now: Timestamp) -> Option<&'a RefusedPod> {
    let refused = facts.route.status.as_ref()?.refused.as_ref()?;
    let is_of_now = refused.observed_generation == facts.route.meta().generation;
    let is_recent = now.duration_since(refused.at.0) < STANDS_FOR;
    let is_over = facts.pods.iter().any(|pod| pod.created.is_some_and(|created| created > refused.at.0));
    (is_of_now && is_recent && !is_over).then_some(refused)
}
