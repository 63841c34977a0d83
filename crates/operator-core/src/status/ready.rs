//! Ready: the sum of the other conditions, and of what the webhook refuses. Pure.

use jiff::Timestamp;
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason};

use super::aggregate::explanation;
use super::evidence::Evidence;
use super::facts::RouteFacts;
use super::finding::{ConditionFinding, FALSE, TRUE, UNKNOWN};
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

/// Ready is the sum: the first failing condition on the way is the cause to name. The way is known to be open when a
/// sidecar has met every part of it that the method has; whether a message is taken shows with the first one.
fn ready(findings: &[ConditionFinding], facts: &RouteFacts<'_>, evidence: &Evidence<'_>) -> ConditionFinding {
    let generation = facts.route.meta().generation;
    let finding = |status, reason, message| {
        ConditionFinding::new(ConditionType::Ready, status, reason, message, generation)
    };
    let is_over = facts.pods.is_empty();
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
        let speak = facts.silent.len() < facts.pods.len() && missing(&facts.route.spec, findings).is_none();
        let (status, flows) = if speak { (TRUE, "Mail can flow from the others.") } else { (UNKNOWN, "") };
        let message = format!("{silent} {flows}");
        return finding(status, Reason::SidecarsSilent, message.trim_end().to_owned());
    }
    match (missing(&facts.route.spec, findings), is_over) {
        (None, true) => {
            finding(TRUE, Reason::Ready, format!("{}{MET_BY_THE_LAST}", Reason::Ready.sentence()))
        }
        (None, false) => finding(TRUE, Reason::Ready, Reason::Ready.sentence().to_owned()),
        (Some(_), true) => finding(UNKNOWN, Reason::NoPods, explanation(Reason::NoPods, evidence.subject)),
        (Some(_), false) if evidence.live.is_empty() => finding(
            UNKNOWN,
            Reason::WaitingForReports,
            explanation(Reason::WaitingForReports, evidence.subject),
        ),
        (Some(condition), false) => finding(
            UNKNOWN,
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
fn missing(spec: &MailRouteSpec, findings: &[ConditionFinding]) -> Option<ConditionType> {
    let has_tokens = |credential: &Credential| credential.type_ != CredentialType::Password;
    let on_the_way = [
        (ConditionType::CertificateValid, presents_certificate(spec)),
        (ConditionType::CredentialReady, spec.credential().is_some_and(has_tokens)),
        (ConditionType::UpstreamReachable, true),
        (ConditionType::Authenticated, spec.mailbox().is_some()),
    ];
    let needed = on_the_way.into_iter().filter(|(_, is_needed)| *is_needed).map(|(condition, _)| condition);
    needed.into_iter().find(|condition| !findings.iter().any(|f| f.condition == *condition))
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
