//! The plaintext beginning of a connection: greeting, EHLO, STARTTLS, and not an octet more.
//!
//! Nothing that was said here is believed after the handshake; the stream is given away only while nothing is buffered
//! behind the answer to STARTTLS, as whoever sits on the way could have put it there.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::capabilities::Capabilities;
use super::classify::Stage;
use super::connection::{ConnectionError, Positive};
use crate::secret::scrub;
use crate::smtp::reply::{Reply, ReplyError};

/// The plaintext part of a connection.
pub struct Plain {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Plain {
    /// A connection that was just made.
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Walks to the point where the handshake begins.
    ///
    /// # Errors
    /// When a step fails, STARTTLS is not offered, or anything follows its answer.
    pub async fn start_tls(mut self, host: &str, ehlo_name: &str) -> Result<TcpStream, ConnectionError> {
        self.reply(Stage::Greeting).await?.positive(Stage::Greeting)?;
        let ehlo =
            self.command(Stage::Ehlo, &format!("EHLO {ehlo_name}\r\n")).await?.positive(Stage::Ehlo)?;
        if !Capabilities::of(&ehlo).starttls {
            return Err(ConnectionError::StartTlsMissing(host.to_owned()));
        }
        self.command(Stage::StartTls, "STARTTLS\r\n").await?.positive(Stage::StartTls)?;
        if !self.buffer.is_empty() {
            return Err(ConnectionError::StartTlsInjection(host.to_owned()));
        }
        Ok(self.stream)
    }

    async fn command(&mut self, stage: Stage, command: &str) -> Result<Reply, ConnectionError> {
        let sent = self.stream.write_all(command.as_bytes()).await;
        sent.map_err(|error| ConnectionError::broken(stage, error))?;
        self.reply(stage).await
    }

    async fn reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        timeout(stage.limit(), self.read_reply(stage)).await.map_err(|_| ConnectionError::Timeout(stage))?
    }

    async fn read_reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        loop {
            let broken = |error: ReplyError| ConnectionError::broken(stage, error);
            if let Some((mut reply, taken)) = Reply::parse(&self.buffer).map_err(broken)? {
                self.buffer.drain(..taken);
                reply.lines.iter_mut().for_each(|line| *line = scrub(line).into_owned());
                return Ok(reply);
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| ConnectionError::broken(stage, error))? == 0 {
                return Err(ConnectionError::broken(stage, "the upstream closed it"));
            }
        }
    }
}
