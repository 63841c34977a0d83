//! The servers that mail is handed to, and how far they have to be verified.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The SMTP server that mail is handed to. TLS by STARTTLS is always required and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// DNS name; also the name that the certificate must carry.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM bundle to trust in place of the public roots, where the operator and not the route says so. Goes before
    /// `ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Whether messages are sent with BDAT.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chunking: Chunking,
}

impl Endpoint {
    /// A server whose certificate chains to the public roots.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ca_file: None, ca_pem: None, chunking: Chunking::default() }
    }
}

/// The SMTP server that takes mail on port 25 for the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmartHost {
    /// How its name is found. Never derived from a domain: new tenants' names cannot be.
    pub host: HostName,
    /// TCP port.
    pub port: u16,
    /// Whether mail may be sent without TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsMode,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether messages are sent with BDAT.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chunking: Chunking,
}

/// How the name of a smart host is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostName {
    /// It is this one.
    Fixed(String),
    /// The best MX record of this domain, looked up anew when its time to live is over.
    MxOf(String),
}

/// Whether messages are sent with BDAT in place of DATA, envelope and content in one round trip (RFC 3030). Never: always
/// with DATA. WhenOffered: messages of up to 1 MiB, where the server offers CHUNKING and PIPELINING; if it refuses BDAT or
/// stops answering, with DATA. Worth it if the server is far away and conforms; Exchange Online has been seen to refuse
/// BDAT. Default: Never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Chunking {
    /// With DATA, whatever the server offers.
    #[default]
    Never,
    /// With BDAT where the server offers it.
    WhenOffered,
}

/// Whether mail may be sent without TLS. Required: only with STARTTLS and a verified certificate. Opportunistic, for
/// SmtpRelay by IP address and for DirectSend: with TLS if it is offered and verified, otherwise without. Default:
/// Opportunistic for DirectSend, otherwise Required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TlsMode {
    /// TLS with a verified certificate, or nothing is sent.
    #[default]
    Required,
    /// TLS when it is offered and can be verified; else without.
    Opportunistic,
}
