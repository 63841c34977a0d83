//! The whole status of a route from what is known of it. Pure: time and the previous status are passed in.
//!
//! Invariants: equal facts give an equal status, whatever the time, so that nothing is written when nothing changed. A
//! condition's transition time moves only with its status. A condition without evidence is left out, apart from Accepted
//! and Ready, which are always there.
//!
//! What was found stands when the pods that found it have ended, as long as the spec is the same: nobody has found anything
//! else, and a person may look only after a Job has failed. It stands until a newer pod finds otherwise, or has been there
//! for three intervals and says nothing of it. After a change of leader the reports come in again one by one. Until all
//! have, or three intervals have passed, what the leader before found stands, unless a fault is reported. Both rules are in
//! `evidence`.

mod currency;
mod dns;
mod evidence;
mod finding;
mod refusal;
mod room;
pub mod silence;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::Resource;
use mailroute_route::condition::{ConditionType, Reason, Subject};
use mailroute_route::control::Report;

use self::evidence::{Evidence, Gathered};
use self::finding::{FALSE, Finding, TRUE, UNKNOWN};
use self::silence::Silent;
use super::accept::MailboxNotAllowed;
use super::observe::explanation;
use super::pods::{BarePod, SidecarPod};
use super::rollout::plan::Plan;
use super::validate::Invalid;
use super::way;
use crate::broker::settings::{Application, NotAllowed};
use crate::control::reports::Received;
use crate::crd::method::{ClientSubmission, CredentialType};
use crate::crd::status::{QueueStatus, Sidecars, UsageStatus};
use crate::crd::{MailRoute, MailRouteSpec, MailRouteStatus};
use crate::inject::Refusal;
use crate::preflight::board::Notice;

/// How far the route got on its way to its sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Its configuration is rendered.
    Rendered,
    /// It is, and the pods that it describes would be refused.
    Refusing(Refusal),
    /// It cannot be rendered.
    Invalid(Invalid),
    /// It may not use the operator's identity.
    NotAllowed(NotAllowed),
    /// Its namespace may not send as the mailbox.
    MailboxNotAllowed(MailboxNotAllowed),
    /// It could not be written, for this reason.
    Unwritten(String),
}

/// What is known of a route.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The route, with the status that it has.
    pub route: &'a MailRoute,
    /// How far it got.
    pub acceptance: &'a Acceptance,
    /// The application that it is lent, where it uses the operator's identity.
    pub lent: Option<&'a Application>,
    /// Its pods that have the sidecar and have not ended.
    pub pods: &'a [SidecarPod],
    /// Its pods that have no sidecar and have not ended.
    pub bare: &'a [BarePod],
    /// The fresh reports for it, by pod uid.
    pub reports: &'a BTreeMap<String, Received>,
    /// While this leader is so new that reports may still be on their way: since when it leads.
    pub settling: Option<Timestamp>,
    /// Which of the pods have an outdated sidecar, and what becomes of them.
    pub rollout: &'a Plan<'a>,
    /// How many ServiceAccounts the application of the route has to trust in this cluster; 0 when none.
    pub federated: usize,
    /// What its domains publish in DNS.
    pub dns: &'a Notice,
    /// Its sidecars that run and do not report.
    pub silent: &'a [Silent],
    /// Messages that were left in pods that have ended, since the route was created.
    pub lost: u64,
}

/// The names that remedies mention.
struct Names {
    endpoint: Option<String>,
    authority: String,
}

/// The status that the route should have at `now`.
pub fn compute(facts: &Facts<'_>, now: Timestamp) -> MailRouteStatus {
    let previous = facts.route.status.clone().unwrap_or_default();
    let names = names(facts);
    let subject = subject(facts.route, &names);
    let reports = Gathered::of(facts);
    let evidence = Evidence::new(facts, &reports, &previous.conditions, &subject, now);
    let settling = evidence.settling;
    let mut findings = findings(facts, &evidence, now);
    findings.extend(dns::finding(facts, &previous.conditions));
    let reports = reports.live;
    let (mut queue, mut usage) = sums(&reports);
    let mut sidecars = sidecars(facts);
    if settling.is_some() {
        if previous.observed_generation == facts.route.meta().generation {
            sidecars.converged = sidecars.converged.max(previous.sidecars.converged).min(sidecars.injected);
        }
        (queue, usage) = (no_shorter(queue, previous.queue), no_smaller(usage, previous.usage));
    }
    queue.lost = facts.lost;
    usage.messages_last_minute = usage.messages_last_minute.saturating_add(sent_by_ended(facts, now));
    MailRouteStatus {
        observed_generation: facts.route.meta().generation,
        conditions: findings
            .into_iter()
            .map(|finding| finding.into_condition(&previous.conditions, now))
            .collect(),
        sender: way::sender(&facts.route.spec),
        endpoint: names.endpoint,
        sidecars,
        queue,
        usage,
        // Not the leader's to write.
        refused: None,
    }
}

fn findings(facts: &Facts<'_>, evidence: &Evidence<'_>, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![accepted(facts, evidence)];
    findings.extend(ConditionType::OBSERVED.into_iter().filter_map(|condition| evidence.finding(condition)));
    let ready = ready(&findings, facts, evidence);
    findings.push(refusal::with(ready, facts, now));
    findings.extend(currency::finding(facts, &findings, evidence.subject));
    findings.extend(silence::finding(facts, evidence.subject));
    findings.extend(room::finding(facts, evidence.subject));
    findings
}

fn accepted(facts: &Facts<'_>, evidence: &Evidence<'_>) -> Finding {
    let generation = facts.route.meta().generation;
    let finding =
        |status, reason, message| Finding::new(ConditionType::Accepted, status, reason, message, generation);
    match facts.acceptance {
        Acceptance::Rendered => finding(TRUE, Reason::Accepted, accepted_message(evidence.live)),
        Acceptance::Refusing(refusal) => finding(
            FALSE,
            Reason::Invalid,
            format!("All pods of this route are refused. {refusal} {}", refusal.remedy()),
        ),
        Acceptance::Invalid(invalid) => finding(FALSE, Reason::Invalid, format!("{invalid}.")),
        Acceptance::NotAllowed(not_allowed) => finding(
            FALSE,
            Reason::OperatorIdentityNotAllowed,
            format!("{not_allowed}. {}", explanation(Reason::OperatorIdentityNotAllowed, evidence.subject)),
        ),
        Acceptance::MailboxNotAllowed(not_allowed) => finding(
            FALSE,
            Reason::MailboxNotAllowed,
            format!("{not_allowed}. {}", explanation(Reason::MailboxNotAllowed, evidence.subject)),
        ),
        Acceptance::Unwritten(error) => finding(
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

/// Ready is the sum: the first failing condition on the way is the cause to name. The way is known to be open when a
/// sidecar has met every part of it that the method has; whether a message is taken shows with the first one.
fn ready(findings: &[Finding], facts: &Facts<'_>, evidence: &Evidence<'_>) -> Finding {
    let generation = facts.route.meta().generation;
    let finding =
        |status, reason, message| Finding::new(ConditionType::Ready, status, reason, message, generation);
    let is_over = facts.pods.is_empty();
    if let Some(failing) = findings.iter().find(|finding| finding.status == FALSE) {
        let was_met = is_over && failing.condition != ConditionType::Accepted;
        return Finding {
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
    if let Some(silent) = silence::sentence(facts) {
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
fn missing(spec: &MailRouteSpec, findings: &[Finding]) -> Option<ConditionType> {
    let has_tokens = |submission: &ClientSubmission| submission.credential.type_ != CredentialType::Password;
    let on_the_way = [
        (ConditionType::CertificateValid, presents_certificate(spec)),
        (ConditionType::CredentialReady, spec.client_submission.as_ref().is_some_and(has_tokens)),
        (ConditionType::UpstreamReachable, true),
        (ConditionType::Authenticated, spec.client_submission.is_some()),
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

fn sidecars(facts: &Facts<'_>) -> Sidecars {
    let generation = facts.route.meta().generation.unwrap_or_default();
    let is_converged = |pod: &&SidecarPod| {
        let reported = facts.reports.get(&pod.uid).map(|reported| &reported.report);
        reported.is_some_and(|report| report.generation >= generation && report.config_error.is_none())
    };
    Sidecars {
        injected: count(facts.pods.iter()),
        ready: count(facts.pods.iter().filter(|pod| pod.ready)),
        converged: count(facts.pods.iter().filter(is_converged)),
        outdated: count(facts.rollout.outdated.iter()),
        missing: count(facts.bare.iter()),
        silent: count(facts.silent.iter()),
    }
}

fn sums(reports: &[&Report]) -> (QueueStatus, UsageStatus) {
    let sum =
        |of: fn(&Report) -> u64| reports.iter().fold(0_u64, |sum, report| sum.saturating_add(of(report)));
    let queue = QueueStatus {
        messages: sum(|r| r.queue.messages),
        oldest_seconds: reports.iter().map(|r| r.queue.oldest_seconds).max().unwrap_or_default(),
        dead_letters: sum(|r| r.queue.dead_letters),
        lost: 0,
    };
    let usage = UsageStatus {
        messages_last_minute: sum(|r| r.usage.messages_last_minute),
        recipients_last_24h: sum(|r| r.usage.recipients_last_24h),
    };
    (queue, usage)
}

/// Messages that pods sent in the last minute which have ended since.
fn sent_by_ended(facts: &Facts<'_>, now: Timestamp) -> u64 {
    let is_live = |uid: &str| facts.pods.iter().any(|pod| pod.uid == uid);
    let ended = facts.reports.iter().filter(|(uid, _)| !is_live(uid)).map(|(_, received)| received);
    let late = ended.filter(|received| now.duration_since(received.at) < SignedDuration::from_mins(1));
    late.fold(0, |sum, received| sum.saturating_add(received.report.usage.messages_last_minute))
}

fn no_shorter(sum: QueueStatus, before: QueueStatus) -> QueueStatus {
    QueueStatus {
        messages: sum.messages.max(before.messages),
        oldest_seconds: sum.oldest_seconds.max(before.oldest_seconds),
        dead_letters: sum.dead_letters.max(before.dead_letters),
        lost: before.lost,
    }
}

fn no_smaller(sum: UsageStatus, before: UsageStatus) -> UsageStatus {
    UsageStatus {
        messages_last_minute: sum.messages_last_minute.max(before.messages_last_minute),
        recipients_last_24h: sum.recipients_last_24h.max(before.recipients_last_24h),
    }
}

fn names(facts: &Facts<'_>) -> Names {
    let (spec, lent) = (&facts.route.spec, facts.lent);
    Names {
        endpoint: way::method(spec, lent).ok().as_ref().map(way::place),
        authority: lent.map_or_else(|| way::authority(spec), Application::token_authority).host,
    }
}

/// What a route has none of is named as the reference of reasons names it.
fn subject<'a>(route: &'a MailRoute, names: &'a Names) -> Subject<'a> {
    let submission = route.spec.client_submission.as_ref();
    let client_id = submission.and_then(|submission| submission.credential.client_id.as_deref());
    Subject {
        mailbox: submission.map_or("<mailbox>", |submission| &submission.mailbox),
        client_id: client_id.unwrap_or("<client id>"),
        tenant: &route.spec.tenant.id,
        endpoint: names.endpoint.as_deref().unwrap_or("<endpoint>"),
        authority: &names.authority,
        secret: way::secret(&route.spec).map_or("<secret>", |(name, _)| name),
        key: way::secret(&route.spec).and_then(|(_, key)| key).unwrap_or("<key>"),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
