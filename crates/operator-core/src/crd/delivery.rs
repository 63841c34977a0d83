//! What is promised to applications, and within which bounds: `spec.delivery` and `spec.limits`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use mailroute_route::file;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::is_size_within;

/// What the sidecar promises when it accepts a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'Deliver' || !self.deadLetter.notifySender")
        .message("mode Deliver keeps no message, so there is nothing to notify a sender of; use DeliverOrQueue or Queue")
        .field_path(".deadLetter.notifySender")
)]
pub struct Delivery {
    /// What 250 means. DeliverOrQueue: tried at once while the application waits. Accepted by Microsoft 365: 250; refused
    /// for good: Microsoft's own 5xx; slow, throttled or unreachable: the message is kept on disk and 250 is said. Queue:
    /// kept first, then 250, then delivered. Deliver: nothing is kept, and on transient trouble the application gets 451 and
    /// keeps the message.
    #[serde(default)]
    pub mode: DeliveryMode,
    /// How long a kept message is tried, such as `48h` or `1h30m`; then it is a dead letter.
    #[serde(default = "Delivery::default_max_age")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('336h')")
        .message("must be a duration of hours, minutes and seconds from 1m to 336h, such as 48h"))]
    pub max_age: String,
    /// How long an application waits for Microsoft 365 in mode DeliverOrQueue before the message is kept and answered. Has to be
    /// less than the read time-out of its mail client, or it sends again what was accepted. Exchange delays permanent refusals by
    /// about 5s: with 4s the application rarely sees them, and the message becomes a dead letter or is held; with 8s it gets
    /// Microsoft's own 5xx.
    #[serde(default = "Delivery::default_wait")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1s') && duration(self) <= duration('2m')")
        .message("must be a duration of minutes and seconds from 1s to 2m, such as 10s"))]
    pub wait: String,
    /// What becomes of a kept message that is given up.
    #[serde(default)]
    pub dead_letter: DeadLetter,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            mode: DeliveryMode::default(),
            max_age: Self::default_max_age(),
            wait: Self::default_wait(),
            dead_letter: DeadLetter::default(),
        }
    }
}

impl Delivery {
    /// A weekend without anybody who looks after the mail.
    fn default_max_age() -> String {
        "48h".to_owned()
    }

    /// More than Exchange usually takes, and less than the five seconds after which mail libraries of web frameworks stop
    /// reading and send again.
    fn default_wait() -> String {
        "4s".to_owned()
    }
}

/// What 250 means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryMode {
    /// Try at once, keep the message when that does not succeed soon.
    #[default]
    DeliverOrQueue,
    /// Keep the message first, deliver later.
    Queue,
    /// Microsoft 365 has accepted the message.
    Deliver,
}

impl From<DeliveryMode> for file::DeliveryMode {
    fn from(mode: DeliveryMode) -> Self {
        match mode {
            DeliveryMode::DeliverOrQueue => Self::DeliverOrQueue,
            DeliveryMode::Queue => Self::Queue,
            DeliveryMode::Deliver => Self::Deliver,
        }
    }
}

/// What becomes of a kept message that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// How many each sidecar keeps, to be looked at and tried again by hand; beyond it the oldest goes.
    #[schemars(range(min = 0, max = 100_000))]
    pub keep: u32,
    /// Whether the sender is sent a delivery status notification (RFC 3464), through the same route.
    pub notify_sender: bool,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self { keep: 1000, notify_sender: false }
    }
}

/// Bounds on one message, and on what is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Most messages of the mailbox in any minute; Exchange Online takes 30. For ClientSubmission, as the other methods have
    /// no mailbox. All pods that send as the mailbox share it, whatever their route and namespace; of several routes of a namespace the
    /// smallest counts, and it bounds what that namespace gets.
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_minute: u32,
    /// Most recipients of the mailbox in any 24 hours; Exchange Online takes 10000. For ClientSubmission, and shared in the same
    /// way; a twentieth is kept for pods that cannot reach the operator.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub recipients_per_day: u32,
    /// Most connections to Microsoft 365 at a time. ClientSubmission: of the mailbox, for which Exchange Online takes 3; they
    /// are shared by all pods, and each sidecar uses one. SmtpRelay and DirectSend: of each sidecar.
    #[schemars(range(min = 1, max = 100))]
    pub connections: u32,
    /// Largest message, such as `35Mi`, or a number of bytes; announced as SIZE. Exchange Online takes 35 MiB unless the mailbox
    /// is set otherwise, and 150 MiB at most.
    // As an extension, since `KubeSchema` has no defaults of a whole struct.
    #[schemars(extend("maxLength" = 32, "x-kubernetes-validations" = [{
        "rule": is_size_within("1Ki", "150Mi"),
        "message": "must be a size from 1Ki to 150Mi, such as 35Mi, or that number of bytes",
    }]))]
    pub max_message_bytes: Quantity,
    /// Most recipients of one message. Exchange Online takes 500 unless the mailbox is set otherwise, and 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_recipients: u32,
}

impl Default for Limits {
    /// What Exchange Online has for a mailbox that nobody set otherwise.
    fn default() -> Self {
        Self {
            messages_per_minute: 30,
            recipients_per_day: 10_000,
            connections: 3,
            max_message_bytes: Quantity("35Mi".to_owned()),
            max_recipients: 500,
        }
    }
}
