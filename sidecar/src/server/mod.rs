//! The local SMTP server: sockets, time and limits around [`crate::smtp`]'s conversation.
//!
//! Owns connections: how many, how long, how much memory. Refuses to know what happens to a message after
//! [`Accept`], and never decides on mail itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::body::Body;
use crate::envelope::Envelope;
use crate::smtp::reply::Reply;

/// Takes complete messages.
#[async_trait]
pub trait Accept: Send + Sync {
    /// Called at the end of the data, while the client waits; the reply is passed on to it as it is. 250 has to mean
    /// what the route's delivery mode promises. The future is always awaited to its end, also when the client hangs
    /// up meanwhile.
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply;
}

/// What the route says about the local side. Read anew for every message, so that a reload applies to the next MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name in the greeting, in `Received` lines and in the Message-IDs that are added: the route's EHLO name.
    pub host_name: Arc<str>,
    /// Largest message, octets; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
}

/// Where the current [`Settings`] are read.
pub type SettingsSource = Arc<dyn Fn() -> Settings + Send + Sync>;

/// Why something was refused before [`Accept`] saw it: a closed set, fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Too many sessions at once (421).
    Sessions,
    /// Not a command, or not where it is allowed (50x).
    Command,
}

/// Counts what the server does. Every method has to return at once.
pub trait Observer: Send + Sync {
    /// A session began.
    fn session_opened(&self);
    /// A session ended, after `lasted`.
    fn session_closed(&self, lasted: Duration);
    /// A session, a command or a message was refused by the server itself.
    fn refused(&self, reason: Refusal);
    /// [`Accept`] answered for a message of `bytes` octets; `elapsed` since the end of its data.
    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration);
}
