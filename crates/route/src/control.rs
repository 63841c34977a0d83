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
//! `POST /v1/certificate` with the same header and a [`CertificateRequest`], for routes with a gateway. Every replica answers.
//! * 200 and a [`CertificateReply`].
//! * Any other status and a [`ServiceRefusal`]: 401, 403, 413, 429 as above; 400: not a valid request; 503: try again.
//!
//! `POST /v1/review` with the same header and a [`ReviewRequest`], from gateways: whose ServiceAccount token is this? Every
//! replica answers.
//! * 200 and a [`ReviewReply`]: the API server has accepted the token.
//! * Any other status and a [`ServiceRefusal`]: 401, 403, 413, 429 as above; 422: the API server has refused the client's token;
//!   503: try again.
//!
//! The report also shares out what a mailbox may send: it carries a [`Claim`], the reply an [`Allotment`]. They belong to the
//! protocol of limits, which is [`mailroute_quota`]'s.
//!
//! Who is calling is taken from the token alone (namespace, pod name, pod uid), never from the body.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use mailroute_quota::wire::{
    Allotment, Claim, Lease, LeaseUse, MAX_LEASES, ShortOf, SlotAssignment, Throttled, TimeSlots,
};

use crate::condition::{ConditionType, Reason};
use crate::file::MAX_MAILBOXES;

/// Path of reports.
pub const REPORT_PATH: &str = "/v1/report";

/// Path of requests for an access token.
pub const TOKEN_PATH: &str = "/v1/token";

/// Path of requests for a certificate.
pub const CERTIFICATE_PATH: &str = "/v1/certificate";

/// Path of requests to review a client's token.
pub const REVIEW_PATH: &str = "/v1/review";

/// Largest body of a [`CertificateRequest`], bytes. A request for an ECDSA P-256 key has about 500.
pub const MAX_CERTIFICATE_REQUEST_BYTES: usize = 4 * 1024;

/// Largest body of a [`ReviewRequest`], bytes: a token of [`crate::jwt::MAX_TOKEN_BYTES`], and the rest.
pub const MAX_REVIEW_REQUEST_BYTES: usize = crate::jwt::MAX_TOKEN_BYTES + 1024;

/// Largest body of a [`TokenRequest`], bytes.
pub const MAX_TOKEN_REQUEST_BYTES: usize = 1024;

/// Largest request body the service reads, bytes: a claim, and a little more, for each of [`MAX_MAILBOXES`].
pub const MAX_REPORT_BYTES: usize = 32 * 1024;

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
    /// Of a sidecar, why the route's gateway cannot be reached; of both, why the pod has no certificate for it. None while all is well. At
    /// most [`MAX_MESSAGE_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_error: Option<String>,
    /// What is asked of the mailbox's limits, where the service leases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What there is to say of each mailbox, where the route has several; then `claim` is absent, and `observations` and `usage` are
    /// those of all. At most [`MAX_MAILBOXES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<MailboxReport>,
}

impl Report {
    /// What is asked of each mailbox's limits.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        let of_each = self.mailboxes.iter().take(MAX_MAILBOXES).filter_map(|mailbox| mailbox.claim.as_ref());
        self.claim.iter().chain(of_each)
    }
}

/// What a sidecar has to say of one mailbox among several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxReport {
    /// Its address.
    pub mailbox: String,
    /// The first condition that does not hold, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Observation>,
    /// What was sent as it.
    #[serde(default)]
    pub usage: Usage,
    /// What is asked of its limits.
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
    /// Messages accepted but not yet delivered.
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
    /// The share of each mailbox's limits that [`Report::mailboxes`] has a claim for; one that is missing is not answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allotments: Vec<MailboxAllotment>,
    /// Whether the MailRoute of the pod is gone. The sidecar goes on with its last configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub route_deleted: bool,
}

/// The share of one mailbox's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxAllotment {
    /// Its address, as the claim has it.
    pub mailbox: String,
    /// What it is.
    pub allotment: Allotment,
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

/// Asks for a certificate of the pod that asks, in its role for the route: a client's, and a gateway's is a server's as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// Name of the route in use.
    pub route: String,
    /// A certificate signing request (RFC 2986), PEM. Of it only the public key is used, and the proof that the caller has the
    /// private one.
    pub csr_pem: String,
}

/// A certificate; its names are in [`crate::identity`], its life is [`crate::identity::CERTIFICATE_SECONDS`] or less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReply {
    /// The chain, leaf first, without the root, PEM.
    pub chain_pem: String,
    /// How long it is good yet, seconds.
    pub expires_in: u64,
}

/// Asks whose token a client of the gateway has shown. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewRequest {
    /// Name of the route in use.
    pub route: String,
    /// A ServiceAccount's token, of one of the audiences [`crate::paths::login_audiences`], bound to a pod.
    pub token: String,
}

impl fmt::Debug for ReviewRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReviewRequest").field("route", &self.route).finish_non_exhaustive()
    }
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewReply {
    /// Namespace of the ServiceAccount and of the pod.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub service_account: String,
    /// Name of the pod that the token is bound to.
    pub pod: String,
}

/// Why there is no certificate, or no review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRefusal {
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
    fn older_programs_and_newer_ones_understand_each_other() {
        let report = r#"{"route":"r","generation":1,"sidecarVersion":"0","observations":[],"queue":{"messages":0,"oldestSeconds":0,"deadLetters":0},"usage":{"messagesLastMinute":0,"recipientsLast24h":0}}"#;
        let old: Report = serde_json::from_str(report).unwrap();
        assert!(old.mailboxes.is_empty() && old.claims().next().is_none());
        assert_eq!(serde_json::to_string(&old).unwrap(), report, "of one mailbox nothing new is said");
        let mailbox = |claim| MailboxReport {
            mailbox: "a@contoso.com".into(),
            trouble: None,
            usage: Usage::default(),
            claim,
        };
        let several = Report { mailboxes: vec![mailbox(None), mailbox(Some(Claim::default()))], ..old };
        assert_eq!(several.claims().count(), 1);
        let text = serde_json::to_string(&several).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), several);
        let reply: ReportReply = serde_json::from_str(r#"{"nextSeconds":60}"#).unwrap();
        assert!(reply.allotments.is_empty());
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"nextSeconds":60}"#);
    }

    #[test]
    fn a_token_is_not_shown() {
        let reply = TokenReply { access_token: "canary".into(), expires_in: 3600 };
        assert_eq!(format!("{reply:?}"), "TokenReply { expires_in: 3600, .. }");
    }
}
