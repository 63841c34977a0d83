//! Ready: the operator has done its part, and nothing is known to be wrong. Pure.
//!
//! True also while no pod has shown that mail can flow, so that a deployment which waits for it ends; what pods have shown is in the
//! conditions that they observe, and [`is_shown`] sums it up.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason};

use super::aggregate::explanation;
use super::evidence::Evidence;
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE, UNKNOWN, find};
use super::{pods_refused, sidecars_reporting};
use crate::crd::MailRouteSpec;
use crate::crd::method::{Credential, CredentialType};

/// What the condition should say at `now`, given the others.
pub(super) fn finding(
    findings: &[ConditionFinding],
    facts: &RouteFacts<'_>,
    evidence: &Evidence<'_>,
    now: Timestamp,
) -> ConditionFinding {
    pods_refused::with(ready(findings, facts, evidence), facts, now)
}

/// Whether the route is Ready by these conditions, and pods have shown every part of the way that its method has.
pub fn is_shown(spec: &MailRouteSpec, conditions: &[Condition]) -> bool {
    let is_ready = find(conditions, ConditionType::Ready).is_some_and(|ready| ready.status == TRUE);
    is_ready && missing(spec, |condition| find(conditions, condition).is_some()).is_none()
}

/// The same of conditions that are not written yet.
pub(super) fn is_found(spec: &MailRouteSpec, findings: &[ConditionFinding]) -> bool {
    let is_ready = findings.iter().any(|it| it.condition == ConditionType::Ready && it.status == TRUE);
    is_ready && missing(spec, |condition| findings.iter().any(|it| it.condition == condition)).is_none()
}

/// The first failing condition on the way is the cause to name. The way is known to be open when a sidecar has met every part of it
/// that the method has; whether a message is taken shows with the first one.
fn ready(findings: &[ConditionFinding], facts: &RouteFacts<'_>, evidence: &Evidence<'_>) -> ConditionFinding {
    let generation = facts.route.meta().generation;
    let finding = |status, reason, message| {
        ConditionFinding::new(ConditionType::Ready, status, reason, message, generation)
    };
    let is_over = facts.pods.is_empty();
    let missing = missing(&facts.route.spec, |condition| findings.iter().any(|it| it.condition == condition));
    if let Some(failing) = findings.iter().find(|finding| finding.status == FALSE) {
        let is_of_pods = !matches!(failing.condition, ConditionType::Accepted | ConditionType::GatewayReady);
        let was_met = is_over && is_of_pods;
        return ConditionFinding {
            condition: ConditionType::Ready,
            status: FALSE,
            reason: failing.reason.clone(),
            message: format!(
                "{}: {}{}",
                failing.condition,
                failing.message,
                if was_met { MET_BY_THE_LAST } else { "" }
            ),
            generation,
        };
    }
    if let Some(silent) = sidecars_reporting::sentence(facts) {
        // Of the pods that report, mail is known to flow; of the others nothing is known.
        let (status, flows) = match (facts.silent.len() < facts.pods.len(), missing) {
            (true, None) => (TRUE, "Mail can flow from the others."),
            (true, Some(_)) => (TRUE, ""),
            (false, _) => (UNKNOWN, ""),
        };
        let message = format!("{silent} {flows}");
        return finding(status, Reason::SidecarsSilent, message.trim_end().to_owned());
    }
    match (missing, is_over) {
        (None, true) => {
            finding(TRUE, Reason::Ready, format!("{}{MET_BY_THE_LAST}", Reason::Ready.sentence()))
        }
        (None, false) => finding(TRUE, Reason::Ready, Reason::Ready.sentence().to_owned()),
        (Some(_), true) => finding(TRUE, Reason::NoPods, explanation(Reason::NoPods, evidence.subject)),
        (Some(_), false) if evidence.live.is_empty() => {
            finding(TRUE, Reason::WaitingForReports, explanation(Reason::WaitingForReports, evidence.subject))
        }
        (Some(condition), false) => finding(
            TRUE,
            Reason::WaitingForReports,
            format!(
                "Sidecars have reported, and none has {} yet, which {condition} will show. {}",
                step(condition),
                Reason::WaitingForReports.remedy(evidence.subject)
            ),
        ),
    }
}

/// Follows what Ready says of a route that no pod uses any more.
const MET_BY_THE_LAST: &str = " No pod uses the route now; this is what the last one met.";

/// The first part of the way that nothing is known of. By port 25 there is no log-in to try, so whether the tenant knows
/// the sidecar shows with the first message.
fn missing(spec: &MailRouteSpec, is_known: impl Fn(ConditionType) -> bool) -> Option<ConditionType> {
    let has_tokens = |credential: &Credential| credential.type_ != CredentialType::Password;
    let on_the_way = [
        (ConditionType::CertificateValid, presents_certificate(spec)),
        (ConditionType::CredentialReady, spec.credential().is_some_and(has_tokens)),
        (ConditionType::UpstreamReachable, true),
        (ConditionType::Authenticated, spec.mailbox().is_some()),
    ];
    let needed = on_the_way.into_iter().filter(|(_, is_needed)| *is_needed).map(|(condition, _)| condition);
    needed.into_iter().find(|condition| !is_known(*condition))
}

/// What a sidecar does that a condition tells of.
const fn step(condition: ConditionType) -> &'static str {
    match condition {
        ConditionType::CertificateValid => "read its certificate",
        ConditionType::CredentialReady => "obtained an access token",
        ConditionType::Authenticated => "logged in",
        _ => "connected to Microsoft 365",
    }
}

fn presents_certificate(spec: &MailRouteSpec) -> bool {
    spec.smtp_relay.as_ref().is_some_and(|relay| relay.certificate_secret_ref.is_some())
}
