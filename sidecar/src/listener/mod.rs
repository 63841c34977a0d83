//! The SMTP server: sockets, time and limits around [`crate::smtp`]'s conversation. On localhost, or for the network with TLS, logins
//! and bounds for each client address ([`Network`]).
//!
//! Owns connections: how many, how long, how much memory. Refuses to know what happens to a message behind
//! [`Accept`], and never judges one itself.

pub mod clients;
mod connection;
mod network;
pub mod port;
pub mod settings;
mod sockets;
mod stream;
mod timeouts;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::message::body::{Body, Scratch};
use crate::message::envelope::Envelope;
use crate::smtp::reply::Reply;

pub use self::clients::ClientLimits;
pub use self::network::{LoginClient, Network, TlsSource, Verified, Verify};
pub use self::sockets::{BindError, Listeners, serve, serve_network};
pub use crate::smtp::answer::Refusal;
pub use crate::smtp::auth::LoginResult;
pub use crate::smtp::rule_action::RuleAction;
pub use crate::smtp::transaction::Settings;

/// Takes complete messages.
#[async_trait]
pub trait Accept: Send + Sync {
    /// Called at the end of the data, while the client waits; the reply is passed on to it as it is. 250 has to mean
    /// what the route's delivery mode promises. The future is always awaited to its end, also when the client hangs
    /// up meanwhile.
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply;
}

/// Counts what the server does. Every method has to return at once.
pub trait Observer: Send + Sync {
    /// A session began.
    fn session_opened(&self);
    /// A session ended, after `lasted`. Follows every [`Observer::session_opened`], whatever happened in between.
    fn session_closed(&self, lasted: Duration);
    /// A session, a command or a message was refused by the server itself.
    fn refused(&self, reason: Refusal);
    /// So many fields of a message had raw UTF-8, which was written as encoded words.
    fn header_encoded(&self, fields: u32);
    /// A rule of the route did something, so many times.
    fn rule_applied(&self, action: RuleAction, times: u64);
    /// [`Accept`] answered for a message of `bytes` octets; `elapsed` since the end of its data.
    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration);
    /// Clients of the network are served, who meet more than those on localhost.
    fn serves_network(&self) {}
    /// A login ended, where they are verified.
    fn login(&self, _: LoginResult) {}
    /// The certificate for SMTP clients ends at `not_after`, seconds since the epoch; 0: there is none.
    fn tls_certificate(&self, _not_after: i64) {}
}

/// Where the current [`Settings`] are read: after every read from a client, so it has to be quick.
pub type SettingsSource = Arc<dyn Fn() -> Arc<Settings> + Send + Sync>;

/// What the sessions share.
#[derive(Clone)]
pub struct Service {
    /// Takes the messages.
    pub accept: Arc<dyn Accept>,
    /// The route's settings; a change applies to the next MAIL.
    pub settings: SettingsSource,
    /// Counts.
    pub observer: Arc<dyn Observer>,
    /// Where messages that do not fit in memory are kept while they come in, in files without names.
    pub scratch: Arc<dyn Scratch>,
    /// Bounds that no route changes.
    pub limits: SessionLimits,
    /// The process is about to end: clients of the network that are between two messages are sent elsewhere soon.
    pub draining: watch::Receiver<bool>,
}

/// How long a session and its parts may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// For a client beyond the number of sessions to wait for one to end.
    pub wait: Duration,
    /// For a client to send one command, counted from the answer before it.
    pub command: Duration,
    /// For a client to send the next octets of a message, and to read some of ours.
    pub data: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a client to log in where it has to, counted from the greeting: strangers do not keep others out for longer.
    pub login: Duration,
    /// For a client of the network to begin its next message once the process is about to end; a fifth of it for one to log in.
    pub leave: Duration,
    /// For a client to complete one message, counted from its MAIL, and to begin another one, counted from the last.
    /// Bounds the resources of a client that always sends a little.
    pub message: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            // RFC 5321 §4.5.3.2.7.
            command: Duration::from_secs(5 * 60),
            // RFC 5321 §4.5.3.2.5, for the other side.
            data: Duration::from_secs(3 * 60),
            handshake: Duration::from_secs(15),
            login: Duration::from_secs(60),
            leave: Duration::from_secs(5),
            // 150 MiB in that time is 85 KiB a second, over loopback.
            message: Duration::from_secs(30 * 60),
        }
    }
}

/// Counts open sessions and passes everything on to the metrics.
pub struct SessionCount {
    open: watch::Sender<usize>,
    metrics: Arc<dyn Observer>,
}

impl SessionCount {
    /// None open yet.
    pub fn new(metrics: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(0), metrics })
    }

    /// Sees the count change.
    pub fn subscribe(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }
}

impl Observer for SessionCount {
    fn session_opened(&self) {
        self.open.send_modify(|open| *open += 1);
        self.metrics.session_opened();
    }

    fn session_closed(&self, lasted: Duration) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
        self.metrics.session_closed(lasted);
    }

    fn refused(&self, reason: Refusal) {
        self.metrics.refused(reason);
    }

    fn header_encoded(&self, fields: u32) {
        self.metrics.header_encoded(fields);
    }

    fn rule_applied(&self, action: RuleAction, times: u64) {
        self.metrics.rule_applied(action, times);
    }

    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration) {
        self.metrics.answered(reply, bytes, elapsed);
    }

    fn serves_network(&self) {
        self.metrics.serves_network();
    }

    fn login(&self, result: LoginResult) {
        self.metrics.login(result);
    }

    fn tls_certificate(&self, not_after: i64) {
        self.metrics.tls_certificate(not_after);
    }
}
