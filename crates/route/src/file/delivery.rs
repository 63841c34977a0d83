//! What 250 means, and what becomes of a message that was kept.

use serde::{Deserialize, Serialize};

use super::is_default;

/// The promise behind 250.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DeliveryMode {
    /// Tried at once while the application waits: 250 when Microsoft 365 has accepted the message, Microsoft's own 5yz
    /// when it refuses for good, and otherwise the message is kept and 250 said.
    #[default]
    DeliverOrQueue,
    /// Kept first, then 250, then delivered.
    Queue,
    /// 250 only when Microsoft 365 has accepted the message; transient trouble is 451 and nothing is kept.
    Deliver,
}

impl DeliveryMode {
    /// Whether messages may wait in the sidecar.
    pub const fn keeps(self) -> bool {
        matches!(self, Self::DeliverOrQueue | Self::Queue)
    }
}

/// What a queued message survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Durability {
    /// The crash of the sidecar: the message is synced to the pod's own volume before the 250.
    #[default]
    Pod,
    /// The loss of the pod and of its node: the message is synced to the gateway's volume before the 250.
    Gateway,
}

/// What the application is told when a message has to wait and no gateway can be reached, with [`Durability::Gateway`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum GatewayUnavailable {
    /// 451; the application sends the message again.
    #[default]
    Refuse,
    /// 250, once the message is synced to the pod's own volume.
    Pod,
}

/// What the sidecar does between the end of the data and its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delivery {
    /// The promise behind 250.
    pub mode: DeliveryMode,
    /// How long an application waits for the upstream in [`DeliveryMode::DeliverOrQueue`] before the message is kept
    /// and answered, seconds.
    #[serde(default = "Delivery::default_wait", skip_serializing_if = "Delivery::is_default_wait")]
    pub wait_seconds: u64,
    /// How long a kept message is tried, seconds since its 250.
    #[serde(default = "Delivery::default_max_age", skip_serializing_if = "Delivery::is_default_max_age")]
    pub max_age_seconds: u64,
    /// What happens to a queued message that is given up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dead_letters: DeadLetters,
    /// Most octets of kept messages, dead letters included; beyond it the application gets 452. Less than what the
    /// volume holds, since Kubernetes evicts a pod whose volume is overfull.
    #[serde(default = "Delivery::default_spool", skip_serializing_if = "Delivery::is_default_spool")]
    pub max_spool_bytes: u64,
    /// What a queued message survives.
    #[serde(default, skip_serializing_if = "is_default")]
    pub durability: Durability,
    /// What happens while no gateway can be reached.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_unavailable: GatewayUnavailable,
}

impl Delivery {
    /// A mode with the default of everything else.
    pub const fn new(mode: DeliveryMode) -> Self {
        Self {
            mode,
            wait_seconds: Self::default_wait(),
            max_age_seconds: Self::default_max_age(),
            dead_letters: DeadLetters { keep: DeadLetters::default_keep(), notify_sender: false },
            max_spool_bytes: Self::default_spool(),
            durability: Durability::Pod,
            gateway_unavailable: GatewayUnavailable::Refuse,
        }
    }

    /// Mail libraries of web frameworks stop reading after five seconds, and send again what was accepted since.
    const fn default_wait() -> u64 {
        4
    }

    const fn is_default_wait(seconds: &u64) -> bool {
        *seconds == Self::default_wait()
    }

    const fn default_max_age() -> u64 {
        48 * 3600
    }

    const fn is_default_max_age(seconds: &u64) -> bool {
        *seconds == Self::default_max_age()
    }

    const fn default_spool() -> u64 {
        900 * 1024 * 1024
    }

    const fn is_default_spool(bytes: &u64) -> bool {
        *bytes == Self::default_spool()
    }
}

/// What happens to a queued message that is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetters {
    /// How many are kept; beyond it the oldest goes.
    #[serde(default = "DeadLetters::default_keep")]
    pub keep: u32,
    /// Whether the sender is sent a delivery status notification (RFC 3464).
    #[serde(default)]
    pub notify_sender: bool,
}

impl DeadLetters {
    const fn default_keep() -> u32 {
        1000
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { keep: Self::default_keep(), notify_sender: false }
    }
}
