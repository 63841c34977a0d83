//! What applications meet: where they connect, what they may say there, and as whom.

use serde::{Deserialize, Serialize};

/// Where applications connect: on the loopback addresses of the pod, IPv4 and IPv6. In the resource as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Listen {
    /// TCP port, on 127.0.0.1 and ::1.
    #[cfg_attr(feature = "schema", schemars(
        range(min = 1, max = 65535),
        extend("x-kubernetes-validations" = [{
            "rule": "self != 9025",
            "message": "the sidecar serves its metrics on 9025; choose another port",
        }])
    ))]
    pub port: u16,
    /// Whether applications may log in. None: AUTH is not offered. Ignore: AUTH PLAIN and LOGIN are offered for applications
    /// that insist on a login; any user name and password are accepted and discarded.
    pub auth: ListenAuth,
    /// What happens to a bare LF or CR in a message; neither is ever passed on. Normalize: LF and CR CR LF become CR LF, any
    /// other CR a space. Refuse: the message is refused.
    pub bare_line_ends: BareLineEnds,
    /// Maximum concurrent SMTP sessions; further clients wait for one to end, for at most 30 seconds. Each uses up to 256 KiB
    /// of the sidecar's memory, so with many sessions raise `sidecar.resources.limits.memory`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4096)))]
    pub max_sessions: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            port: 25,
            auth: ListenAuth::default(),
            bare_line_ends: BareLineEnds::default(),
            max_sessions: 100,
        }
    }
}

/// [`Listen`] in the file: the port, and what differs from the default. An option that this version does not know is an error,
/// whereas the operator ignores one that a newer definition of the resource allows.
pub(super) mod listen_in_file {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value};

    use super::Listen;

    pub(in super::super) fn serialize<S: Serializer>(listen: &Listen, to: S) -> Result<S::Ok, S::Error> {
        let value = |listen: &Listen| serde_json::to_value(listen).map_err(serde::ser::Error::custom);
        let (mut options, defaults): (Value, Value) = (value(listen)?, value(&Listen::default())?);
        if let Some(options) = options.as_object_mut() {
            // Sidecars have always needed the port.
            options.retain(|name, value| name == "port" || defaults.get(name) != Some(value));
        }
        options.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Listen, D::Error> {
        #[derive(Deserialize)]
        struct Options {
            #[serde(flatten)]
            known: Listen,
            #[serde(flatten)]
            unknown: Map<String, Value>,
        }
        let Options { known, unknown } = Options::deserialize(from)?;
        match unknown.keys().next() {
            None => Ok(known),
            Some(name) => Err(D::Error::custom(format!("unknown field `listen.{name}`"))),
        }
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
