//! Handing one message to the upstream, by whichever of Microsoft's methods.
//!
//! ```text
//!  Transport ── transport: SmtpTransport over a pool ── Connect: smtp_relay (with smart_host, client_certificate)
//!                   │                                            client_submission (with login, auth)
//!                   ▼                                                 │
//!  transaction, over a connection ◄── connect, starttls ◄─────────────┘
//! ```
//!
//! * [`transport`]: connections that are kept in a [`pool`] and used for one message after the other.
//! * [`smtp_relay`]: how one is made for SMTP relay and Direct Send: the [`smart_host`] and the [`client_certificate`].
//! * [`client_submission`]: how one is made for client submission: [what is presented](login), and [how](auth).
//! * [`connect`]: from a name to a connection, over STARTTLS as the route wants it.
//! * [`connection`]: one SMTP connection: a `conversation` with [`timeouts`] on each step, and the [`error`] that ends it.
//! * [`graph`]: Microsoft Graph, over HTTPS.
//! * [`transaction`]: one message over one connection.
//!
//! Refuses to know who asked and what becomes of a message that was not delivered. An attempt never keeps anything:
//! after it, either the upstream has the message or the caller still has.

pub mod auth;
pub mod capabilities;
pub mod client_certificate;
pub mod client_submission;
pub mod connect;
pub mod connection;
mod conversation;
mod envelope_verdict;
pub mod error;
mod flight;
pub mod graph;
pub mod login;
pub mod pool;
pub mod smart_host;
pub mod smtp_relay;
mod starttls;
pub mod timeouts;
pub mod transaction;
pub mod transport;

use async_trait::async_trait;
use tokio::sync::watch;

use self::pool::Slot;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::classify::Stage;
use crate::outcome::{AttemptResult, Observation, PartialDelivery, Probe, Verdict};

/// How the mail of a route is sent.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Waits for the right to use a connection to the upstream for this message.
    ///
    /// # Errors
    /// The verdict on the message, when that takes too long.
    async fn slot(&self, envelope: &Envelope, body: &Body) -> Result<Slot<'_>, Verdict>;

    /// Tries to deliver to the recipients of the envelope over the connection of `slot`, in one transaction. Ends within a bounded time; safe to drop
    /// at any point, which leaves the fate of the message unknown and ends the connection.
    async fn deliver(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> AttemptResult;

    /// Why this message can never go this way, as far as that can be told without asking the upstream.
    async fn refusal(&self, _envelope: &Envelope, _body: &Body) -> Option<Verdict> {
        None
    }

    /// Goes as far as the log-in, without a message.
    async fn probe(&self) -> Probe;

    /// Goes as far as RCPT on a connection of its own, and takes it back: the same commands, replies and judgements as mail
    /// has, so that it finds what mail would meet. Notes in `dry_run` how far it came; also when it is dropped.
    async fn dry_run(&self, envelope: &Envelope, dry_run: &mut DryRun);

    /// Allows `connections` to the upstream at a time from now on. A transport without any keeps no count of them.
    fn resize(&self, _connections: usize) {}

    /// Looks after what is kept between messages until it is told to stop; then ends it politely.
    async fn tend(&self, stop: watch::Receiver<bool>);
}

/// How far a dry run came.
#[derive(Debug, Default)]
pub struct DryRun {
    /// What was met, in order.
    pub observations: Vec<Observation>,
    /// Positive answers to MAIL and RCPT.
    pub answers: Vec<(Stage, String)>,
    /// Why it ended early, when it did.
    pub stopped: Option<Verdict>,
}
