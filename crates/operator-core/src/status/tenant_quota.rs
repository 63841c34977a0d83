//! The condition `SendersAccepted` of a route whose tenant has used up its external recipients, as another route found. Pure.
//!
//! It may be of another namespace, which is not believed: the condition becomes `Unknown`, `Ready` stays as it is, and nothing is held
//! because of it.

use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::aggregate::explanation;
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, UNKNOWN};

/// Adds what another route met, unless the route's own pods found a fault.
pub(super) fn judge(findings: &mut Vec<ConditionFinding>, facts: &RouteFacts<'_>, subject: &Subject<'_>) {
    let reason = Reason::TenantQuotaExceeded;
    let is_about = |it: &ConditionFinding| it.condition == ConditionType::SendersAccepted;
    // What it said earlier because of another route does not outlive that.
    findings.retain(|it| !(is_about(it) && it.status == UNKNOWN && it.reason == reason.as_str()));
    let own = findings.iter().position(is_about);
    if !facts.tenant_quota_met
        || own.is_some_and(|own| findings.get(own).is_some_and(|own| own.status == FALSE))
    {
        return;
    }
    let message = format!(
        "Another route of the tenant met this; mail of this one is sent until Microsoft 365 refuses it, too. {}",
        explanation(reason, subject)
    );
    let generation = facts.route.metadata.generation;
    let finding = ConditionFinding::new(ConditionType::SendersAccepted, UNKNOWN, reason, message, generation);
    match own.and_then(|own| findings.get_mut(own)) {
        Some(own) => *own = finding,
        None => findings.push(finding),
    }
}
