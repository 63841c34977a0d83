//! Access tokens of Microsoft Entra: where they come from, when to ask for the next one, what a refusal means.
//!
//! For both programs: the sidecar asks for a route's own application, the operator for the applications whose federated
//! credential is its own.
//!
//! * [`store`]: one token at a time for everybody, refreshed ahead of its end.
//! * [`application`]: one application at one authority: proof, exchange, explanation.
//! * [`federated`]: the proof that needs no secret, a projected service-account token.
//! * [`exchange`]: the one request, over `azure_identity`; the connection is handed in.
//! * [`web_proxy`]: the way to an authority through the proxy that a container's variables name.
//! * [`aadsts`]: what the authority's errors mean.
//! * [`secret`], [`clock`]: values that never print; time and chance read in one place.
//!
//! Refuses to know mail, Kubernetes and sockets. A token's content is opaque: nothing here parses one.

pub mod aadsts;
pub mod application;
pub mod clock;
pub mod exchange;
pub mod federated;
pub mod secret;
pub mod store;
pub mod web_proxy;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::Authority;

use clock::Instant;
use secret::Secret;

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

/// Something that issues access tokens, one request for each call and no memory of them.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Asks for a new token.
    ///
    /// # Errors
    /// When none is issued, with the reason a person needs. Ends within a bounded time.
    async fn fetch(&self) -> Result<Token, Failure>;

    /// Hears that `token` was refused where it was presented, before it is asked for another one.
    fn refused(&self, token: &Token) {
        // An authority issues a new token each time it is asked; only what keeps tokens needs to know.
        let _ = token;
    }
}

/// The kind of a proof: the authority's errors mean different things to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service-account token under a federated credential.
    Federated,
    /// A client secret.
    Secret,
    /// An assertion signed by a certificate.
    Certificate,
}

/// What an application proves itself with. Read anew each time, since it is renewed and rotated where it lies.
#[async_trait]
pub trait Proof: fmt::Debug + Send + Sync {
    /// The proof as it was read; equal to another one when the authority would see the same.
    type Presented: Presented + PartialEq;

    /// Reads the proof as it is now.
    ///
    /// # Errors
    /// With a reason that says what is missing or of no use.
    async fn read(&self) -> Result<Self::Presented, Failure>;
}

/// A proof as it was read.
pub trait Presented: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> Kind;

    /// What `authority` is shown of it for the application `client_id`; nothing when it cannot be shown.
    fn shown(&self, authority: &Authority, client_id: &str) -> Option<Shown>;

    /// What was shown, in words, where a person has to compare it for `reason`.
    fn described_for(&self, reason: Reason) -> Option<String>;

    /// Takes what is secret in it out of text that the authority wrote.
    fn redact(&self, text: &str) -> String;
}

/// What goes into the request for a token.
#[derive(Clone, Debug)]
pub enum Shown {
    /// `client_secret`
    Secret(Secret),
    /// `client_assertion`
    Assertion(Secret),
}
