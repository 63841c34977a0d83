//! What of a mailbox's limits was used and leased, as the operator keeps it for itself: the kind `MailboxUsage`.
//!
//! One object for each mailbox, in the operator's own namespace, named by a digest of tenant and address. People may read and
//! delete it; nobody but the operator writes it. The columns are for people, [`MailboxUsageSpec::record`] is for the next leader.
#![expect(clippy::duplicated_attributes, reason = "several columns have the same type")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label with the namespace whose pod was the first to send as the mailbox.
pub const OPENED_BY_LABEL: &str = "mailroute.dev/opened-by";

/// How much of a mailbox's limits was used and leased at the last write. Only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "mailroute.dev",
    version = "v1alpha1",
    kind = "MailboxUsage",
    plural = "mailboxusages",
    namespaced,
    derive = "PartialEq",
    doc = "What of a mailbox's limits was used and leased, named by a digest of tenant and address. Written by the operator alone, so that a change of leader forgets nothing; removed when the mailbox was not used for a day.",
    printcolumn(name = "Messages", type_ = "string", json_path = ".spec.messages"),
    printcolumn(name = "Recipients", type_ = "string", json_path = ".spec.recipients"),
    printcolumn(name = "Sidecars", type_ = "integer", json_path = ".spec.sidecars"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".spec.waiting"),
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MailboxUsageSpec {
    /// Messages used in the last minute or leased, out of the mailbox's limit.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub messages: String,
    /// Recipients used in the last 24 hours or leased, out of the mailbox's limit.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub recipients: String,
    /// Sidecars that send as the mailbox.
    #[serde(default)]
    pub sidecars: u32,
    /// Sidecars that wait for their turn.
    #[serde(default)]
    pub waiting: u32,
    /// The namespaces that send as the mailbox, or some of them if there are many.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub namespaces: String,
    /// State for the next leader, in the operator's own format. If it cannot be read, nothing is sent as this mailbox for
    /// two minutes.
    #[schemars(length(max = 1_000_000))]
    pub record: String,
}
