//! Handing one message to the upstream, by whichever of Microsoft's methods.
//!
//! * [`outcome`]: what can come of an attempt, as types.
//! * [`classify`]: the one table from replies to outcomes; [`known_replies`]: the lines that it is tested with.
//! * [`opening`]: from a name to a connection, over TLS as the route wants it.
//! * [`effect`]: what follows from an outcome, for everything else.
//! * [`hint`]: what to know about a refusal of one message or recipient.
//! * [`connection`]: one SMTP connection: a `conversation` with a [`limit`] on each step, and the [`error`] that ends it.
//! * [`transaction`]: one message over one connection.
//! * [`rehearsal`]: the same without a message.
//! * [`way`]: connections kept in a [`pool`] and used for one message after the other.
//! * [`handover`]: how one is made ready for SMTP relay and Direct Send: [`smart_host`] and the certificate
//!   [`presented`].
//! * [`submission`]: how one is made ready for client submission: [what is presented](login), and [how](auth).
//!
//! Refuses to know who asked and what becomes of a message that was not delivered. An attempt never keeps anything:
//! after it, either the upstream has the message or the caller still has.

pub mod auth;
pub mod capabilities;
pub mod classify;
pub mod connection;
mod conversation;
pub mod effect;
pub mod error;
pub mod handover;
pub mod hint;
pub mod known_replies;
pub mod limit;
pub mod login;
pub mod opening;
pub mod outcome;
mod plain;
pub mod pool;
pub mod presented;
pub mod rehearsal;
pub mod smart_host;
pub mod submission;
pub mod transaction;
pub mod way;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::body::Body;
use crate::envelope::Envelope;
use outcome::{Attempt, Partial, Probe};

/// A way out.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Tries to deliver to the recipients of the envelope, in one transaction. Ends within a bounded time; safe to drop
    /// at any point, which leaves the fate of the message unknown and ends the connection.
    async fn deliver(&self, envelope: &Envelope, body: &Body, partial: Partial) -> Attempt;

    /// Walks the way up to the log-in, without a message.
    async fn probe(&self) -> Probe;

    /// Allows `connections` to the upstream at a time from now on. A way without any keeps no count of them.
    fn resize(&self, _connections: usize) {}

    /// Looks after what is kept between messages until it is told to stop; then ends it politely.
    async fn tend(&self, stop: watch::Receiver<bool>);
}
