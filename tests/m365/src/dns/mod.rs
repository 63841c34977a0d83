//! A name server for the directory's accepted domains: their MX records, the addresses of their MX hosts, and whatever
//! records the configuration adds (SPF, DKIM, DMARC).
//!
//! ```text
//!  UDP, TCP ─► name_server ─► message::Query ─► zone::look_up(directory, records) ─► message ─► name_server
//!              (I/O)             (pure)               (pure)                         (pure)
//! ```
//! It answers for nothing else (`NXDOMAIN`), forwards nothing, and remembers who asked what.

pub mod message;
pub mod zone;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A question that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// When.
    pub at: Timestamp,
    /// The name, lower case, without final dot.
    pub name: String,
    /// What of it.
    pub kind: zone::Kind,
    /// Over what.
    pub transport: Transport,
    /// Number of records that were given; absent when a fault answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<usize>,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
}
