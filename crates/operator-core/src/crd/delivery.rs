//! What is promised to applications, with what behind it, and within which bounds: `spec.delivery`, `spec.gateway`, `spec.limits`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use mailroute_route::file::{DeliveryMode, Durability, GatewayUnavailable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::is_size_within;

/// What it means when the sidecar accepts a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'Deliver' || !self.deadLetter.notifySender")
        .message("mode Deliver stores no messages, so there are no notifications; use DeliverOrQueue or Queue")
        .field_path(".deadLetter.notifySender"),
    validation = Rule::new("self.mode != 'Deliver' || self.durability != 'Gateway'")
        .message("mode Deliver stores no messages, so there are none to store in a gateway: use durability Pod, or the mode DeliverOrQueue or Queue")
        .field_path(".durability"),
    validation = Rule::new("self.durability == 'Gateway' || self.gatewayUnavailable == 'Refuse'")
        .message("gatewayUnavailable says what happens with durability Gateway: set that too, or leave gatewayUnavailable out")
        .field_path(".gatewayUnavailable")
)]
pub struct Delivery {
    /// What 250 means. DeliverOrQueue: the sidecar tries to deliver while the application waits. If Microsoft 365 accepts,
    /// the reply is 250; if it permanently refuses, Microsoft's own 5xx; if it is slow, throttles or is unreachable, the
    /// message is stored on disk and the reply is 250. Queue: the message is stored on disk, answered 250, then delivered.
    /// Deliver: nothing is stored; on temporary errors the application gets 451 and has to send again.
    #[serde(default)]
    pub mode: DeliveryMode,
    /// How long a queued message is tried, such as `48h` or `1h30m`; then it becomes a dead letter.
    #[serde(default = "Delivery::default_max_age")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('336h')")
        .message("must be a duration of hours, minutes and seconds from 1m to 336h, such as 48h"))]
    pub max_age: String,
    /// How long an application waits for Microsoft 365 in mode DeliverOrQueue before the message is queued and answered 250. Must be
    /// less than the read timeout of its mail client, or the client sends again what was accepted. Exchange delays permanent refusals by
    /// about 5s: with 4s the application rarely sees them, and the message becomes a dead letter or is held; with 8s it gets
    /// Microsoft's own 5xx.
    #[serde(default = "Delivery::default_wait")]
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && duration(self) >= duration('1s') && duration(self) <= duration('2m')")
        .message("must be a duration of minutes and seconds from 1s to 2m, such as 10s"))]
    pub wait: String,
    /// What happens to a queued message that is given up.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// What a message that waits survives. Pod: the crash of its containers; with an emptyDir the message is lost if the pod is
    /// deleted without its grace period, or its node is lost. Gateway: those too; what cannot be delivered at once is stored
    /// on the volume claim of the route's gateway before the application gets 250. Needs `spec.gateway`.
    #[serde(default)]
    pub durability: Durability,
    /// What the application gets if a message has to wait and no gateway can be reached, with durability Gateway. Refuse: 451, so
    /// that the application sends again. Pod: 250, when the message is stored on the pod's own volume; it is handed over when
    /// a gateway can be reached.
    #[serde(default)]
    pub gateway_unavailable: GatewayUnavailable,
}

/// The gateway of the route: pods with volume claims, installed by the chart `mailroute-gateway` into the namespace of the route. Pods
/// that end hand over to it what they have not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the gateway's headless Service, in the namespace of the route. The chart names it like its release.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')")
        .message("must be the name of a Service, such as mail-gateway: a lower-case letter first, then lower-case letters, digits and -"))]
    pub service_name: String,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            mode: DeliveryMode::default(),
            max_age: Self::default_max_age(),
            wait: Self::default_wait(),
            dead_letter: DeadLetter::default(),
            durability: Durability::default(),
            gateway_unavailable: GatewayUnavailable::default(),
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

/// What happens to a queued message that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// How many dead letters each sidecar stores, for inspection and manual retries; beyond that the oldest is deleted.
    #[schemars(range(min = 0, max = 100_000))]
    pub keep: u32,
    /// Whether the sender gets a delivery status notification (RFC 3464), through the same route.
    pub notify_sender: bool,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self { keep: 1000, notify_sender: false }
    }
}

/// Limits on a single message, and on everything that is sent. What is left out is what Microsoft allows by the route's
/// method and service: [`crate::resolve`] fills it in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Maximum messages of the mailbox in any minute. Only for methods with a mailbox: ClientSubmission and Graph, which
    /// share it. All pods that send as the mailbox share it, whatever their route and namespace. If routes of a namespace
    /// differ, the smallest value limits what that namespace gets. Default: 30, as Exchange Online and Communication Services
    /// allow; with HighVolumeEmail no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub messages_per_minute: Option<u32>,
    /// Maximum messages of the mailbox in any 60 minutes, shared in the same way. Default: 100 with CommunicationServices,
    /// otherwise no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_hour: Option<u32>,
    /// Maximum recipients of the mailbox in any 24 hours, shared in the same way; a twentieth is reserved for pods that
    /// cannot reach the operator. Default: 10000, as Exchange Online allows; with HighVolumeEmail and CommunicationServices
    /// no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub recipients_per_day: Option<u32>,
    /// Maximum concurrent connections to Microsoft 365. ClientSubmission: of the mailbox, for which Exchange Online allows
    /// 3; all pods share them, and each sidecar uses one. Graph: requests at once, in the same way. SmtpRelay and
    /// DirectSend: of each sidecar. Default: 4 with Graph, otherwise 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub connections: Option<u32>,
    /// Maximum message size, such as `35Mi`, or a number of bytes; announced as SIZE. Exchange Online accepts 35 MiB by
    /// default, and up to 150 MiB if the mailbox allows it. Default: 35Mi; with HighVolumeEmail and CommunicationServices
    /// 10M; with Graph without a fallback graph.maxMessageBytes.
    // As an extension, since `KubeSchema` has no defaults of a whole struct.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32, "x-kubernetes-validations" = [{
        "rule": is_size_within("1Ki", "150Mi"),
        "message": "must be a size from 1Ki to 150Mi, such as 35Mi, or that number of bytes",
    }]))]
    pub max_message_bytes: Option<Quantity>,
    /// Maximum recipients of one message. Exchange Online accepts 500 by default, and up to 1000 if the mailbox allows it.
    /// Default: 500; with HighVolumeEmail and CommunicationServices 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_recipients: Option<u32>,
}
