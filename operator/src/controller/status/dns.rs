//! The condition DnsPublished: advice on what the domains publish, which Ready knows nothing of. Pure.
//!
//! Until it is known anew, as after a change of leader or of domains, what was said before stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::ConditionType;

use super::Facts;
use super::finding::{FALSE, Finding, TRUE, UNKNOWN, find};
use crate::preflight::board::Notice;

pub(super) fn finding(facts: &Facts<'_>, previous: &[Condition]) -> Option<Finding> {
    let verdict = match facts.dns {
        Notice::None => return None,
        Notice::Pending => return find(previous, ConditionType::DnsPublished).and_then(Finding::kept),
        Notice::Known(verdict) => verdict.clone(),
    };
    let status = match verdict.holds {
        Some(true) => TRUE,
        Some(false) => FALSE,
        None => UNKNOWN,
    };
    let generation = facts.route.meta().generation;
    Some(Finding::new(ConditionType::DnsPublished, status, verdict.reason, verdict.message, generation))
}
