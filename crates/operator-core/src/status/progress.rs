//! Stalled and Reconciling: whether whoever waits for the operator has to go on waiting. Pure.
//!
//! Both are as kstatus reads them, the library by which Helm, Flux and others wait: shown only while they are True. What pods find
//! is in neither: the operator's part is done before.

use mailroute_route::condition::ConditionType;

use super::facts::{Acceptance, RouteFacts};
use super::finding::{ConditionFinding, TRUE};

/// What the condition should say, in the words of `accepted`; none when the operator has done its part.
pub(super) fn finding(facts: &RouteFacts<'_>, accepted: &ConditionFinding) -> Option<ConditionFinding> {
    let condition = match facts.acceptance {
        Acceptance::Rendered => return None,
        // Only a change of the spec, or of the platform's settings, helps.
        Acceptance::NotAccepted(_) | Acceptance::Refusing(_) => ConditionType::Stalled,
        Acceptance::Unwritten(_) => ConditionType::Reconciling,
    };
    Some(ConditionFinding {
        condition,
        status: TRUE,
        reason: accepted.reason.clone(),
        message: accepted.message.clone(),
        generation: accepted.generation,
    })
}
