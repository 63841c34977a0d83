//! The Entra half: who may have an access token for Exchange Online, Graph or Communication Services.
//!
//! ```text
//!  POST /<tenant>/oauth2/v2.0/token ─► server ─► request::examine ─► issuers (keys) ─► Examined::verify ─► token
//!                                      (HTTP)       (pure)             (files, HTTPS)      (pure)          (pure)
//! ```
//! It refuses to know mail. Assertions and access tokens are never logged or kept.

pub mod assertion;
pub mod client_assertion;
pub mod client_certificate;
pub mod client_secret;
mod codes;
pub mod error;
pub mod issuers;
pub mod jws;
pub mod keys;
pub mod request;
pub mod resource;
pub mod server;
pub mod token;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use client_certificate::{CertificateError, RegisteredKey};
pub use keys::{Fetched, KeySource};
pub use resource::Resource;
pub use token::AccessTokenKey;

/// One request for a token and what became of it. Never holds the assertion or the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenExchange {
    /// When it was asked.
    pub at: Timestamp,
    /// The tenant as the address named it.
    pub tenant: String,
    /// The client id, as sent.
    pub client_id: String,
    /// Issuer of the assertion, when it could be read.
    pub assertion_issuer: Option<String>,
    /// Subject of the assertion, when it could be read.
    pub assertion_subject: Option<String>,
    /// What was presented; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// How the assertion was signed, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<jws::Algorithm>,
    /// HTTP status of the answer; 0 when the connection was cut.
    pub status: u16,
    /// `Issued`, `AADSTS<code>`, or the name of the fault that answered.
    pub outcome: String,
}

/// With what a client proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// A token of an external issuer.
    #[default]
    Federated,
    /// A client secret.
    Secret,
    /// An assertion that is signed with the application's own certificate.
    Certificate,
    /// A mailbox's password (AUTH LOGIN; not at the token endpoint).
    Password,
}
