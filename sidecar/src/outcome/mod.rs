//! What can come of an attempt to deliver, as plain data that everything above may read.
//!
//! * Here: the outcome of one reply, of one recipient, of one attempt. "Again or give up?" is answered once, by [`DeliveryOutcome`].
//! * [`classify`]: the one table from replies to outcomes; [`known_replies`]: the lines that it is tested with. [`effect`]: what follows from an outcome, for everything else.
//! * [`graph`]: the same table for answers of Microsoft Graph.
//! * [`hint`]: what to know about a refusal of one message or recipient.
//! * [`health`]: the last observation of each condition. [`queued`]: the queue in numbers.
//!
//! Pure; refuses to know how an answer was got and who reads it.

pub mod classify;
pub mod effect;
pub mod graph;
pub mod health;
pub mod hint;
pub mod known_replies;
pub mod queued;

use std::net::IpAddr;
use std::time::Duration;

use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::text::shortened;

use crate::smtp::reply::Reply;

/// What a reply, or the lack of one, means for the message or recipient it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The upstream has taken responsibility.
    Delivered,
    /// The same may work later. The reason, when it is known to be about more than this message.
    Transient(Option<Reason>),
    /// The upstream refused the token: worth one attempt with a new one on a new connection.
    RefreshToken,
    /// Nothing can be sent by this route until a person changes something. Never a fault of the message.
    RouteFault(Reason),
    /// A limit of the mailbox is used up: wait until its window moves.
    Quota(Reason),
    /// This recipient is refused for good.
    RejectRecipient,
    /// This message is refused for good. The reason, when others may meet the same.
    RejectMessage(Option<Reason>),
}

impl DeliveryOutcome {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Transient(_) => "transient",
            Self::RefreshToken => "refresh_token",
            Self::RouteFault(_) => "route_fault",
            Self::Quota(_) => "quota",
            Self::RejectRecipient => "reject_recipient",
            Self::RejectMessage(_) => "reject_message",
        }
    }

    /// Every name that [`DeliveryOutcome::as_str`] gives.
    pub const NAMES: [&str; 7] = [
        "delivered",
        "transient",
        "refresh_token",
        "route_fault",
        "quota",
        "reject_recipient",
        "reject_message",
    ];

    /// Why, when it concerns more than the message at hand.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Transient(reason) | Self::RejectMessage(reason) => reason,
            Self::RouteFault(reason) | Self::Quota(reason) => Some(reason),
            Self::RefreshToken => Some(Reason::ExchangeRejectedToken),
            Self::Delivered | Self::RejectRecipient => None,
        }
    }
}

/// An outcome and what it was concluded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The conclusion.
    pub outcome: DeliveryOutcome,
    /// The upstream's reply, if there was one. Free of secrets.
    pub reply: Option<Reply>,
    /// What was met, in words. Free of secrets and of recipients' addresses.
    pub text: String,
    /// How long the upstream asks to be left alone, whatever it did with the message.
    pub retry_after: Option<Duration>,
    /// Whether it is certain that the upstream did not get the whole message, so that it counts for no limit.
    pub is_unsent: bool,
}

impl Verdict {
    /// A conclusion from a reply. A final refusal is quoted with what a person may want to know about it.
    pub fn of_reply(outcome: DeliveryOutcome, reply: Reply) -> Self {
        let is_refusal =
            matches!(outcome, DeliveryOutcome::RejectRecipient | DeliveryOutcome::RejectMessage(_));
        let text = match hint::of(&reply).filter(|_| is_refusal) {
            Some(hint) => format!("{} ({hint})", one_line(&reply)),
            None => one_line(&reply),
        };
        Self { outcome, reply: Some(reply), text, retry_after: None, is_unsent: false }
    }

    /// Whether it is the upstream's last word. A refusal in which it did not say so itself is not.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome, DeliveryOutcome::RejectRecipient | DeliveryOutcome::RejectMessage(_))
            && self.reply.as_ref().is_some_and(Reply::is_permanent)
    }

    /// The same, with the certainty that the upstream did not get the whole message.
    #[must_use]
    pub fn unsent(self) -> Self {
        Self { is_unsent: true, ..self }
    }

    /// A conclusion from something else, such as a connection that broke.
    pub fn without_reply(outcome: DeliveryOutcome, text: impl Into<String>) -> Self {
        Self { outcome, reply: None, text: text.into(), retry_after: None, is_unsent: false }
    }
}

/// Longest reply that is quoted, octets: what follows in Exchange's is diagnostics for Microsoft.
const MAX_QUOTE: usize = 1024;

/// A reply in one line, as a person would quote it, cut where it is longer than anybody reads.
pub fn one_line(reply: &Reply) -> String {
    let line = match reply.enhanced {
        Some(enhanced) => format!("{} {enhanced} {}", reply.code, reply.text()),
        None => format!("{} {}", reply.code, reply.text()),
    };
    shortened(&line, MAX_QUOTE).into_owned()
}

/// One condition, as it was met on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Why the condition holds or not; it also says which condition.
    pub reason: Reason,
    /// What was met, in words.
    pub text: String,
    /// The address that the upstream saw us come from, when it said so.
    pub egress: Option<IpAddr>,
}

impl Observation {
    /// Something met.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), egress: None }
    }

    /// Which condition.
    pub const fn condition(&self) -> ConditionType {
        self.reason.condition()
    }
}

/// One recipient that the upstream refused, now or for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecipient {
    /// Position in the envelope.
    pub recipient: usize,
    /// Why.
    pub verdict: Verdict,
}

/// When the message goes out although the upstream refused some of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialDelivery {
    /// Never: to all or to none. For an application that waits and keeps the message itself.
    Never,
    /// When none is refused for good: those refused for now are tried again later. For an application that waits, and
    /// could be told only about the message as a whole.
    UnlessRejected,
    /// To whomever is accepted. For a message that is kept, with a fate for each recipient.
    Always,
}

/// What came of trying to deliver one message.
#[derive(Clone, Debug)]
pub struct AttemptResult {
    /// The fate of the message, for every recipient that is not among `refused`. When it was delivered to nobody
    /// because of one that was refused, it is that one's verdict.
    pub verdict: Verdict,
    /// The recipients that were refused, each with its own verdict.
    pub refused: Vec<RefusedRecipient>,
    /// The conditions met on the way, in order.
    pub observations: Vec<Observation>,
    /// The upstream's own name, for message trace.
    pub host: Option<String>,
}

impl AttemptResult {
    /// The fate of one recipient, by its position in the envelope.
    pub fn verdict_for(&self, recipient: usize) -> &Verdict {
        let own = self.refused.iter().find(|refused| refused.recipient == recipient);
        own.map_or(&self.verdict, |refused| &refused.verdict)
    }
}

/// What came of walking the way without a message.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The conditions met on the way, in order. The last one is the trouble, when there is any.
    pub observations: Vec<Observation>,
}

impl Probe {
    /// Whether the log-in worked.
    pub fn is_well(&self) -> bool {
        !self.observations.is_empty()
            && self.observations.iter().all(|observation| observation.reason.holds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::EnhancedCode;

    #[test]
    fn every_outcome_has_its_name_in_the_list() {
        let all = [
            DeliveryOutcome::Delivered,
            DeliveryOutcome::Transient(None),
            DeliveryOutcome::RefreshToken,
            DeliveryOutcome::RouteFault(Reason::LoginFailed),
            DeliveryOutcome::Quota(Reason::RateExceeded),
            DeliveryOutcome::RejectRecipient,
            DeliveryOutcome::RejectMessage(None),
        ];
        assert_eq!(all.map(DeliveryOutcome::as_str), DeliveryOutcome::NAMES);
    }

    #[test]
    fn a_reply_is_quoted_in_one_line() {
        let mut reply = Reply::new(550, EnhancedCode::new(5, 1, 8), "Access denied,");
        reply.lines.push("bad outbound sender".into());
        assert_eq!(one_line(&reply), "550 5.1.8 Access denied, bad outbound sender");
    }

    #[test]
    fn a_reply_of_any_length_is_cut_where_it_is_quoted() {
        let reply = Reply::new(554, EnhancedCode::new(5, 2, 252), "ä".repeat(2000));
        let quoted = one_line(&reply);
        assert!(quoted.starts_with("554 5.2.252 ä") && quoted.ends_with("ä …"), "{quoted}");
        assert!(quoted.len() <= MAX_QUOTE);
    }

    #[test]
    fn a_probe_without_evidence_is_not_well() {
        assert!(!Probe { observations: vec![] }.is_well());
        assert!(Probe { observations: vec![Observation::new(Reason::LoggedIn, "")] }.is_well());
        assert!(!Probe { observations: vec![Observation::new(Reason::TlsFailed, "")] }.is_well());
    }
}
