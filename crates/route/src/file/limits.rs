//! What one message may weigh and whom it may reach, and what the mailbox may send.

use serde::{Deserialize, Serialize};

/// Bounds on one message, and on what this sidecar sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Largest message, bytes; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
    /// Most messages that the mailbox may send in any 60 seconds. Absent: no limit is known, as with SMTP relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// Most messages that the mailbox may send in any 60 minutes. Absent: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_hour: Option<u32>,
    /// Most recipients that the mailbox may send to in any 24 hours. Absent: no limit is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_day: Option<u32>,
    /// Most connections of this sidecar to the upstream.
    #[serde(default = "Limits::default_connections", skip_serializing_if = "Limits::is_default_connections")]
    pub connections: u32,
}

impl Limits {
    /// Bounds on messages, without any on the mailbox, over one connection.
    pub const fn new(max_message_bytes: u64, max_recipients: u32) -> Self {
        Self {
            max_message_bytes,
            max_recipients,
            messages_per_minute: None,
            messages_per_hour: None,
            recipients_per_day: None,
            connections: Self::default_connections(),
        }
    }

    const fn default_connections() -> u32 {
        1
    }

    const fn is_default_connections(connections: &u32) -> bool {
        *connections == Self::default_connections()
    }
}
