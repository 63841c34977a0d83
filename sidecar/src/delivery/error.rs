//! What ends a connection to the upstream, from the look-up of its name to the last reply.
//!
//! Owns the texts that people read and the condition that each trouble breaks. What a negative reply means is
//! [`crate::outcome::classify`]'s to say.

use std::fmt::Display;

use mailroute_route::condition::Reason;

use super::timeouts;
use crate::net::dial::DialError;
use crate::net::tls::TrustError;
use crate::outcome::classify::Stage;
use crate::outcome::one_line;
use crate::secret::scrub;
use crate::smtp::reply::Reply;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Not a name that a certificate can be verified against.
    #[error("{0} is not a DNS name, so the upstream's certificate cannot be verified")]
    NotDnsName(String),
    /// The upstream does not offer STARTTLS.
    #[error("{0} does not offer STARTTLS")]
    StartTlsMissing(String),
    /// Plaintext followed the answer to STARTTLS: someone on the way puts words into the upstream's mouth.
    #[error("{0} sent plaintext after its reply to STARTTLS, which may be an attack")]
    StartTlsInjection(String),
    /// The handshake failed.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name verified.
        host: String,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The whole way from the name to readiness takes too long.
    #[error("no connection to {host} within {seconds} seconds", seconds = timeouts::OPENING.as_secs())]
    Opening {
        /// The name dialled.
        host: String,
    },
    /// A log-in would go over the wire in the clear.
    #[error("the connection to {0} has no TLS, so nothing secret is sent over it")]
    LogInWithoutTls(String),
    /// The upstream does not take what we would log in with.
    #[error("{host} does not offer AUTH {mechanism}, so it is not Microsoft 365's submission service")]
    MechanismMissing {
        /// The upstream.
        host: String,
        /// What is missing.
        mechanism: &'static str,
    },
    /// A reply that ends the conversation.
    #[error("{} was answered with {}", .stage.as_str(), one_line(.reply))]
    Refused {
        /// To what.
        stage: Stage,
        /// Which.
        reply: Reply,
    },
    /// No answer in time.
    #[error("no answer to {} within {} seconds", .0.as_str(), timeouts::reply(*.0).as_secs())]
    Timeout(Stage),
    /// The connection broke, or the peer does not speak SMTP.
    #[error("the connection was lost at {}: {what}", .stage.as_str())]
    Broken {
        /// Where.
        stage: Stage,
        /// How.
        what: String,
    },
}

impl ConnectionError {
    pub(super) fn broken(stage: Stage, what: impl Display) -> Self {
        Self::Broken { stage, what: scrub(&what.to_string()).into_owned() }
    }

    /// The condition this breaks. Nothing for [`Self::Refused`], which [`crate::outcome::classify`] explains.
    pub const fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Dial(DialError::Resolve { .. }) => Reason::NameNotResolved,
            Self::Dial(DialError::Connect { .. }) => Reason::ConnectFailed,
            Self::Trust(_) => Reason::CaBundleMissing,
            Self::NotDnsName(_) | Self::Tls { .. } => Reason::TlsFailed,
            Self::StartTlsMissing(_) | Self::StartTlsInjection(_) => Reason::StartTlsMissing,
            Self::MechanismMissing { .. } | Self::LogInWithoutTls(_) => Reason::LoginFailed,
            Self::Timeout(_) | Self::Opening { .. } => Reason::UpstreamUnavailable,
            Self::Broken { .. } => Reason::UpstreamProtocolError,
            Self::Refused { .. } => return None,
        })
    }
}
