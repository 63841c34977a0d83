//! One SMTP connection to the upstream: commands out, replies in.
//!
//! ```text
//! connect: greeting ─► EHLO ─► [STARTTLS ─► TLS ─► EHLO] ─► here: [auth: AUTH] ─► transaction: MAIL … ─► QUIT
//! ```
//!
//! Owns what is known of a connection over the stream that [`super::connect`] made; `Conversation` has the words and
//! their time limits. Refuses to know what is said over it.
//!
//! Invariant: after any error the connection is dropped by its owner, as nobody knows what the upstream has seen.

use std::net::IpAddr;
use std::sync::Arc;

use super::capabilities::{self, Capabilities};
use super::conversation::{Conversation, Stream};
use super::error::ConnectionError;
use super::pool::Reusable;
use crate::clock::{self, Instant};
use crate::net::certificate::Leaf;
use crate::outcome::classify::Stage;
use crate::smtp::reply::Reply;

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS 1.3, the certificate verified.
    Tls13,
    /// TLS 1.2, the certificate verified.
    Tls12,
    /// Not at all: allowed only where the route says [`mailroute_route::file::TlsMode::Opportunistic`].
    Plaintext,
}

impl Protection {
    /// Every value, for metrics.
    pub const ALL: [Self; 3] = [Self::Tls13, Self::Tls12, Self::Plaintext];

    /// The name in metrics and texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls13 => "TLSv1.3",
            Self::Tls12 => "TLSv1.2",
            Self::Plaintext => "plaintext",
        }
    }
}

impl Protection {
    /// What a handshake came to. TLS 1.2 is the oldest that rustls speaks.
    pub(super) fn of(connection: &rustls::ClientConnection) -> Self {
        match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => Self::Tls13,
            _ => Self::Tls12,
        }
    }
}

/// An open connection.
pub struct Connection {
    conversation: Conversation<Box<dyn Stream>>,
    /// What the upstream can do.
    pub capabilities: Capabilities,
    /// The upstream's own name, from its EHLO answer.
    pub host: String,
    /// The address that the upstream sees us come from, when it says so.
    pub egress: Option<IpAddr>,
    /// How it is protected.
    pub protection: Protection,
    /// Why it is not protected, when it is not.
    pub unprotected: Option<String>,
    /// The certificate that was presented.
    pub certificate: Option<Arc<Leaf>>,
    /// When EHLO was answered.
    pub opened: Instant,
    /// When the last message was done with.
    pub used: Instant,
}

impl Connection {
    /// Says EHLO under the name `ehlo_name` over a stream on which the handshake was the last thing.
    ///
    /// # Errors
    /// When there is no positive answer.
    pub async fn over_tls(
        stream: impl Stream + 'static,
        protection: Protection,
        ehlo_name: &str,
    ) -> Result<Self, ConnectionError> {
        let mut this = Self::over(stream, protection);
        let ehlo = this.command(Stage::Ehlo, &format!("EHLO {ehlo_name}\r\n")).await?;
        this.introduce(&ehlo.positive(Stage::Ehlo)?);
        Ok(this)
    }

    /// Goes on where EHLO was answered by `ehlo`, in plaintext because of `why`.
    pub fn over_plaintext(stream: impl Stream + 'static, ehlo: &Reply, why: String) -> Self {
        let mut this = Self::over(stream, Protection::Plaintext);
        this.introduce(ehlo);
        this.unprotected = Some(why);
        this
    }

    fn over(stream: impl Stream + 'static, protection: Protection) -> Self {
        let now = clock::now();
        Self {
            conversation: Conversation::new(Box::new(stream)),
            capabilities: Capabilities::default(),
            host: String::new(),
            egress: None,
            protection,
            unprotected: None,
            certificate: None,
            opened: now,
            used: now,
        }
    }

    fn introduce(&mut self, ehlo: &Reply) {
        self.capabilities = Capabilities::of(ehlo);
        capabilities::host(ehlo).clone_into(&mut self.host);
        self.egress = capabilities::egress(ehlo);
    }

    /// Sends one command, or several pipelined ones, and reads the reply to the first.
    ///
    /// # Errors
    /// When there is no well-formed reply in time. A negative reply is no error.
    pub async fn command(&mut self, stage: Stage, command: &str) -> Result<Reply, ConnectionError> {
        self.conversation.command(stage, command).await
    }

    /// Reads the next reply, to a command that was pipelined or to the message.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        self.conversation.reply(stage).await
    }

    /// Writes a piece of the message as it is.
    ///
    /// # Errors
    /// When the upstream does not take it in time.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        self.conversation.write(piece).await
    }

    /// Sends what has been written on its way.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.conversation.flush().await
    }

    /// Ends the connection politely.
    pub async fn quit(self) {
        self.conversation.quit().await;
    }
}

impl Reusable for Connection {
    fn opened(&self) -> Instant {
        self.opened
    }

    fn used(&self) -> Instant {
        self.used
    }

    async fn end(self) {
        self.quit().await;
    }
}

/// Sorting replies into those that let the conversation go on and those that end it.
pub trait Positive: Sized {
    /// The reply itself when it is 2yz.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] otherwise.
    fn positive(self, stage: Stage) -> Result<Self, ConnectionError>;
}

impl Positive for Reply {
    fn positive(self, stage: Stage) -> Result<Self, ConnectionError> {
        if self.code / 100 == 2 { Ok(self) } else { Err(ConnectionError::Refused { stage, reply: self }) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::timeout;

    use super::*;
    use crate::delivery::timeouts;

    /// The other end of a connection.
    pub struct Peer(DuplexStream);

    impl Peer {
        /// What was sent up to the next line end.
        pub async fn line(&mut self) -> String {
            let mut line = String::new();
            while !line.ends_with('\n') {
                line.push(char::from(self.0.read_u8().await.unwrap()));
            }
            line
        }

        /// What was sent, up to the end of the connection.
        pub async fn rest(&mut self) -> String {
            let mut rest = String::new();
            self.0.read_to_string(&mut rest).await.unwrap();
            rest
        }

        pub async fn say(&mut self, text: &str) {
            self.0.write_all(text.as_bytes()).await.unwrap();
        }

        /// What is sent within `long`.
        pub async fn silence(&mut self, long: Duration) -> String {
            let mut sent = String::new();
            let _ = timeout(long, self.0.read_to_string(&mut sent)).await;
            sent
        }

        pub fn hang_up(&mut self) {
            self.0 = tokio::io::duplex(1).0;
        }

        /// Says it an octet a second.
        pub async fn drip(&mut self, text: &str) {
            for octet in text.bytes() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if self.0.write_all(&[octet]).await.is_err() {
                    return;
                }
            }
        }
    }

    /// A connection to `host`, which can pipeline, and its other end. In memory, so that time may be paused.
    pub async fn connection(host: &str) -> (Connection, Peer) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let lines = vec![format!("{host} Hello [203.0.113.7]"), "PIPELINING".into()];
        let ehlo = Reply { code: 250, enhanced: None, lines };
        (Connection::over_plaintext(ours, &ehlo, "a test".into()), Peer(theirs))
    }

    #[tokio::test(start_paused = true)]
    async fn every_step_has_its_limit_whether_the_peer_is_silent_or_drips() {
        let steps = [
            (Stage::Ehlo, 300),
            (Stage::Auth, 300),
            (Stage::Mail, 300),
            (Stage::Rcpt, 300),
            (Stage::Data, 120),
            (Stage::Message, 600),
            (Stage::Quit, 5),
        ];
        for ((stage, seconds), drips) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
            let (mut connection, mut peer) = connection("a").await;
            let started = clock::now();
            let endless = "250-and another line\r\n".repeat(100);
            let error = tokio::select! {
                reply = connection.command(stage, "NOOP\r\n") => reply.unwrap_err(),
                () = async { if drips { peer.drip(&endless).await } else { std::future::pending().await } } => panic!("the reply ended"),
            };
            assert!(matches!(error, ConnectionError::Timeout(at) if at == stage), "{stage:?}: {error}");
            assert_eq!(started.elapsed().as_secs(), seconds, "{stage:?}, drips: {drips}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_not_taken_has_a_limit() {
        let (mut connection, _peer) = connection("a").await;
        let started = clock::now();
        let error = connection.write(&[b'x'; 4096]).await.unwrap_err();
        assert!(matches!(error, ConnectionError::Timeout(Stage::Message)), "{error}");
        assert_eq!(started.elapsed(), timeouts::BLOCK);
    }
}
