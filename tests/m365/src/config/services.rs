//! The settings of the ways in beside client submission and relay: Graph, High Volume Email, Communication Services.
//!
//! Plain data with Microsoft's figures as defaults; what Microsoft does not publish can be chosen.

use serde::{Deserialize, Serialize};

use crate::replies::{Line, ReplyText};

/// Graph's `sendMail`. Sources: Microsoft Graph, "Microsoft Graph service-specific throttling limits", Outlook; the edge of
/// size and its answer are reported differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Graph {
    /// The resource of its tokens.
    pub resource: String,
    /// Largest message, bytes of MIME (before base64).
    pub mime_bytes: usize,
    /// The answer to a larger one.
    pub oversize: Oversize,
    /// Requests that may be under way at once; 0 is no limit.
    pub concurrency: usize,
    /// Whose requests are counted together for `concurrency`. Both are documented.
    pub concurrency_per: ConcurrencyPer,
    /// `Retry-After` of a 429, seconds.
    pub retry_after_seconds: u64,
    /// Requests of one application for one mailbox in any `requests_milliseconds`; 0 is no limit.
    pub requests: u64,
    /// Length of that window.
    pub requests_milliseconds: u64,
    /// Bytes of request bodies of one application for one mailbox in any `upload_milliseconds`; 0 is no limit.
    pub upload_bytes: u64,
    /// Length of that window.
    pub upload_milliseconds: u64,
    /// Whether `X-` fields are removed whose name the mailbox has not seen by another way.
    pub removes_unseen_headers: bool,
    /// The names of `X-` fields that it has seen.
    pub seen_headers: Vec<String>,
}

/// What Graph answers to a message above its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Oversize {
    /// 413 with a page of HTML.
    #[default]
    EntityTooLarge,
    /// 400 `ErrorMessageSizeExceeded`.
    MessageSizeExceeded,
    /// 200, and nothing is sent.
    SilentlyDropped,
}

/// Whose requests share `Graph::concurrency`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConcurrencyPer {
    /// All of the application, whatever the mailbox.
    #[default]
    Application,
    /// Those of the application for one mailbox.
    ApplicationAndMailbox,
}

/// High Volume Email. Source: Exchange, "Manage high volume emails for Microsoft 365".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HighVolumeEmail {
    /// The resource of its tokens.
    pub resource: String,
    /// Recipients of one message.
    pub recipients_per_message: usize,
    /// Largest message, bytes; also the number behind `SIZE` in EHLO.
    pub message_bytes: usize,
    /// Time that a token must have left, seconds.
    pub token_margin_seconds: u64,
    /// The reply to a token with less.
    pub ending_token: EndingToken,
    /// When an external recipient is refused.
    pub external_refused_at: RefusedAt,
}

/// What High Volume Email says of a token that ends soon. Both have been reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndingToken {
    /// 501 5.5.127.
    #[default]
    InvalidData,
    /// 535 5.7.142.
    ExpiresSoon,
}

/// The stage at which something about a recipient is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusedAt {
    /// RCPT.
    #[default]
    Recipient,
    /// The end of data, for all recipients.
    EndOfData,
}

/// Azure Communication Services, SMTP. Source: Azure, "Service limits for Azure Communication Services", Email.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CommunicationServices {
    /// The resource of its tokens.
    pub resource: String,
    /// Messages of one tenant's resource in any minute; 0 is no limit.
    pub messages_per_minute: u64,
    /// Length of that minute.
    pub minute_milliseconds: u64,
    /// Messages in any hour; 0 is no limit.
    pub messages_per_hour: u64,
    /// Length of that hour.
    pub hour_milliseconds: u64,
    /// The reply to MAIL above either. Microsoft publishes none.
    pub over_rate: ReplyText,
    /// Recipients of one message.
    pub recipients_per_message: usize,
    /// Largest message, bytes; also the number behind `SIZE` in EHLO.
    pub message_bytes: usize,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            resource: "https://graph.microsoft.com".into(),
            // A request of 4 MB in base64.
            mime_bytes: 3 * 1024 * 1024,
            oversize: Oversize::default(),
            concurrency: 4,
            concurrency_per: ConcurrencyPer::default(),
            retry_after_seconds: 10,
            requests: 10_000,
            requests_milliseconds: 600_000,
            upload_bytes: 150 * 1024 * 1024,
            upload_milliseconds: 300_000,
            removes_unseen_headers: true,
            seen_headers: Vec::new(),
        }
    }
}

impl Default for HighVolumeEmail {
    fn default() -> Self {
        Self {
            resource: "https://outlook.office.com".into(),
            recipients_per_message: 50,
            message_bytes: 10 * 1024 * 1024,
            token_margin_seconds: 600,
            ending_token: EndingToken::default(),
            external_refused_at: RefusedAt::default(),
        }
    }
}

impl Default for CommunicationServices {
    fn default() -> Self {
        Self {
            resource: "https://communication.azure.com".into(),
            messages_per_minute: 30,
            minute_milliseconds: 60_000,
            messages_per_hour: 100,
            hour_milliseconds: 3_600_000,
            over_rate: Line::ServiceRate.into(),
            recipients_per_message: 50,
            message_bytes: 10 * 1024 * 1024,
        }
    }
}
