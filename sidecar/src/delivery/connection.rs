//! One SMTP connection to the upstream, from the name to a log-in.
//!
//! ```text
//! dial ─► greeting ─► EHLO ─► STARTTLS ─► [nothing may be buffered] ─► TLS ─► EHLO ─► AUTH ─► …
//! └────────────── ours, in plaintext ───────────────┘                 └── lettre's, over our stream ──┘
//! ```
//!
//! Owns the order of these steps, a time limit around each, and the rule that nothing of the plaintext part is believed
//! after it. Refuses to know about tokens' origin and about messages.
//!
//! Invariants: no AUTH and no mail before verified TLS; after any error the connection is dropped by its owner, as
//! nobody knows what the upstream has seen. A panic inside lettre is such an error.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::Auth;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use mailroute_route::condition::Reason;
use mailroute_route::file::Endpoint;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::capabilities::Capabilities;
use super::classify::Stage;
use super::outcome::one_line;
use super::plain::Plain;
use super::wire::Wire;
use crate::clock::{self, Instant};
use crate::net::dial::{self, DialError};
use crate::net::tls::{self, Trust, TrustError};
use crate::secret::{Secret, scrub};
use crate::smtp::reply::Reply;

/// Limits of RFC 5321 §4.5.3.2, each for one step.
mod limit {
    use std::time::Duration;

    /// Greeting (§4.5.3.2.1), EHLO, STARTTLS and AUTH, which have no limit of their own.
    pub const COMMAND: Duration = Duration::from_secs(300);
    /// MAIL and RCPT (§4.5.3.2.2, .3).
    pub const ENVELOPE: Duration = Duration::from_secs(300);
    /// DATA up to 354 (§4.5.3.2.4).
    pub const DATA: Duration = Duration::from_secs(120);
    /// One piece of the message (§4.5.3.2.5).
    pub const BLOCK: Duration = Duration::from_secs(180);
    /// The answer to the final dot (§4.5.3.2.6).
    pub const FINAL: Duration = Duration::from_secs(600);
    /// The TLS handshake.
    pub const HANDSHAKE: Duration = Duration::from_secs(30);
    /// QUIT: a courtesy.
    pub const QUIT: Duration = Duration::from_secs(5);
}

impl Stage {
    /// Longest wait for a reply.
    pub(super) const fn limit(self) -> Duration {
        match self {
            Self::Greeting | Self::Ehlo | Self::StartTls | Self::Auth => limit::COMMAND,
            Self::Mail | Self::Rcpt => limit::ENVELOPE,
            Self::Data => limit::DATA,
            Self::Message => limit::FINAL,
            Self::Quit => limit::QUIT,
        }
    }
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Not a name that a certificate can be verified against.
    #[error("{0} is not a DNS name, so the upstream's certificate cannot be verified")]
    NotDnsName(String),
    /// The upstream does not offer STARTTLS.
    #[error("{0} does not offer STARTTLS")]
    StartTlsMissing(String),
    /// Plaintext followed the answer to STARTTLS: someone on the way puts words into the upstream's mouth.
    #[error("{0} sent plaintext behind its answer to STARTTLS, which may be an attack")]
    StartTlsInjection(String),
    /// The handshake failed.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name verified.
        host: String,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The upstream does not take tokens.
    #[error("{0} does not offer AUTH XOAUTH2, so it is not Microsoft 365")]
    XoauthMissing(String),
    /// A reply that ends the conversation.
    #[error("{} was answered with {}", .stage.as_str(), one_line(.reply))]
    Refused {
        /// To what.
        stage: Stage,
        /// Which.
        reply: Reply,
    },
    /// No answer in time.
    #[error("no answer to {} within {} seconds", .0.as_str(), .0.limit().as_secs())]
    Timeout(Stage),
    /// The connection broke, or the peer does not speak SMTP.
    #[error("the connection broke at {}: {what}", .stage.as_str())]
    Broken {
        /// Where.
        stage: Stage,
        /// How.
        what: String,
    },
}

impl ConnectionError {
    pub(super) fn broken(stage: Stage, what: impl Display) -> Self {
        Self::Broken { stage, what: scrub(&what.to_string()).into_owned() }
    }

    /// The condition this breaks. Nothing for [`Self::Refused`], which [`super::classify`] explains.
    pub const fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Dial(DialError::Resolve { .. }) => Reason::NameNotResolved,
            Self::Dial(DialError::Connect { .. }) => Reason::ConnectFailed,
            Self::Trust(_) | Self::NotDnsName(_) | Self::Tls { .. } => Reason::TlsFailed,
            Self::StartTlsMissing(_) | Self::StartTlsInjection(_) => Reason::StartTlsMissing,
            Self::XoauthMissing(_) => Reason::LoginFailed,
            Self::Timeout(_) => Reason::UpstreamUnavailable,
            Self::Broken { .. } => Reason::UpstreamProtocolError,
            Self::Refused { .. } => return None,
        })
    }
}

/// An open connection over verified TLS.
pub struct Connection {
    smtp: AsyncSmtpConnection,
    wire: Wire,
    /// What the upstream can do.
    pub capabilities: Capabilities,
    /// The upstream's own name, from its EHLO answer.
    pub host: String,
    /// The TLS version, for people.
    pub tls: &'static str,
    /// When the greeting came.
    pub opened: Instant,
    /// When the last message was done with.
    pub used: Instant,
}

impl Connection {
    /// Connects and says EHLO over verified TLS, under the name `ehlo_name`.
    ///
    /// # Errors
    /// When any step fails or takes too long.
    pub async fn open(endpoint: &Endpoint, ehlo_name: &str) -> Result<Self, ConnectionError> {
        let name = server_name(&endpoint.host)?;
        let config = tls::client_config(&Trust::from_file(endpoint.ca_file.as_ref())).await?;
        let plain = Plain::new(dial::connect(&endpoint.host, endpoint.port).await?);
        let stream = plain.start_tls(&endpoint.host, ehlo_name).await?;
        let handshake = timeout(limit::HANDSHAKE, TlsConnector::from(config).connect(name, stream)).await;
        let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let stream = handshake
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(|source| ConnectionError::Tls { host: endpoint.host.clone(), source })?;
        Self::greet(stream, ehlo_name).await
    }

    async fn greet(
        stream: tokio_rustls::client::TlsStream<TcpStream>,
        ehlo_name: &str,
    ) -> Result<Self, ConnectionError> {
        let tls = stream.get_ref().1.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS");
        let wire = Wire::new(stream);
        let client = ClientId::Domain(ehlo_name.to_owned());
        let smtp = AsyncSmtpConnection::connect_with_transport(Box::new(wire.clone()), &client)
            .await
            .map_err(|error| ConnectionError::broken(Stage::Greeting, error))?;
        let now = clock::now();
        let (host, capabilities) = (String::new(), Capabilities::default());
        let mut this = Self { smtp, wire, capabilities, host, tls, opened: now, used: now };
        let ehlo = this.command(Stage::Ehlo, format!("EHLO {ehlo_name}\r\n")).await?.positive(Stage::Ehlo)?;
        this.capabilities = Capabilities::of(&ehlo);
        let first = ehlo.lines.first().map(String::as_str).unwrap_or_default();
        this.host = first.split(' ').next().unwrap_or_default().to_owned();
        Ok(this)
    }

    /// Logs in by XOAUTH2 and gives the upstream's answer, whatever it is.
    ///
    /// # Errors
    /// When there is no answer. The token is in none of the errors.
    pub async fn log_in(&mut self, mailbox: &str, token: &Secret) -> Result<Reply, ConnectionError> {
        if !self.capabilities.xoauth2 {
            return Err(ConnectionError::XoauthMissing(self.host.clone()));
        }
        let credentials = Credentials::new(mailbox.to_owned(), token.expose().to_owned());
        let auth = Auth::new(Mechanism::Xoauth2, credentials, None)
            .map_err(|error| ConnectionError::broken(Stage::Auth, error))?;
        let reply = self.command(Stage::Auth, auth).await?;
        if reply.code != 334 {
            return Ok(reply);
        }
        // Some servers give their reason in a challenge and the verdict after an empty answer to it.
        self.command(Stage::Auth, "\r\n").await
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
    let lines: Vec<String> = lines.into_iter().map(|line| scrub(line).into_owned()).collect();
    let wire: String = lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("{code}{}{line}\r\n", if at + 1 < lines.len() { '-' } else { ' ' }))
        .collect();
    match Reply::parse(wire.as_bytes()) {
        Ok(Some((reply, _))) => Ok(reply),
        Ok(None) => Err(ConnectionError::broken(stage, "the reply is empty")),
        Err(error) => Err(ConnectionError::broken(stage, error)),
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectionError> {
    match ServerName::try_from(host.trim_end_matches('.').to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Ok(name),
        _ => Err(ConnectionError::NotDnsName(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_a_name_to_verify() {
        assert!(matches!(server_name("203.0.113.7"), Err(ConnectionError::NotDnsName(_))));
        assert!(server_name("smtp.office365.com.").is_ok());
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
