//! Access tokens: where they come from and when to ask for the next one.
//!
//! * [`entra`]: one exchange with the token authority, over `azure_identity`.
//! * [`store`]: one token at a time for everybody, refreshed ahead of its end.
//! * [`aadsts`]: what the authority's errors mean.
//! * [`assertion`]: the federated assertion: read, and described without showing it.
//!
//! Knows nothing of mail. A token's content is opaque: nothing here parses one.

pub mod aadsts;
pub mod assertion;
pub mod entra;
pub mod store;

use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;

use crate::clock::Instant;
use crate::secret::Secret;

/// An access token and its life.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token, for `Authorization: Bearer` or XOAUTH2.
    pub secret: Secret,
    /// When it was asked for.
    pub obtained: Instant,
    /// When the authority stops vouching for it.
    pub expires: Instant,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// What stands in the way, a reason of the condition `CredentialReady`.
    pub reason: Reason,
    /// What was met, in words. Free of secrets.
    pub message: String,
    /// How long the authority asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that the authority set no time for.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}

/// Something that issues access tokens, one request for each call and no memory.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Asks for a new token.
    ///
    /// # Errors
    /// When none is issued, with the reason a person needs. Ends within a bounded time.
    async fn fetch(&self) -> Result<Token, Failure>;
}
