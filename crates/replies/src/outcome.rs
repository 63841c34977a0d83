//! What one reply means for the message or recipient that it was about. "Again or give up?" is answered once, by
//! [`DeliveryOutcome`].

use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::text::shortened;

use crate::hint;
use crate::reply::Reply;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::EnhancedCode;

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
}
