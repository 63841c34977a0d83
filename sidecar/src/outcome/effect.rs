//! What follows from an outcome, in one place: for the message, for the budget, for the breaker and for the condition.
//!
//! | Outcome | Message | Budget | Breaker | Condition |
//! | --- | --- | --- | --- | --- |
//! | delivered | done | message and recipients count | closes | holds |
//! | transient | tried again | as far as it is known | short pause when the way is closed | of the reason |
//! | fault of the route, new token | held | as far as it is known | opens, longer each time | of the reason |
//! | quota | held | smaller and slower, for a rate | opens, for a day's quota | of the reason |
//! | recipient or message refused | given up | the message counts | the error is remembered | of the reason |
//! | refused, and an administrator can end it | tried again | the message counts | the error is remembered | of the reason |
//!
//! Pure. The metric is the outcome's name and reason ([`DeliveryOutcome::as_str`]). The queue, the rate limiter and the
//! breaker do as they are told here; none of them looks at outcomes by itself.

use mailroute_route::condition::{ConditionType, Reason};

use super::{AttemptResult, DeliveryOutcome, Verdict};
use crate::budget::Amount;
use crate::budget::Throttled;

/// What becomes of a message, or of a recipient, that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// It is done.
    Done,
    /// It is tried again, and the attempt counts.
    Retry(RetryPace),
    /// It waits until the trouble is over, and the attempt does not count: the message is good.
    Hold,
    /// Trying again will not help.
    GiveUp,
}

/// How soon to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryPace {
    /// From seconds on.
    Soon,
    /// From minutes on: asking again soon makes it worse.
    Late,
}

/// How long the upstream is left alone, in units of the breaker, which are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pause {
    /// The first time.
    pub first: u32,
    /// At most.
    pub longest: u32,
    /// What it grows by in between.
    pub growth: Growth,
}

/// How a pause grows while the same is met again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Growth {
    /// Doubled each time: the upstream minds being asked.
    Doubling,
    /// A quarter of the time that it lasts: whoever could not be reached is back as soon as possible, and a short outage is over for
    /// mail soon after it is over.
    Quarter,
}

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;

const fn pause(first: u32, longest: u32) -> Option<Pause> {
    Some(Pause { first, longest, growth: Growth::Doubling })
}

/// All that follows from one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// For the message or recipient.
    pub next: NextStep,
    /// For the budget: it was too much.
    pub throttle: Option<Throttled>,
    /// For the breaker: leave the upstream alone. Nothing for what may be different with the next message.
    pub pause: Option<Pause>,
    /// For the condition: the reason to show.
    pub reason: Option<Reason>,
}

/// What follows from `outcome`.
pub const fn effect(outcome: DeliveryOutcome) -> Effect {
    let (next, throttle, pause) = match outcome {
        DeliveryOutcome::Delivered => (NextStep::Done, None, None),
        DeliveryOutcome::Transient(reason) => {
            (NextStep::Retry(patience(reason)), None, pause_of_transient(reason))
        }
        DeliveryOutcome::RefreshToken => {
            (NextStep::Hold, None, pause_of_fault(Reason::ExchangeRejectedToken))
        }
        DeliveryOutcome::RouteFault(reason) => (NextStep::Hold, None, pause_of_fault(reason)),
        DeliveryOutcome::Quota(reason) => (NextStep::Hold, throttle(reason), pause_of_quota(reason)),
        // A right to send as the sender can be granted, or the route changed back; the message is good.
        DeliveryOutcome::RejectMessage(Some(_)) => (NextStep::Retry(RetryPace::Late), None, None),
        DeliveryOutcome::RejectRecipient | DeliveryOutcome::RejectMessage(None) => {
            (NextStep::GiveUp, None, None)
        }
    };
    Effect { next, throttle, pause, reason: outcome.reason() }
}

const fn patience(reason: Option<Reason>) -> RetryPace {
    match reason {
        Some(
            Reason::EgressAddressDeferred
            | Reason::ErrorsHeldBack
            // Each attempt may be one more copy.
            | Reason::GraphResultUnknown
            | Reason::FallbackFailed
            | Reason::OnmicrosoftQuotaExceeded,
        ) => RetryPace::Late,
        _ => RetryPace::Soon,
    }
}

/// What stands between here and mail stops every message alike, so one at a time asks whether it is over. A connection
/// that broke is made anew at once, and what only some senders or recipients meet pauses nobody else.
const fn pause_of_transient(reason: Option<Reason>) -> Option<Pause> {
    match reason {
        Some(Reason::EgressAddressDeferred) => pause(MINUTE, 15 * MINUTE),
        None | Some(Reason::UpstreamProtocolError | Reason::GraphResultUnknown) => None,
        Some(reason) if matches!(reason.condition(), ConditionType::SendersAccepted) => None,
        Some(Reason::TokenServiceThrottled) => pause(3, 30),
        Some(_) => Some(Pause { first: 1, longest: 30, growth: Growth::Quarter }),
    }
}

const fn pause_of_fault(reason: Reason) -> Option<Pause> {
    match reason {
        // Imposed for continuous errors, for a time that Exchange chooses: asked about seldom, and by one message.
        Reason::SenderThrottled => pause(5 * MINUTE, HOUR),
        // Errors that Exchange counts: a handful in an hour must not become a throttle.
        Reason::MailboxFull | Reason::MailboxRestricted | Reason::TenantBlocked | Reason::SenderBlocked => {
            pause(2 * MINUTE, 30 * MINUTE)
        }
        _ => pause(10, 2 * MINUTE),
    }
}

/// The minute and the connections are the budget's to pace. A day moves slowly; a limit that was raised is found out
/// within minutes.
const fn pause_of_quota(reason: Reason) -> Option<Pause> {
    match reason {
        Reason::RateExceeded | Reason::ConnectionsExceeded => None,
        Reason::GraphThrottled => pause(10, 5 * MINUTE),
        _ => pause(2 * MINUTE, 15 * MINUTE),
    }
}

const fn throttle(reason: Reason) -> Option<Throttled> {
    match reason {
        Reason::RateExceeded => Some(Throttled::Rate),
        Reason::ConnectionsExceeded => Some(Throttled::Connections),
        _ => None,
    }
}

/// Whether an outcome says that no message of the route gets through now, rather than something about this one.
pub fn concerns_route(outcome: DeliveryOutcome) -> bool {
    match outcome {
        _ if effect(outcome).next == NextStep::Hold => true,
        // What stands between here and the log-in. A connection that broke in a message may be that message's fault.
        DeliveryOutcome::Transient(Some(reason)) => {
            !matches!(reason, Reason::UpstreamProtocolError | Reason::GraphResultUnknown)
                && reason.condition() != ConditionType::SendersAccepted
        }
        _ => false,
    }
}

/// What the upstream counts of an attempt to reach so many recipients. What is not known counts in full.
pub fn used(attempt: &AttemptResult, recipients: u64) -> Amount {
    let verdict = &attempt.verdict;
    match verdict.outcome {
        DeliveryOutcome::Delivered => {
            let refused = u64::try_from(attempt.refused.len()).unwrap_or(u64::MAX);
            Amount::message(recipients.saturating_sub(refused))
        }
        _ if is_uncounted(verdict) => Amount::NOTHING,
        _ if verdict.reply.is_some() => Amount::message(0),
        _ => Amount::message(recipients),
    }
}

/// Whether the upstream counts nothing of what led to a verdict.
pub fn is_uncounted(verdict: &Verdict) -> bool {
    verdict.is_unsent || verdict.outcome.reason().is_some_and(|reason| is_before_mail(reason, verdict))
}

/// Whether a verdict can only have been reached before MAIL.
fn is_before_mail(reason: Reason, verdict: &Verdict) -> bool {
    match reason.condition() {
        ConditionType::CertificateValid | ConditionType::CredentialReady => true,
        ConditionType::UpstreamReachable => {
            verdict.reply.is_none()
                && !matches!(
                    reason,
                    Reason::UpstreamUnavailable | Reason::UpstreamProtocolError | Reason::GraphResultUnknown
                )
        }
        ConditionType::Authenticated => matches!(
            reason,
            Reason::ExchangeRejectedToken
                | Reason::SmtpAuthDisabledTenant
                | Reason::SmtpAuthDisabledMailbox
                | Reason::AuthenticationPolicy
                | Reason::PasswordRejected
                | Reason::ApiPermissionMissing
                | Reason::BasicAuthDisabled
                | Reason::LoginFailed
                | Reason::GraphRejectedToken
                | Reason::GraphAccessDenied
                | Reason::MailboxNotFound
                | Reason::MailboxNotEnabled
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::RefusedRecipient;
    use crate::smtp::reply::Reply;

    fn next(outcome: DeliveryOutcome) -> NextStep {
        effect(outcome).next
    }

    #[test]
    fn a_delivery_ends_the_message_and_nothing_else() {
        let done = Effect { next: NextStep::Done, throttle: None, pause: None, reason: None };
        assert_eq!(effect(DeliveryOutcome::Delivered), done);
    }

    #[test]
    fn no_fault_of_the_route_and_no_quota_ever_gives_a_message_up() {
        for &reason in Reason::ALL {
            for outcome in [DeliveryOutcome::RouteFault(reason), DeliveryOutcome::Quota(reason)] {
                assert_eq!(next(outcome), NextStep::Hold, "{outcome:?}");
                assert_eq!(effect(outcome).reason, Some(reason));
            }
            assert!(matches!(next(DeliveryOutcome::Transient(Some(reason))), NextStep::Retry(_)), "{reason}");
        }
        assert_eq!(next(DeliveryOutcome::RefreshToken), NextStep::Hold);
    }

    #[test]
    fn what_is_unknown_is_tried_again_soon_without_a_pause() {
        let unknown =
            Effect { next: NextStep::Retry(RetryPace::Soon), throttle: None, pause: None, reason: None };
        assert_eq!(effect(DeliveryOutcome::Transient(None)), unknown);
    }

    #[test]
    fn what_is_held_back_is_looked_at_again_late_and_stops_nothing_else() {
        let held = effect(DeliveryOutcome::Transient(Some(Reason::ErrorsHeldBack)));
        assert_eq!((held.next, held.pause), (NextStep::Retry(RetryPace::Late), None));
    }

    /// Only senders of *.onmicrosoft.com meet it.
    #[test]
    fn a_quota_of_some_senders_holds_no_other_and_is_tried_again_late() {
        let quota = DeliveryOutcome::Transient(Some(Reason::OnmicrosoftQuotaExceeded));
        assert_eq!((next(quota), effect(quota).pause), (NextStep::Retry(RetryPace::Late), None));
        assert!(!concerns_route(quota));
    }

    #[test]
    fn what_may_have_been_sent_is_sent_again_late_and_stops_nothing_else() {
        let unknown = effect(DeliveryOutcome::Transient(Some(Reason::GraphResultUnknown)));
        assert_eq!((unknown.next, unknown.pause), (NextStep::Retry(RetryPace::Late), None));
    }

    #[test]
    fn grey_listing_is_tried_again_late() {
        let deferred = effect(DeliveryOutcome::Transient(Some(Reason::EgressAddressDeferred)));
        assert_eq!(deferred.next, NextStep::Retry(RetryPace::Late));
        assert_eq!(deferred.pause, pause(60, 900));
    }

    #[test]
    fn a_refusal_of_message_or_recipient_stops_nothing_else() {
        for outcome in [DeliveryOutcome::RejectRecipient, DeliveryOutcome::RejectMessage(None)] {
            let effect = effect(outcome);
            assert_eq!((effect.next, effect.throttle, effect.pause), (NextStep::GiveUp, None, None));
        }
    }

    #[test]
    fn a_sender_that_may_be_granted_is_never_given_up_at_once_and_stops_nothing_else() {
        let denied = effect(DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)));
        assert_eq!(
            (denied.next, denied.throttle, denied.pause),
            (NextStep::Retry(RetryPace::Late), None, None)
        );
    }

    #[test]
    fn a_rate_is_the_budgets_and_a_day_the_breakers() {
        let rate = effect(DeliveryOutcome::Quota(Reason::RateExceeded));
        assert_eq!((rate.throttle, rate.pause), (Some(Throttled::Rate), None));
        let connections = effect(DeliveryOutcome::Quota(Reason::ConnectionsExceeded));
        assert_eq!((connections.throttle, connections.pause), (Some(Throttled::Connections), None));
        for reason in [Reason::DailyQuotaExceeded, Reason::TenantQuotaExceeded] {
            let day = effect(DeliveryOutcome::Quota(reason));
            assert_eq!((day.throttle, day.pause), (None, pause(120, 900)));
        }
    }

    #[test]
    fn every_fault_pauses_and_a_throttle_for_minutes_at_first() {
        for &reason in Reason::ALL {
            let pause = effect(DeliveryOutcome::RouteFault(reason)).pause.unwrap();
            assert!(0 < pause.first && pause.first <= pause.longest, "{reason}");
        }
        assert_eq!(effect(DeliveryOutcome::RouteFault(Reason::SenderThrottled)).pause, pause(300, 3600));
    }

    #[test]
    fn the_way_that_is_closed_is_left_alone_for_seconds() {
        let away = Pause { first: 1, longest: 30, growth: Growth::Quarter };
        assert_eq!(effect(DeliveryOutcome::Transient(Some(Reason::ConnectFailed))).pause, Some(away));
        assert_eq!(
            effect(DeliveryOutcome::Transient(Some(Reason::TokenServiceThrottled))).pause,
            pause(3, 30)
        );
    }

    #[test]
    fn whatever_holds_the_queue_pauses_it_so_that_not_every_message_asks() {
        for &reason in Reason::ALL {
            let outcome = DeliveryOutcome::Transient(Some(reason));
            let pauses = effect(outcome).pause.is_some();
            assert_eq!(pauses, concerns_route(outcome), "{reason}");
        }
    }

    fn attempt(outcome: DeliveryOutcome, line: Option<&str>, refused: usize) -> AttemptResult {
        let reply = line.map(|line| Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0);
        let verdict = Verdict { reply, ..Verdict::without_reply(outcome, "") };
        let refused =
            (0..refused).map(|recipient| RefusedRecipient { recipient, verdict: verdict.clone() }).collect();
        AttemptResult { verdict, refused, observations: vec![], host: None }
    }

    #[test]
    fn what_is_known_not_to_have_been_sent_does_not_count() {
        for reason in [Reason::ConnectFailed, Reason::TenantNotFound, Reason::CertificateMissing] {
            assert_eq!(used(&attempt(DeliveryOutcome::Transient(Some(reason)), None, 0), 3), Amount::NOTHING);
        }
        let disabled =
            attempt(DeliveryOutcome::RouteFault(Reason::SmtpAuthDisabledTenant), Some("535 5.7.139 no"), 0);
        assert_eq!(used(&disabled, 3), Amount::NOTHING);
    }

    #[test]
    fn what_was_refused_counts_as_a_message_to_nobody() {
        for (outcome, line) in [
            (DeliveryOutcome::RejectMessage(None), "550 5.6.0 no"),
            (DeliveryOutcome::Quota(Reason::RateExceeded), "421 4.4.2 Message submission rate"),
            (DeliveryOutcome::RouteFault(Reason::ConnectorMismatch), "550 5.7.64 Relay Access Denied"),
            (
                DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable)),
                "421 4.3.2 Service not available",
            ),
        ] {
            assert_eq!(used(&attempt(outcome, Some(line), 0), 3), Amount::message(0), "{line}");
        }
    }

    #[test]
    fn what_was_accepted_counts_those_who_were_not_refused() {
        assert_eq!(
            used(&attempt(DeliveryOutcome::Delivered, Some("250 2.0.0 OK"), 2), 5),
            Amount::message(3)
        );
    }

    #[test]
    fn what_is_unknown_counts_in_full() {
        for reason in [Reason::UpstreamProtocolError, Reason::UpstreamUnavailable] {
            assert_eq!(
                used(&attempt(DeliveryOutcome::Transient(Some(reason)), None, 0), 3),
                Amount::message(3)
            );
        }
    }

    #[test]
    fn trouble_on_the_way_to_mail_concerns_the_route_and_a_broken_message_does_not() {
        for outcome in [
            DeliveryOutcome::RouteFault(Reason::LoginFailed),
            DeliveryOutcome::Quota(Reason::DailyQuotaExceeded),
            DeliveryOutcome::Transient(Some(Reason::ConnectFailed)),
            DeliveryOutcome::Transient(Some(Reason::TokenServiceThrottled)),
        ] {
            assert!(concerns_route(outcome), "{outcome:?}");
        }
        for outcome in [
            DeliveryOutcome::Delivered,
            DeliveryOutcome::RejectRecipient,
            DeliveryOutcome::Transient(None),
            DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError)),
        ] {
            assert!(!concerns_route(outcome), "{outcome:?}");
        }
    }
}
