//! The messages of the control service: HTTPS with JSON bodies, sidecar to operator.
//!
//! `POST /v1/report` with `Authorization: Bearer <token of audience mailroute.dev>` and a [`Report`].
//! * 200 and a [`ReportReply`]: taken.
//! * 421 and a [`NotLeader`]: this replica is not the leader; ask the one named, under the same server name.
//! * 401, 403: the token is not valid, or not of a pod of that route. 413, 429: too much, too often.
//!
//! Who is calling is taken from the token alone (namespace, pod name, pod uid), never from the body.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::condition::{ConditionType, Reason};

/// Path of the one exchange.
pub const REPORT_PATH: &str = "/v1/report";

/// Largest request body the service reads, bytes.
pub const MAX_REPORT_BYTES: usize = 16 * 1024;

/// Longest [`Observation::message`], bytes; a sidecar cuts before sending and the service cuts again.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// What one sidecar has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the route in use.
    pub route: String,
    /// Generation of the route file in use.
    pub generation: i64,
    /// Version of the sidecar program.
    pub sidecar_version: String,
    /// Why the newest route file is not in use, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// What the sidecar met, at most one for each condition; a condition without evidence is left out.
    #[serde(default)]
    pub observations: Vec<Observation>,
    /// What waits here.
    #[serde(default)]
    pub queue: Queue,
    /// What was sent from here.
    #[serde(default)]
    pub usage: Usage,
    /// The address that the upstream saw this sidecar come from last, when it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<IpAddr>,
}

/// One condition as a sidecar met it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Which condition.
    pub condition: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why.
    pub reason: Reason,
    /// What was met, in words: the upstream's reply for example. Free of secrets and mail addresses of recipients.
    pub message: String,
    /// When it was met last, seconds since the Unix epoch.
    pub at: i64,
}

/// What waits in a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Messages accepted and not yet delivered.
    pub messages: u64,
    /// Age of the oldest, seconds.
    pub oldest_seconds: u64,
    /// Messages given up after a 250 and kept.
    pub dead_letters: u64,
}

/// What was sent from a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Messages sent upstream in the last 60 seconds, those that it refused included: they count against the limit.
    pub messages_last_minute: u64,
    /// Recipients accepted upstream in the last 24 hours; by this sidecar's start at the earliest where no limit is set.
    pub recipients_last_24h: u64,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportReply {
    /// When to report again, seconds from now, if nothing changes before.
    pub next_seconds: u32,
}

/// The answer of a replica that is not the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotLeader {
    /// `ip:port` of the leader's control service, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}
