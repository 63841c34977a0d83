//! What is recorded of Graph beside the messages themselves.
//!
//! Plain data, read over the control API. Tokens are described, never kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One request at Graph and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphRequest {
    /// When it was answered.
    pub at: Timestamp,
    /// The connection that it came over, counting from 1 over all faces.
    pub connection: u64,
    /// Client id of the application; empty when the token was refused.
    pub client_id: String,
    /// The mailbox as the path named it, decoded.
    pub mailbox: String,
    /// Bytes of the body.
    pub octets: usize,
    /// The body came in chunks, without `Content-Length`.
    pub chunked: bool,
    /// `client-request-id`, when it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request_id: Option<String>,
    /// HTTP status of the answer; 0 when the connection was cut.
    pub status: u16,
    /// `error.code`; empty without one.
    pub code: String,
    /// `Retry-After` of the answer, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// A non-delivery report in a mailbox's inbox: Exchange did not deliver what Graph had accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NonDeliveryReport {
    /// When.
    pub at: Timestamp,
    /// The mailbox that sent the message, and gets the report.
    pub mailbox: String,
    /// `Message-ID` of the message.
    pub message_id: String,
    /// Recipients that did not get it.
    pub recipients: Vec<String>,
    /// The reply that the report quotes, such as `550 5.7.233 …`.
    pub reason: String,
}
