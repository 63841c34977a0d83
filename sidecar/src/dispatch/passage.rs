//! Whether mail is known to get through, and which outcomes say so.

use mailroute_route::condition::{ConditionType, Reason};

use crate::delivery::effect::{Fate, effect};
use crate::delivery::outcome::Outcome;

/// Whether mail is known to get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Nothing is known to be wrong.
    Open,
    /// The last that was heard is trouble of the whole route.
    Shut,
}

/// Whether an outcome says that no message of the route gets through now, rather than something about this one.
pub fn concerns_the_route(outcome: Outcome) -> bool {
    match outcome {
        _ if effect(outcome).fate == Fate::Hold => true,
        // What stands between here and the log-in. A connection that broke in a message may be that message's fault.
        Outcome::Transient(Some(reason)) => {
            reason != Reason::UpstreamProtocolError && reason.condition() != ConditionType::SendersAccepted
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_on_the_way_to_mail_concerns_the_route_and_a_broken_message_does_not() {
        for outcome in [
            Outcome::RouteFault(Reason::LoginFailed),
            Outcome::Quota(Reason::DailyQuotaExceeded),
            Outcome::Transient(Some(Reason::ConnectFailed)),
            Outcome::Transient(Some(Reason::TokenServiceThrottled)),
        ] {
            assert!(concerns_the_route(outcome), "{outcome:?}");
        }
        for outcome in [
            Outcome::Delivered,
            Outcome::RejectRecipient,
            Outcome::Transient(None),
            Outcome::Transient(Some(Reason::UpstreamProtocolError)),
        ] {
            assert!(!concerns_the_route(outcome), "{outcome:?}");
        }
    }
}
