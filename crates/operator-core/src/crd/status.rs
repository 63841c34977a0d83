//! What the operator writes back: conditions, and sums over the sidecars of a route.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the route. Written by the operator from what the sidecars report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailRouteStatus {
    /// The generation of the spec that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, CertificateValid, CredentialReady, UpstreamReachable, Authenticated, SendersAccepted, SidecarsReporting and
    /// Ready, and what does not touch Ready: SidecarsCurrent, DnsPublished and FederationFits. Each with its reason; a message says what
    /// was met and what to do about it.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
    /// Who mail is from: the mailbox of ClientSubmission; else the senders that the route allows, or the accepted domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// `host:port` that mail is handed to; `MX of domain:port` where the name is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The pods that use the route.
    #[serde(default)]
    pub sidecars: Sidecars,
    /// What waits in the sidecars.
    #[serde(default)]
    pub queue: QueueStatus,
    /// What the sidecars sent.
    #[serde(default)]
    pub usage: UsageStatus,
    /// The pod that was refused last. Written by the replica whose webhook was asked; it stays when pods are let in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedPod>,
}

/// Longest message about a pod that was refused, characters.
pub const LONGEST_REFUSAL: usize = 1024;

/// A pod that the webhook refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedPod {
    /// Its name, or what its controller names its pods after.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Why, of a closed set.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, and what to do.
    #[schemars(length(max = LONGEST_REFUSAL))]
    pub message: String,
    /// When it was refused last, to some minutes.
    pub at: Time,
    /// The generation of the route that was in use.
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

/// The pods that use a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecars {
    /// Pods with the sidecar that have not ended.
    pub injected: u32,
    /// Those whose sidecar accepts mail.
    pub ready: u32,
    /// Those whose sidecar uses the current generation of the route.
    pub converged: u32,
    /// Those whose sidecar is not as a new pod would get it: another image, or settings that only a new pod gets.
    pub outdated: u32,
    /// Pods that carry the label of the route and have no sidecar, which are not among those injected.
    pub missing: u32,
    /// Those that run and have not reported to the operator for five minutes or more.
    pub silent: u32,
}

/// What waits in the sidecars of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueStatus {
    /// Messages accepted and not yet delivered.
    pub messages: u64,
    /// Age of the oldest, in seconds.
    pub oldest_seconds: u64,
    /// Messages given up after they were accepted, and kept.
    pub dead_letters: u64,
    /// Messages that waited in pods when these ended, since the route was created. With an `emptyDir` they are lost.
    pub lost: u64,
}

/// What the sidecars of a route sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageStatus {
    /// Messages that Microsoft 365 accepted in the last 60 seconds, also from pods that have ended since.
    pub messages_last_minute: u64,
    /// Recipients that Microsoft 365 accepted in the last 24 hours, from the sidecars that run now.
    #[serde(rename = "recipientsLast24h")]
    pub recipients_last_24h: u64,
}
