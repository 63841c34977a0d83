//! What arrived: the messages that were accepted, with everything a test or a person may want to know about them.
//!
//! Plain data, read over the control API. It refuses to know how a message got here. Tokens are described, never kept.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    entra::Credential,
    relay::{PresentedCertificate, attribution::Attribution},
};

/// An accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Counts from 1.
    pub id: u64,
    /// When the end of data was read.
    pub received_at: Timestamp,
    /// The mailbox, account or SMTP username that sent it; empty on port 25.
    pub mailbox: String,
    /// Whether a copy is in the mailbox's Sent Items.
    #[serde(default)]
    pub sent_items: bool,
    /// Whose mail it was found to be, and by what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    /// Address of the reverse path; empty for `<>`.
    pub mail_from: String,
    /// ESMTP parameters of MAIL, as sent.
    pub mail_parameters: Vec<String>,
    /// Recipients in the order given; at Graph those of To, Cc and Bcc.
    pub recipients: Vec<Recipient>,
    /// `Message-ID` of the message, or the one that the server made.
    pub message_id: String,
    /// Headers, unfolded, in order. For reading; `data` has the bytes.
    pub headers: Vec<Header>,
    /// The message after dot-unstuffing, byte for byte; from Graph as it is delivered. Base64 in JSON.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Vec<u8>,
    /// What the access token said.
    pub token: TokenClaims,
    /// The connection that it came over.
    pub connection: ConnectionFacts,
}

/// One `RCPT TO`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The address.
    pub address: String,
    /// ESMTP parameters, as sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

/// One header field, unfolded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name as written.
    pub name: String,
    /// Value without surrounding space; bytes that are not UTF-8 are replaced.
    pub value: String,
}

/// What is known of the access token that a connection logged in with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenClaims {
    /// Tenant id.
    pub tenant: String,
    /// Client id of the application.
    pub client_id: String,
    /// What the client proved itself with; absent on port 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Issuer of the assertion that was exchanged for it; empty for a secret or password.
    pub assertion_issuer: String,
    /// Subject of that assertion, for Kubernetes `system:serviceaccount:<namespace>:<name>`.
    pub assertion_subject: String,
    /// When it was issued, seconds since 1970.
    pub issued_at: i64,
    /// When it expires, seconds since 1970.
    pub expires_at: i64,
}

/// The connection as the server saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionFacts {
    /// Counts from 1 over the life of the simulator.
    pub id: u64,
    /// Address of the client.
    pub client: String,
    /// Name given with EHLO or HELO.
    pub ehlo: String,
    /// Negotiated version, such as `TLSv1_3`; absent before STARTTLS.
    pub tls_version: Option<String>,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// Which port it came in by.
    #[serde(default)]
    pub face: Face,
    /// The certificate that the client presented (port 25 asks for one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PresentedCertificate>,
}

/// The ways in for mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Face {
    /// Client submission, port 587.
    #[default]
    Submission,
    /// The MX endpoint, port 25.
    Relay,
    /// High Volume Email, port 587.
    HighVolumeEmail,
    /// Communication Services, port 587.
    CommunicationServices,
    /// Graph's `sendMail`, port 443.
    Graph,
}

impl Message {
    /// Value of the first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// The recipients' addresses in order.
    #[must_use]
    pub fn recipient_addresses(&self) -> Vec<&str> {
        self.recipients.iter().map(|recipient| recipient.address.as_str()).collect()
    }

    /// The bytes after the empty line that ends the headers.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        let start = self
            .data
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .map_or(self.data.len(), |at| at + 4);
        &self.data[start..]
    }
}

fn to_base64<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
