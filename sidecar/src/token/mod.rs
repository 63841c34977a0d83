//! Access tokens: where they come from and when to ask for the next one.
//!
//! * [`store`]: one token at a time for everybody, refreshed ahead of its end.
//! * [`entra`]: one application at one authority: proof, exchange, explanation.
//! * [`credential`]: what it proves itself with, from files: [`assertion`], client secret, or a certificate, by which it
//!   [signs](signed) an assertion of its own.
//! * `exchange`: the one request, over `azure_identity`.
//! * [`aadsts`]: what the authority's errors mean.
//!
//! Knows nothing of mail. A token's content is opaque: nothing here parses one.

pub mod aadsts;
pub mod assertion;
pub mod credential;
pub mod entra;
mod exchange;
pub mod signed;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::{Authority, Credential};

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
    /// What stands in the way, a reason of the condition `CredentialReady` or `CertificateValid`.
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

/// What issues tokens to the application of `credential`; none for a password, which no token is had with.
pub fn source_for(credential: &Credential, authority: &Authority) -> Option<Arc<dyn TokenSource>> {
    let (client_id, proof) = credential::Proof::of(credential)?;
    Some(Arc::new(entra::Entra::new(authority.clone(), client_id, proof)))
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
