//! FederationFits: whether Entra takes as many federated credentials as the application's pods need. Pure.
//!
//! Advice, and left out while there is room.

use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::super::federation::{MANY, MOST};
use super::super::observe::explanation;
use super::Facts;
use super::finding::{FALSE, Finding, TRUE};

pub(super) fn finding(facts: &Facts<'_>, subject: &Subject<'_>) -> Option<Finding> {
    let (status, reason) = match facts.federated {
        0..MANY => return None,
        MANY..=MOST => (TRUE, Reason::FederationNearlyFull),
        _ => (FALSE, Reason::FederationFull),
    };
    let message = format!(
        "{} ServiceAccounts of this cluster use the application {}. {}",
        facts.federated,
        subject.client_id,
        explanation(reason, subject),
    );
    let generation = facts.route.meta().generation;
    Some(Finding::new(ConditionType::FederationFits, status, reason, message, generation))
}
