//! One connection to a gateway: commands and octets out, replies in.
//!
//! Owns the time of each step, and whether all octets were sent when a connection broke.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::identity::Basis;
use super::protocol::{Command, XSPOOL};
use crate::clock::{self, Instant};
use crate::message::body::Body;
use crate::smtp::reply::{Reply, ReplyReader};

/// For a piece of a message to be taken.
const BLOCK: Duration = Duration::from_secs(10);

/// For an answer, beside the time that a large message takes to be copied and synced.
const ANSWER: Duration = Duration::from_secs(15);

/// Slowest disk of a gateway that is waited for, octets a second.
const SLOWEST: u64 = 4 * 1024 * 1024;

/// For an answer that may have come before all octets were sent.
const EARLY: Duration = Duration::from_millis(500);

/// For the last word.
const QUIT: Duration = Duration::from_millis(500);

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct ConnectionError {
    what: &'static str,
    /// All octets of the command were sent.
    pub whole: bool,
    source: Option<io::Error>,
}

impl ConnectionError {
    fn io(what: &'static str, whole: bool) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { what, whole, source: Some(error) }
    }

    const fn because(what: &'static str, whole: bool) -> Self {
        Self { what, whole, source: None }
    }
}

/// What came of a command.
pub(super) enum Sent {
    /// The gateway's answer.
    Reply(Reply),
    /// The message could not be read to its end; the connection is of no use any more.
    Unread(io::Error),
}

/// An open connection, ready for a command.
pub(super) struct Connection {
    /// Where to.
    pub address: SocketAddr,
    /// What it rests on.
    pub basis: Basis,
    /// When it was opened.
    pub opened: Instant,
    /// When it was used last.
    pub used: Instant,
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, verifies the gateway and is greeted.
    pub async fn open(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        basis: Basis,
    ) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(ConnectionError::io("cannot connect", false))?;
        // Commands are small and each waits for its reply.
        let _ = stream.set_nodelay(true);
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(ConnectionError::io("the TLS handshake failed", false))?;
        let (opened, buffer) = (clock::now(), Vec::new());
        let mut connection = Self { address, basis, opened, used: opened, stream, buffer };
        let greeting = connection.reply(false).await?;
        if greeting.code != 220 {
            return Err(ConnectionError::because("it does not greet", false));
        }
        let Sent::Reply(reply) = connection.send(&Command::Hello, &[], None).await? else {
            return Err(ConnectionError::because("nothing to read", false));
        };
        if !reply.is_positive() || !reply.lines.iter().any(|line| line == XSPOOL) {
            return Err(ConnectionError::because("it does not take messages over", false));
        }
        Ok(connection)
    }

    /// Sends a command with the octets that belong to it, and reads the answer.
    pub async fn send(
        &mut self,
        command: &Command,
        parts: &[&[u8]],
        body: Option<&Body>,
    ) -> Result<Sent, ConnectionError> {
        let front = [format!("{command}\r\n").as_bytes(), &parts.concat()].concat();
        // From the last octets on the gateway may have all of them, whatever becomes of the connection.
        let mut left = body.map_or(0, Body::len);
        let mut written = self.write(&front).await;
        if let Some(body) = body {
            let mut reader = body.reader();
            while written.is_ok() {
                match reader.next().await {
                    Ok(Some(piece)) => {
                        left = left.saturating_sub(piece.len() as u64);
                        written = self.write(&piece).await;
                    }
                    Ok(None) => break,
                    Err(error) => return Ok(Sent::Unread(error)),
                }
            }
        }
        if written.is_ok() {
            written = timed(BLOCK, self.stream.flush()).await;
        }
        if let Err(error) = written {
            // It may have said why.
            return match timeout(EARLY, self.reply(false)).await {
                Ok(Ok(reply)) => Ok(Sent::Reply(reply)),
                _ => Err(ConnectionError::io("the connection broke", left == 0)(error)),
            };
        }
        let octets = body.map_or(0, Body::len);
        let reply = timeout(ANSWER + Duration::from_secs(octets / SLOWEST), self.reply(true)).await;
        let reply = reply.map_err(|_| ConnectionError::because("no answer in time", true))??;
        self.used = clock::now();
        Ok(Sent::Reply(reply))
    }

    /// Whether the gateway has closed it, or has said something that nobody asked for.
    pub fn is_stale(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).now_or_never().is_some()
    }

    /// Says goodbye.
    pub async fn quit(mut self) {
        // Whatever comes back, this was the last word.
        let _ = timeout(QUIT, self.send(&Command::Quit, &[], None)).await;
        let _ = timeout(QUIT, self.stream.shutdown()).await;
    }

    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        timed(BLOCK, self.stream.write_all(octets)).await
    }

    async fn reply(&mut self, whole: bool) -> Result<Reply, ConnectionError> {
        let mut reader = ReplyReader::default();
        loop {
            let taken = reader.read(&self.buffer);
            let taken = taken.map_err(|_| ConnectionError::because("it does not speak SMTP", whole))?;
            self.buffer.drain(..taken);
            if let Some(reply) = reader.reply() {
                return Ok(reply);
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(ConnectionError::io("the connection broke", whole))? == 0 {
                return Err(ConnectionError::because("it closed the connection", whole));
            }
        }
    }
}

async fn timed(limit: Duration, step: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
