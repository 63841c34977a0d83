//! What can come of an attempt to deliver, as plain data that everything above may read.
//!
//! * Here: the outcome of one recipient, of one attempt. What one reply means, [`DeliveryOutcome`] and the tables [`classify`] and
//!   [`graph`], is the crate `mailroute-replies`.
//! * [`effect`]: what follows from an outcome, for everything else.
//! * [`health`]: the last observation of each condition. [`queued`]: the queue in numbers.
//!
//! Pure; refuses to know how an answer was got and who reads it.

pub mod effect;
pub mod health;
pub mod queued;

use std::net::IpAddr;

pub use mailroute_replies::outcome::{DeliveryOutcome, Verdict, one_line};
pub use mailroute_replies::{classify, graph, hint};
use mailroute_route::condition::{ConditionType, Reason};

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

    #[test]
    fn a_probe_without_evidence_is_not_well() {
        assert!(!Probe { observations: vec![] }.is_well());
        assert!(Probe { observations: vec![Observation::new(Reason::LoggedIn, "")] }.is_well());
        assert!(!Probe { observations: vec![Observation::new(Reason::TlsFailed, "")] }.is_well());
    }
}
