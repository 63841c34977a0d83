//! Accepted: whether the route makes sense, the platform lets its namespace have what it names, and it could be written. Pure.

use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::Report;

use super::aggregate::explanation;
use super::evidence::Evidence;
use super::facts::{Acceptance, RouteFacts};
use super::finding::{ConditionFinding, FALSE, TRUE};
use crate::inject::{SidecarSettings, refusal_of};
use crate::resolve::{NotAccepted, RouteResolution};

impl Acceptance {
    /// How far a route gets before anything is written. `platform` says what is injected.
    pub fn of(resolution: &RouteResolution, platform: &SidecarSettings) -> Self {
        match resolution.accepted() {
            Ok(route) => refusal_of(route, platform).map_or(Self::Rendered, Self::Refusing),
            Err(not_accepted) => Self::NotAccepted(not_accepted),
        }
    }
}

/// What the condition should say.
pub(super) fn finding(facts: &RouteFacts<'_>, evidence: &Evidence<'_>) -> ConditionFinding {
    let generation = facts.route.meta().generation;
    let said = |status, reason, message| {
        ConditionFinding::new(ConditionType::Accepted, status, reason, message, generation)
    };
    match facts.acceptance {
        Acceptance::Rendered => said(TRUE, Reason::Accepted, accepted_message(evidence.live)),
        Acceptance::Refusing(refusal) => said(
            FALSE,
            Reason::Invalid,
            format!("All pods of this route are refused. {refusal} {}", refusal.remedy()),
        ),
        Acceptance::NotAccepted(NotAccepted::Invalid(invalid)) => {
            said(FALSE, Reason::Invalid, format!("{invalid}."))
        }
        Acceptance::NotAccepted(NotAccepted::Identity(not_allowed)) => said(
            FALSE,
            Reason::OperatorIdentityNotAllowed,
            format!("{not_allowed}. {}", explanation(Reason::OperatorIdentityNotAllowed, evidence.subject)),
        ),
        Acceptance::NotAccepted(NotAccepted::Mailbox(not_allowed)) => said(
            FALSE,
            Reason::MailboxNotAllowed,
            format!("{not_allowed}. {}", explanation(Reason::MailboxNotAllowed, evidence.subject)),
        ),
        Acceptance::Unwritten(error) => said(
            FALSE,
            Reason::RenderFailed,
            format!("{error}. {}", explanation(Reason::RenderFailed, evidence.subject)),
        ),
    }
}

/// Sidecars that cannot use the newest configuration, or something of it, say so; they go on with the last good one, or without that.
fn accepted_message(reports: &[&Report]) -> String {
    let refusing: Vec<_> = reports.iter().filter_map(|report| report.config_error.as_deref()).collect();
    let sentence = Reason::Accepted.sentence();
    match refusing.first() {
        None => sentence.to_owned(),
        Some(error) => format!(
            "{sentence} {} of {} sidecars cannot use all of it and go on without: {error}. Restart those pods to get \
             the current sidecar.",
            refusing.len(),
            reports.len()
        ),
    }
}
