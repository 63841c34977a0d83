//! What applications meet: where they connect, what they may say there, and as whom.

use serde::{Deserialize, Serialize};

use super::is_default;

/// Where applications connect: loopback only, IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// TCP port.
    pub port: u16,
    /// Whether AUTH PLAIN and LOGIN are offered, for applications that insist on a log-in. Whatever they say is taken
    /// and forgotten.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth: ListenAuth,
    /// What happens to a bare LF or CR in a message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bare_line_ends: BareLineEnds,
}

impl Listen {
    /// A port with the default of everything else.
    pub const fn new(port: u16) -> Self {
        Self { port, auth: ListenAuth::None, bare_line_ends: BareLineEnds::Normalize }
    }
}

/// Whether applications may log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ListenAuth {
    /// AUTH is not offered.
    #[default]
    None,
    /// AUTH PLAIN and LOGIN are offered, and any answer is right.
    Ignore,
}

/// What happens to a bare LF or CR in a message. Neither is ever passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum BareLineEnds {
    /// LF becomes CR LF, CR a space.
    #[default]
    Normalize,
    /// The message is refused.
    Refuse,
}

/// Who may be named as the sender, in MAIL and in `From`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Senders {
    /// Addresses, or `*@domain` for all of a domain. The mailbox of client submission is always allowed.
    pub allow: Vec<String>,
    /// What happens to a message of another sender.
    pub on_violation: OnViolation,
}

/// What happens to a message of a sender that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnViolation {
    /// It is permanently refused.
    #[default]
    Reject,
    /// `From` becomes the mailbox, and what it was becomes `Reply-To` unless there is one.
    Rewrite,
}
