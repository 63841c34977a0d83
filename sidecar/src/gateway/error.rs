//! Why no gateway has a message.

use std::net::SocketAddr;

use super::identity::IdentityError;
use crate::net::dial::DialError;
use crate::outcome::queued::HandOverOutcome;
use crate::spool::frame::FormatError;

/// Why no gateway has the message.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// There is no gateway, or no certificate to show it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its name has no address.
    #[error(transparent)]
    Resolve(#[from] DialError),
    /// No other gateway than this one.
    #[error("no gateway pod is ready")]
    Nobody,
    /// None of its addresses could be reached.
    #[error("cannot reach the gateway {address}: {met}")]
    Unreachable {
        /// The last one that was tried.
        address: SocketAddr,
        /// What was met.
        met: String,
    },
    /// It takes too long.
    #[error("the gateway does not answer in time")]
    Time,
    /// A gateway says "not now".
    #[error("the gateway {address} cannot store the message now: {reply}")]
    Deferred {
        /// Which one.
        address: SocketAddr,
        /// Its words.
        reply: String,
    },
    /// A gateway says "never".
    #[error("the gateway {address} refuses the message: {reply}")]
    Refused {
        /// Which one.
        address: SocketAddr,
        /// Its words.
        reply: String,
    },
    /// The message cannot be read here.
    #[error("the message cannot be read")]
    Body(#[source] std::io::Error),
    /// The message cannot be written down.
    #[error("the message cannot be written down")]
    Format(#[from] FormatError),
}

/// What an error says of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorScope {
    /// It is about this message, which no gateway will take; others are not concerned.
    Message,
    /// A gateway is there and does not take this message now. It may take others.
    Now,
    /// No gateway takes anything.
    Gateways,
}

impl HandOverError {
    /// What it says of the next attempt.
    pub const fn scope(&self) -> ErrorScope {
        match self {
            Self::Refused { .. } | Self::Body(_) | Self::Format(_) => ErrorScope::Message,
            Self::Deferred { .. } => ErrorScope::Now,
            _ => ErrorScope::Gateways,
        }
    }

    /// Whether there is no gateway at all: no pod of it is ready, so that its name has no address.
    pub(super) const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody | Self::Resolve(_))
    }

    /// Whether another gateway may have the message that this one was asked about: it cannot be reached, or does not know the message.
    pub(super) fn may_be_elsewhere(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { reply, .. } => reply.starts_with("550 "),
            _ => false,
        }
    }

    /// Whether it is about this message, and says nothing of others.
    pub const fn is_of_message(&self) -> bool {
        matches!(self.scope(), ErrorScope::Message)
    }

    pub(super) const fn outcome(&self) -> HandOverOutcome {
        match self {
            Self::Deferred { .. } => HandOverOutcome::Deferred,
            Self::Refused { .. } => HandOverOutcome::Refused,
            Self::Body(_) | Self::Format(_) => HandOverOutcome::Failed,
            _ => HandOverOutcome::Unreachable,
        }
    }
}
