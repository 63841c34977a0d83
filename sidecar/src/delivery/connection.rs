//! One SMTP connection to the upstream: commands out, replies in.
//!
//! ```text
//! opening: greeting ─► EHLO ─► [STARTTLS ─► TLS ─► EHLO] ─► here: [auth: AUTH] ─► transaction: MAIL … ─► QUIT
//! ```
//!
//! Owns the conversation over a stream that [`super::opening`] made, with a time limit around each step. lettre writes
//! commands and reads replies; see `super::wire` for what stands between. Refuses to know
//! what is said over it.
//!
//! Invariant: after any error the connection is dropped by its owner, as nobody knows
//! what the upstream has seen. A panic inside lettre is such an error.

use std::fmt::Display;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::capabilities::{self, Capabilities};
use super::classify::Stage;
use super::error::ConnectionError;
use super::limit;
use super::wire::{Stream, Wire};
use crate::certificate::Leaf;
use crate::clock::{self, Instant};
use crate::secret::scrub;
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

/// An open connection.
pub struct Connection {
    smtp: AsyncSmtpConnection,
    wire: Wire,
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
        let mut this = Self::over(stream, protection).await?;
        let ehlo = this.command(Stage::Ehlo, format!("EHLO {ehlo_name}\r\n")).await?.positive(Stage::Ehlo)?;
        this.introduce(&ehlo);
        Ok(this)
    }

    /// Goes on where EHLO was answered by `ehlo`, in plaintext because of `why`.
    ///
    /// # Errors
    /// Never in practice: nothing is sent or awaited.
    pub async fn over_plaintext(
        stream: impl Stream + 'static,
        ehlo: &Reply,
        why: String,
    ) -> Result<Self, ConnectionError> {
        let mut this = Self::over(stream, Protection::Plaintext).await?;
        this.introduce(ehlo);
        this.unprotected = Some(why);
        Ok(this)
    }

    async fn over(stream: impl Stream + 'static, protection: Protection) -> Result<Self, ConnectionError> {
        let wire = Wire::new(stream);
        // Answered by the wire itself, and never sent.
        let client = ClientId::Domain(String::new());
        let smtp = AsyncSmtpConnection::connect_with_transport(Box::new(wire.clone()), &client)
            .await
            .map_err(|error| ConnectionError::broken(Stage::Greeting, error))?;
        let now = clock::now();
        Ok(Self {
            smtp,
            wire,
            capabilities: Capabilities::default(),
            host: String::new(),
            egress: None,
            protection,
            unprotected: None,
            certificate: None,
            opened: now,
            used: now,
        })
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
    pub async fn command(&mut self, stage: Stage, command: impl Display) -> Result<Reply, ConnectionError> {
        guarded(stage, self.smtp.command(command)).await
    }

    /// Reads the next reply, to a command that was pipelined or to the message.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        guarded(stage, self.smtp.read_response()).await
    }

    /// Writes a piece of the message as it is.
    ///
    /// # Errors
    /// When the upstream does not take it in time.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        let written = timeout(limit::BLOCK, self.wire.write_all(piece)).await;
        self.written(written)
    }

    /// Sends what has been written on its way.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        let flushed = timeout(limit::BLOCK, self.wire.flush()).await;
        self.written(flushed)
    }

    fn written(
        &self,
        outcome: Result<std::io::Result<()>, tokio::time::error::Elapsed>,
    ) -> Result<(), ConnectionError> {
        outcome
            .map_err(|_| ConnectionError::Timeout(Stage::Message))?
            .map_err(|error| ConnectionError::broken(Stage::Message, error))
    }

    /// Ends the connection politely.
    pub async fn quit(mut self) {
        // Whatever comes back, this was the last word.
        let _ = self.command(Stage::Quit, "QUIT\r\n").await;
        let _ = self.wire.shutdown().await;
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

/// Runs one step of lettre's with a limit on its time and a net under it.
async fn guarded(
    stage: Stage,
    step: impl Future<Output = Result<Response, lettre::transport::smtp::Error>>,
) -> Result<Reply, ConnectionError> {
    let caught = timeout(stage.limit(), AssertUnwindSafe(step).catch_unwind()).await;
    match caught.map_err(|_| ConnectionError::Timeout(stage))? {
        Ok(Ok(response)) => {
            let code = u16::from(response.code());
            to_reply(stage, code, response.message())
        }
        Ok(Err(error)) => match (error.status(), std::error::Error::source(&error)) {
            (Some(code), Some(text)) => to_reply(stage, u16::from(code), [text.to_string().as_str()]),
            (Some(code), None) => to_reply(stage, u16::from(code), [""]),
            (None, _) => Err(ConnectionError::broken(stage, error)),
        },
        Err(_) => Err(ConnectionError::broken(stage, "the reply could not be read")),
    }
}

/// Our own kind of reply, free of what looks like a token.
fn to_reply<'a>(
    stage: Stage,
    code: u16,
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<Reply, ConnectionError> {
    let lines: Vec<_> = lines.into_iter().map(scrub).collect();
    let reply = Reply::from_lines(code, lines.iter().map(AsRef::as_ref));
    reply.ok_or_else(|| ConnectionError::broken(stage, "the reply has no code or no text"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::delivery::outcome::one_line;

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
        let ehlo = to_reply(Stage::Ehlo, 250, [format!("{host} Hello [203.0.113.7]").as_str(), "PIPELINING"]);
        let connection = Connection::over_plaintext(ours, &ehlo.unwrap(), "a test".into()).await.unwrap();
        (connection, Peer(theirs))
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
        assert_eq!(started.elapsed(), limit::BLOCK);
    }

    #[test]
    fn an_echoed_token_is_not_part_of_a_reply() {
        let token = "QUJD".repeat(100);
        let reply = to_reply(Stage::Auth, 501, [format!("5.5.4 what is {token}").as_str()]).unwrap();
        assert_eq!(one_line(&reply), "501 5.5.4 what is [removed]");
    }

    #[test]
    fn lines_of_a_reply_are_kept() {
        let reply = to_reply(Stage::Ehlo, 250, ["host Hello", "SIZE 1", "PIPELINING"]).unwrap();
        assert_eq!(reply.lines, ["host Hello", "SIZE 1", "PIPELINING"]);
    }
}
