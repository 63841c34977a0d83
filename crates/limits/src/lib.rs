//! What counts against a mailbox's limits, as values.
//!
//! * [`Amount`]: how much, of messages and of their recipients.
//! * [`window`]: how much of it still counts.
//! * [`restraint`]: less of a limit for a while, after it was too much all the same.
//! * [`strangers`]: when those may send whom nobody could tell.
//!
//! Both programs count: the operator what all sidecars of a mailbox send, each sidecar what it sends itself. Knows no limit, no
//! mail and no clock; every decision is its callers'.

pub mod restraint;
pub mod strangers;
pub mod window;

use serde::{Deserialize, Serialize};

/// How much: of what is asked for, or of what was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Recipients of them all.
    pub recipients: u64,
}

impl Amount {
    /// Nothing: the upstream has not heard of the message.
    pub const NOTHING: Self = Self { messages: 0, recipients: 0 };

    /// One message to so many.
    pub const fn message(recipients: u64) -> Self {
        Self { messages: 1, recipients }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, recipients: self.recipients + other.recipients }
    }

    /// Whether the other is at least as much, of each.
    pub const fn within(self, other: Self) -> bool {
        self.messages <= other.messages && self.recipients <= other.recipients
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            recipients: self.recipients.min(other.recipients),
        }
    }

    /// What is left of each, at least nothing.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            recipients: self.recipients.saturating_sub(other.recipients),
        }
    }
}
