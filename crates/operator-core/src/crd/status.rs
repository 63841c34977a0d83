//! What the operator writes back: conditions, and sums over the sidecars of a route.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of the route, written by the operator from the sidecars' reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailRouteStatus {
    /// The generation of the spec that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, CertificateValid, CredentialReady, UpstreamReachable, Authenticated, SendersAccepted, GatewayReady,
    /// SidecarsReporting and Ready; also SidecarsCurrent, DnsPublished and FederationFits, which do not affect Ready, as
    /// GatewayReady does with durability Gateway alone; and, for tools that wait, Stalled or Reconciling. Each has a reason, and a
    /// message with the error and what to do about it.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
    /// Who sends: the mailbox of ClientSubmission or Graph; otherwise the senders that the route allows, or the accepted domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// `host:port` that mail is delivered to; `MX of domain:port` if the name is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The pods that use the route, those of its gateway included: they run the same program.
    #[serde(default)]
    pub sidecars: Sidecars,
    /// Messages queued in the sidecars and in the gateway.
    #[serde(default)]
    pub queue: QueueStatus,
    /// The pods of the route's gateway. Absent if the route names none and has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// What the sidecars sent.
    #[serde(default)]
    pub usage: UsageStatus,
    /// Each mailbox of a route with several. Absent if it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    #[schemars(length(max = 16))]
    pub mailboxes: Vec<MailboxStatus>,
    /// The pod that was refused last. Written by the replica whose webhook was called; it remains when pods are admitted
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedPod>,
}

/// Longest message about a pod that was refused, characters.
pub const LONGEST_REFUSAL: usize = 1024;

/// A pod that the webhook refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedPod {
    /// Name of the pod, or the name that its controller generates names from.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Reason, from a closed set.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, and what to do.
    #[schemars(length(max = LONGEST_REFUSAL))]
    pub message: String,
    /// Time of the last refusal, to within some minutes.
    pub at: Time,
    /// Generation of the route in use at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl MailRouteStatus {
    /// The status of the condition Ready: `True`, `False` or, also while there is none, `Unknown`.
    pub fn readiness(&self) -> &str {
        let ready = self.conditions.iter().find(|condition| condition.type_ == "Ready");
        ready.map_or("Unknown", |condition| &condition.status)
    }
}

/// The pods that use a route: with a sidecar, or as its gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecars {
    /// Pods that have the sidecar, or are a gateway, and have not ended.
    pub injected: u32,
    /// Pods whose sidecar accepts mail.
    pub ready: u32,
    /// Pods whose sidecar uses the current generation of the route.
    pub converged: u32,
    /// Pods whose sidecar differs from what a new pod would get: another image, or settings that only a new pod gets.
    pub outdated: u32,
    /// Pods that have the route's label but no sidecar; not included in `injected`.
    pub missing: u32,
    /// Pods that run but have not reported to the operator for five minutes or more.
    pub silent: u32,
}

/// What waits in the sidecars of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueStatus {
    /// Messages accepted but not yet delivered.
    pub messages: u64,
    /// Age of the oldest message, in seconds.
    pub oldest_seconds: u64,
    /// Stored dead letters: messages given up after they were accepted.
    pub dead_letters: u64,
    /// Messages that were queued in pods when the pods ended, since the route was created. With an `emptyDir` they are lost.
    /// What a gateway's pod leaves on its volume claim is not counted: the next pod delivers it.
    pub lost: u64,
}

/// The gateway of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Pods of the gateway that have not ended.
    pub pods: u32,
    /// Pods of the gateway that take messages over.
    pub ready: u32,
    /// Messages that wait in them; included in `queue.messages`.
    pub queued: u64,
    /// Age of the oldest of these messages, in seconds.
    pub oldest_seconds: u64,
}

/// One mailbox of a route with several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailboxStatus {
    /// Its address.
    #[schemars(length(max = 254))]
    pub address: String,
    /// Whether pods have reported about it, and none has met an error.
    pub ready: bool,
    /// Reason of the last error that a pod has met and that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Messages that Microsoft 365 accepted from it in the last 60 seconds.
    #[serde(default)]
    pub messages_last_minute: u64,
    /// Recipients that Microsoft 365 accepted from it in the last 24 hours.
    #[serde(default, rename = "recipientsLast24h")]
    pub recipients_last_24h: u64,
}

/// What the sidecars of a route sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageStatus {
    /// Messages that Microsoft 365 accepted in the last 60 seconds, including those from pods that have ended.
    pub messages_last_minute: u64,
    /// Recipients that Microsoft 365 accepted in the last 24 hours, from the sidecars that are running now.
    #[serde(rename = "recipientsLast24h")]
    pub recipients_last_24h: u64,
}
