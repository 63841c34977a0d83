//! The condition DnsPublished: advice on what the domains publish, which Ready knows nothing of. Pure.
//!
//! Until it is known anew, as after a change of leader or of domains, what was said before stands.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason};

use super::compute::Facts;
use super::finding::{FALSE, Finding, TRUE, UNKNOWN, find};

/// What is known of the domains of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DnsNotice {
    /// Nobody looks, or the route has no domain to look at.
    #[default]
    None,
    /// Not all of its domains were looked at yet.
    Pending,
    /// All were.
    Known(DnsVerdict),
}

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsVerdict {
    /// Whether the domains publish what they should; none when name servers could not tell.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// In words, with the records to publish.
    pub message: String,
}

/// What the condition should say; none when nobody looks.
pub(super) fn finding(facts: &Facts<'_>, previous: &[Condition]) -> Option<Finding> {
    let verdict = match facts.dns {
        DnsNotice::None => return None,
        DnsNotice::Pending => return find(previous, ConditionType::DnsPublished).and_then(Finding::kept),
        DnsNotice::Known(verdict) => verdict.clone(),
    };
    let status = match verdict.holds {
        Some(true) => TRUE,
        Some(false) => FALSE,
        None => UNKNOWN,
    };
    let generation = facts.route.meta().generation;
    Some(Finding::new(ConditionType::DnsPublished, status, verdict.reason, verdict.message, generation))
}
