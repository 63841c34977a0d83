//! The condition DnsPublished: advice on what the domains publish, which Ready knows nothing of. Pure.
//!
//! Until it is known anew, as after a change of leader or of domains, what was said before stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::ConditionType;

use super::facts::{DnsNotice, RouteFacts};
use super::finding::{ConditionFinding, FALSE, TRUE, UNKNOWN, find};

/// What the condition should say; none when nobody looks.
pub(super) fn finding(facts: &RouteFacts<'_>, previous: &[Condition]) -> Option<ConditionFinding> {
    let verdict = match facts.dns {
        DnsNotice::None => return None,
        DnsNotice::Pending => {
            return find(previous, ConditionType::DnsPublished).and_then(ConditionFinding::kept);
        }
        DnsNotice::Known(verdict) => verdict.clone(),
    };
    let status = match verdict.holds {
        Some(true) => TRUE,
        Some(false) => FALSE,
        None => UNKNOWN,
    };
    let generation = facts.route.meta().generation;
    Some(ConditionFinding::new(
        ConditionType::DnsPublished,
        status,
        verdict.reason,
        verdict.message,
        generation,
    ))
}
