//! FederationFits: whether Entra takes as many federated credentials as the application's pods need. Pure.
//!
//! Advice, and left out while there is room.

use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};

use super::aggregate::explanation;
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE};

/// Federated credentials that Entra takes for one application (Microsoft Entra, "Important considerations and restrictions for
/// federated identity credentials").
const MOST: usize = 20;

/// As many as leave little room.
const MANY: usize = 18;

pub(super) fn finding(facts: &RouteFacts<'_>, subject: &Subject<'_>) -> Option<ConditionFinding> {
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
    Some(ConditionFinding::new(ConditionType::FederationFits, status, reason, message, generation))
}
