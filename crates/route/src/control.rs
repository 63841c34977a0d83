//! The messages of the control service: HTTPS with JSON bodies, sidecar to operator.
//!
//! `POST /v1/report` with `Authorization: Bearer <token of audience mailroute.dev>` and a [`Report`].
//! * 200 and a [`ReportReply`]: taken.
//! * 421 and a [`NotLeader`]: this replica is not the leader; ask the one named, under the same server name.
//! * 401, 403: the token is not valid, or not of a pod of that route. 413, 429: too much, too often.
//!
//! `POST /v1/token` with the same header and a [`TokenRequest`], for routes whose credential is the operator's identity.
//! Every replica answers.
//! * 200 and a [`TokenReply`].
//! * Any other status and a [`TokenRefusal`]: 401, 403, 413, 429 as above; 502: Entra issued none; 503: try again.
//!
//! The report also shares out what a mailbox may send: it carries a [`Claim`], the reply an [`Allotment`]. Times in
//! them are lengths, never moments, since clocks differ; each side counts them so that it errs to the safe side: the sidecar
//! from when it asked, the service from when it answers.
//!
//! Who is calling is taken from the token alone (namespace, pod name, pod uid), never from the body.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::condition::{ConditionType, Reason};

/// Path of reports.
pub const REPORT_PATH: &str = "/v1/report";

/// Path of requests for an access token.
pub const TOKEN_PATH: &str = "/v1/token";

/// Largest body of a [`TokenRequest`], bytes.
pub const MAX_TOKEN_REQUEST_BYTES: usize = 1024;

/// Largest request body the service reads, bytes.
pub const MAX_REPORT_BYTES: usize = 16 * 1024;

/// Longest [`Observation::message`], bytes; a sidecar cuts before sending and the service cuts again.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// Most Message-IDs in [`Report::left`].
pub const MAX_LEFT: usize = 10;

/// Longest Message-ID in [`Report::left`], bytes; a longer one is left out.
pub const MAX_MESSAGE_ID_BYTES: usize = 250;

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
    /// Why the newest route file is not in use, or what of it is not followed.
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
    /// Message-IDs of the newest messages that wait, at most [`MAX_LEFT`]. Sent while the sidecar stops, unless the route
    /// says `logAddresses: Hidden`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// What is asked of the mailbox's limits, where the service leases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
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
    /// The share of the mailbox's limits; absent where the service does not lease them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allotment: Option<Allotment>,
    /// Whether the MailRoute of the pod is gone. The sidecar goes on with its last configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub route_deleted: bool,
}

/// Most leases that one claim names. A sidecar with as many unconfirmed ones asks for no more.
pub const MAX_LEASES: usize = 32;

/// What a sidecar asks of its mailbox's limits, and what has become of what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Which life of the sidecar this is: milliseconds since the Unix epoch at its start. An earlier one has ended.
    pub instance: u64,
    /// Grows with each claim of one life. An older one that arrives late is not looked at.
    pub sequence: u64,
    /// The mailbox that the sidecar sends as. Where the route names another one by now, nothing is leased until both agree.
    #[serde(default)]
    pub mailbox: String,
    /// Messages that wait for leave now.
    #[serde(default)]
    pub messages: u32,
    /// Recipients of the one that has most of them.
    #[serde(default)]
    pub recipients: u32,
    /// Leave is wanted to look at the way without a message.
    #[serde(default)]
    pub probe: bool,
    /// For how long something has waited since the last lease, milliseconds.
    #[serde(default)]
    pub waited_millis: u64,
    /// What Microsoft found too much since the last claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttled>,
    /// Every lease that is not confirmed, at most [`MAX_LEASES`]. One that was answered and is not named was not received.
    #[serde(default)]
    pub leases: Vec<LeaseUse>,
    /// The turns that it would take alone: index and number of slices, as in [`Turn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<(u32, u32)>,
    /// Recipients that Microsoft may have counted in turns taken alone since the last exchange.
    #[serde(default)]
    pub alone_recipients: u32,
    /// Nothing was sent in turns taken alone that is in a window still.
    #[serde(default)]
    pub no_turns_taken: bool,
    /// The sidecar stops: what it has not used is free.
    #[serde(default)]
    pub leaving: bool,
}

/// What Microsoft found too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Throttled {
    /// Messages a minute.
    Rate,
    /// Connections at a time.
    Connections,
}

/// What has become of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseUse {
    /// Which.
    pub id: u64,
    /// Messages it was for.
    pub messages: u32,
    /// Recipients it was for.
    pub recipients: u32,
    /// Whether nothing is under way any more and nothing more will be sent by it. Then the rest counts.
    #[serde(default)]
    pub ended: bool,
    /// Messages that Microsoft may have counted.
    #[serde(default)]
    pub used_messages: u32,
    /// Recipients that Microsoft may have counted.
    #[serde(default)]
    pub used_recipients: u32,
    /// How long ago the last of them was known to be counted, milliseconds.
    #[serde(default)]
    pub age_millis: u64,
}

/// What a sidecar may do with its mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allotment {
    /// Leave to send, when there is some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Why there is none though it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_of: Option<ShortOf>,
    /// When to make the next exchange, milliseconds from now. Sooner when there is something new to ask for or to give back.
    pub again_millis: u64,
    /// Leases that ended and need not be named again.
    #[serde(default)]
    pub confirmed: Vec<u64>,
    /// How long after the last exchange whatever is under way is cut off, milliseconds.
    pub cut_millis: u64,
    /// What may be sent when no exchange succeeds any more. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Turn>,
}

/// Leave to use one connection and to send so much over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its number, unique for the mailbox.
    pub id: u64,
    /// Messages; none for a look at the way.
    pub messages: u32,
    /// Recipients of them all.
    pub recipients: u32,
    /// How long a message may still be begun, milliseconds since it was asked for.
    pub valid_millis: u64,
}

/// What there is not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShortOf {
    /// Messages a minute, or a place at the front of the line for them.
    Messages,
    /// Recipients a day.
    Recipients,
    /// Connections at a time.
    Connections,
}

/// The turns of a sidecar that reaches nobody. Time since the Unix epoch is cut into slices, and every `of`th of them belongs
/// to this sidecar: some messages in each, by one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Which of the slices, below `of`.
    pub index: u32,
    /// How many there are, a power of two.
    pub of: u32,
    /// Length of a slice, milliseconds.
    pub slice_millis: u64,
    /// Messages in each slice.
    pub messages: u32,
    /// The first and last moment in a slice at which a message may be begun, and the one at which it is cut off.
    pub begin_millis: u64,
    /// See `begin_millis`.
    pub last_millis: u64,
    /// See `begin_millis`.
    pub cut_millis: u64,
    /// How long after the last exchange the first turn may be taken, milliseconds.
    pub after_millis: u64,
    /// Recipients in any day, all turns together.
    pub recipients: u32,
}

/// The answer of a replica that is not the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotLeader {
    /// `ip:port` of the leader's control service, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// Asks for an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// Name of the route in use.
    pub route: String,
    /// SHA-256, in lower-case hexadecimal digits, of the token that the upstream refused; another one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An access token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenReply {
    /// The token, for XOAUTH2.
    pub access_token: String,
    /// How long it is good yet, seconds.
    pub expires_in: u64,
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReply").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRefusal {
    /// What stands in the way, a reason of the condition `CredentialReady`.
    pub reason: Reason,
    /// What was met, in words. Free of secrets.
    pub message: String,
    /// How long not to ask again, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let reply = TokenReply { access_token: "canary".into(), expires_in: 3600 };
        assert_eq!(format!("{reply:?}"), "TokenReply { expires_in: 3600, .. }");
    }
}
