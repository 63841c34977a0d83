//! What an attempt changes: the status of each recipient, and what follows for those that wait.
//!
//! Pure. The sums of a message that is sent in several transactions are joined here.

use jiff::Timestamp;

use super::schedule::NextAttempt;
use crate::outcome::effect::{NextStep, RetryPace, concerns_route, effect};
use crate::outcome::{AttemptResult, DeliveryOutcome, Verdict};
use crate::spool::{DeliveryProblem, Entry, Progress, RecipientStatus};

/// [`DeliveryProblem::outcome`] of a recipient whose time to be tried is over.
pub const EXPIRED: &str = "expired";

/// What came of one transaction for the recipients that it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResult {
    /// How many the upstream has taken the message for.
    pub delivered: usize,
    /// How many it refused for good.
    pub failed: usize,
    /// What follows for the others; nothing when there are none.
    pub after: Option<NextAttempt>,
}

/// Takes in an attempt for the recipients at the positions `group` of the envelope.
pub fn apply(
    progress: &mut Progress,
    group: &[usize],
    attempt: &AttemptResult,
    now: Timestamp,
) -> GroupResult {
    let mut waiting = Vec::new();
    let (mut delivered, mut failed, mut untried) = (0, 0, 0);
    for (recipient, &position) in group.iter().enumerate() {
        let verdict = attempt.verdict_for(recipient);
        let Some(status) = progress.statuses.get_mut(position) else { continue };
        match verdict.outcome {
            _ if is_anothers(attempt, recipient) => untried += 1,
            DeliveryOutcome::Delivered => {
                *status = RecipientStatus::Delivered;
                delivered += 1;
            }
            _ if verdict.is_final() && effect(verdict.outcome).next == NextStep::GiveUp => {
                *status = RecipientStatus::Failed(problem(verdict, attempt.host.as_deref(), now));
                failed += 1;
            }
            _ => waiting.push(verdict),
        }
    }
    let after = match waiting.as_slice() {
        [] => (untried > 0).then_some(NextAttempt::GoOn),
        waiting => Some(after(attempt, waiting, delivered)),
    };
    if let Some(last) = waiting.last() {
        progress.last = Some(problem(last, attempt.host.as_deref(), now));
    }
    if after.is_some_and(|after| after != NextAttempt::Hold) {
        progress.attempts = progress.attempts.saturating_add(1);
    }
    GroupResult { delivered, failed, after }
}

/// Whether the message was not sent to this recipient only because another one was refused for good.
fn is_anothers(attempt: &AttemptResult, recipient: usize) -> bool {
    let own = attempt.refused.iter().any(|refused| refused.recipient == recipient);
    let spoken_for = attempt.refused.iter().any(|refused| refused.verdict == attempt.verdict);
    !own && spoken_for && attempt.verdict.outcome == DeliveryOutcome::RejectRecipient
}

/// What follows for recipients that wait.
fn after(attempt: &AttemptResult, waiting: &[&Verdict], delivered: usize) -> NextAttempt {
    // A fault met with one recipient while others get through is that recipient's, as far as the queue can tell.
    if concerns_route(attempt.verdict.outcome) {
        NextAttempt::Hold
    } else if delivered > 0 && waiting.iter().all(|verdict| is_too_many(verdict)) {
        NextAttempt::GoOn
    } else if waiting.iter().any(|verdict| asks_for_patience(verdict)) {
        NextAttempt::Patiently
    } else {
        NextAttempt::Again
    }
}

/// 4.5.3: too many recipients in one transaction (RFC 5321 §4.5.3.1.10).
fn is_too_many(verdict: &Verdict) -> bool {
    let enhanced = verdict.reply.as_ref().and_then(|reply| reply.enhanced);
    enhanced.is_some_and(|code| (code.class, code.subject, code.detail) == (4, 5, 3))
}

/// Grey-listing and reputation, which take minutes to hours; what an administrator has to grant.
fn asks_for_patience(verdict: &Verdict) -> bool {
    effect(verdict.outcome).next == NextStep::Retry(RetryPace::Late)
}

/// What is remembered of a verdict that was no delivery.
pub fn problem(verdict: &Verdict, host: Option<&str>, at: Timestamp) -> DeliveryProblem {
    DeliveryProblem {
        at,
        outcome: verdict.outcome.as_str().into(),
        reason: verdict.outcome.reason(),
        text: verdict.text.clone(),
        replied: verdict.reply.is_some(),
        host: host.map(str::to_owned),
    }
}

/// Takes in that the route's method cannot reach those that wait, for `why`. It is the message's own: with another method
/// it may go, so it is not given up before its time.
pub fn put_off(progress: &mut Progress, why: String, now: Timestamp) -> NextAttempt {
    let verdict = Verdict::without_reply(DeliveryOutcome::RejectRecipient, why);
    progress.last = Some(problem(&verdict, None, now));
    progress.attempts = progress.attempts.saturating_add(1);
    NextAttempt::Patiently
}

/// Whether what was met last says that no message of the route gets through, whoever met it.
pub fn waits_for_route(progress: &Progress) -> bool {
    let Some(DeliveryProblem { outcome, reason: Some(reason), .. }) = &progress.last else { return false };
    let (route, quota) = (DeliveryOutcome::RouteFault(*reason), DeliveryOutcome::Quota(*reason));
    let all = [route, quota, DeliveryOutcome::Transient(Some(*reason))];
    all.into_iter().any(|known| known.as_str() == outcome && concerns_route(known))
}

/// Gives up those that wait, for the trouble met last.
pub fn expire(progress: &mut Progress, now: Timestamp) -> usize {
    let last = progress.last.clone().unwrap_or_else(|| DeliveryProblem {
        at: now,
        outcome: EXPIRED.into(),
        reason: None,
        text: "not tried within its time".into(),
        replied: false,
        host: None,
    });
    let mut expired = 0;
    for status in progress.statuses.iter_mut().filter(|status| **status == RecipientStatus::Waiting) {
        *status = RecipientStatus::Failed(DeliveryProblem { outcome: EXPIRED.into(), ..last.clone() });
        expired += 1;
    }
    expired
}

/// The recipients that wait, as positions in the envelope.
pub fn waiting(progress: &Progress) -> Vec<usize> {
    let waiting =
        progress.statuses.iter().enumerate().filter(|(_, status)| **status == RecipientStatus::Waiting);
    waiting.map(|(position, _)| position).collect()
}

/// The recipients at `positions` of the envelope alone.
pub fn part(entry: &Entry, positions: &[usize]) -> crate::message::envelope::Envelope {
    let all = &entry.envelope.recipients;
    let recipients = positions.iter().filter_map(|&position| all.get(position).cloned()).collect();
    crate::message::envelope::Envelope { recipients, ..entry.envelope.clone() }
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;

    use super::*;
    use crate::outcome::RefusedRecipient;
    use crate::outcome::classify::{Stage, classify};
    use crate::smtp::reply::Reply;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn verdict(outcome: DeliveryOutcome, line: &str) -> Verdict {
        Verdict::of_reply(outcome, Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0)
    }

    fn delivered() -> Verdict {
        verdict(DeliveryOutcome::Delivered, "250 2.0.0 OK")
    }

    fn unknown() -> Verdict {
        verdict(DeliveryOutcome::RejectRecipient, "550 5.1.10 unknown")
    }

    fn busy() -> Verdict {
        verdict(DeliveryOutcome::Transient(None), "452 4.2.2 busy")
    }

    fn attempt(verdict: Verdict, refused: Vec<(usize, Verdict)>) -> AttemptResult {
        let refused =
            refused.into_iter().map(|(recipient, verdict)| RefusedRecipient { recipient, verdict }).collect();
        AttemptResult { verdict, refused, observations: vec![], host: Some("host".into()) }
    }

    fn progress(recipients: usize) -> Progress {
        Progress {
            attempts: 0,
            next: NOW,
            since: None,
            reserved_until: None,
            statuses: vec![RecipientStatus::Waiting; recipients],
            last: None,
        }
    }

    fn after_one(verdict: Verdict) -> (Option<NextAttempt>, u32) {
        let mut progress = progress(1);
        let step = apply(&mut progress, &[0], &attempt(verdict, vec![]), NOW);
        (step.after, progress.attempts)
    }

    #[test]
    fn each_recipient_has_the_fate_it_met() {
        let mut progress = progress(4);
        // The transaction was for the last three.
        let attempt = attempt(delivered(), vec![(0, unknown()), (2, busy())]);
        let step = apply(&mut progress, &[1, 2, 3], &attempt, NOW);
        assert_eq!(step, GroupResult { delivered: 1, failed: 1, after: Some(NextAttempt::Again) });
        assert_eq!(waiting(&progress), [0, 3]);
        assert!(
            matches!(&progress.statuses[1], RecipientStatus::Failed(problem) if problem.text == "550 5.1.10 unknown"),
            "{:?}",
            progress.statuses
        );
        assert_eq!(progress.statuses[2], RecipientStatus::Delivered);
        assert_eq!(progress.last.unwrap().text, "452 4.2.2 busy");
    }

    #[test]
    fn who_was_not_tried_because_of_another_goes_on() {
        let mut two = progress(2);
        let step = apply(&mut two, &[0, 1], &attempt(unknown(), vec![(0, unknown())]), NOW);
        assert_eq!(step, GroupResult { delivered: 0, failed: 1, after: Some(NextAttempt::GoOn) });
        assert_eq!(waiting(&two), [1]);
    }

    #[test]
    fn trouble_of_the_route_holds_and_is_not_counted() {
        for outcome in [
            DeliveryOutcome::RouteFault(Reason::SmtpAuthDisabledTenant),
            DeliveryOutcome::Quota(Reason::DailyQuotaExceeded),
            DeliveryOutcome::Transient(Some(Reason::ConnectFailed)),
            DeliveryOutcome::Transient(Some(Reason::TokenServiceThrottled)),
        ] {
            let met = after_one(Verdict::without_reply(outcome, "x"));
            assert_eq!(met, (Some(NextAttempt::Hold), 0), "{outcome:?}");
        }
    }

    #[test]
    fn trouble_of_the_route_is_known_from_what_was_written_down() {
        let last = |outcome| {
            let mut progress = progress(1);
            apply(&mut progress, &[0], &attempt(Verdict::without_reply(outcome, "x"), vec![]), NOW);
            waits_for_route(&progress)
        };
        for outcome in [
            DeliveryOutcome::RouteFault(Reason::SmtpAuthDisabledTenant),
            DeliveryOutcome::Quota(Reason::DailyQuotaExceeded),
            DeliveryOutcome::Transient(Some(Reason::ConnectFailed)),
        ] {
            assert!(last(outcome), "{outcome:?}");
        }
        for outcome in [
            DeliveryOutcome::Transient(None),
            DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError)),
            DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)),
        ] {
            assert!(!last(outcome), "{outcome:?}");
        }
        assert!(!waits_for_route(&progress(1)));
    }

    #[test]
    fn trouble_of_the_message_is_counted() {
        assert_eq!(after_one(busy()), (Some(NextAttempt::Again), 1));
        let broken = DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError));
        assert_eq!(after_one(Verdict::without_reply(broken, "cut")), (Some(NextAttempt::Again), 1));
    }

    #[test]
    fn a_sender_that_is_denied_waits_for_an_administrator() {
        let denied = verdict(
            DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)),
            "554 5.2.252 SendAsDenied; a@contoso.com not allowed to send as b@contoso.com",
        );
        assert!(denied.is_final(), "who waits for the answer is told");
        assert_eq!(after_one(denied), (Some(NextAttempt::Patiently), 1));
    }

    /// Set on purpose, by the recipient's owner or the tenant; and each further attempt is an error that Exchange counts.
    #[test]
    fn a_restriction_of_the_recipient_is_no_promise_broken() {
        for line in [
            "550 5.7.124 Sender not in allowed-senders list",
            "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required",
            "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required",
            "550 5.7.136 RESOLVER.RST.SenderNotAuthenticatedForMailUser; authentication required",
            "550 5.7.703 Your message can't be delivered because one or more recipients are blocked",
        ] {
            let reply = Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0;
            let refused = Verdict::of_reply(classify(Stage::Message, &reply), reply);
            assert!(refused.is_final(), "{line}");
            assert_eq!(after_one(refused).0, None, "{line}");
        }
    }

    #[test]
    fn grey_listing_asks_for_patience() {
        let grey = || {
            let outcome = DeliveryOutcome::Transient(Some(Reason::EgressAddressDeferred));
            verdict(outcome, "451 4.7.500 Server busy. Please try again later")
        };
        let mut two = progress(2);
        let step = apply(&mut two, &[0, 1], &attempt(delivered(), vec![(1, grey())]), NOW);
        assert_eq!((step.after, two.attempts), (Some(NextAttempt::Patiently), 1));
        assert_eq!(after_one(grey()), (Some(NextAttempt::Hold), 0), "met when connecting, it is everybody's");
    }

    #[test]
    fn what_was_only_too_many_goes_on_while_some_get_through() {
        let many = || verdict(DeliveryOutcome::Transient(None), "452 4.5.3 Too many recipients");
        let mut two = progress(2);
        let step = apply(&mut two, &[0, 1], &attempt(delivered(), vec![(1, many())]), NOW);
        assert_eq!(step.after, Some(NextAttempt::GoOn));
        assert_eq!(after_one(many()).0, Some(NextAttempt::Again), "nobody got through");
    }

    #[test]
    fn one_recipients_fault_beside_a_delivery_does_not_hold_the_route() {
        let blocked = verdict(DeliveryOutcome::RouteFault(Reason::TenantBlocked), "550 5.7.705 blocked");
        let mut two = progress(2);
        let step = apply(&mut two, &[0, 1], &attempt(delivered(), vec![(1, blocked)]), NOW);
        assert_eq!(step.after, Some(NextAttempt::Again));
    }

    #[test]
    fn a_refusal_that_the_upstream_did_not_make_for_good_is_not_final() {
        assert!(unknown().is_final());
        assert!(!Verdict::without_reply(DeliveryOutcome::RejectMessage(None), "odd").is_final());
    }

    #[test]
    fn what_expires_keeps_the_last_trouble() {
        let mut two = progress(2);
        two.statuses[0] = RecipientStatus::Delivered;
        apply(&mut two, &[1], &attempt(busy(), vec![]), NOW);
        assert_eq!(expire(&mut two, NOW), 1);
        assert!(
            matches!(&two.statuses[1], RecipientStatus::Failed(problem)
                if problem.outcome == EXPIRED && problem.text == "452 4.2.2 busy" && problem.replied),
            "{:?}",
            two.statuses
        );
        assert_eq!(two.statuses[0], RecipientStatus::Delivered);
    }
}
