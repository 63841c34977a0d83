//! The plaintext beginning of a connection: greeting, EHLO, STARTTLS, and not an octet more.
//!
//! Nothing that was said here is believed after the handshake; the stream is given away only while nothing is buffered
//! behind the answer to STARTTLS, as whoever sits on the way could have put it there.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::capabilities::Capabilities;
use super::classify::Stage;
use super::connection::Positive;
use super::error::ConnectionError;
use super::wire::Stream;
use crate::secret::scrub;
use crate::smtp::reply::{Reply, ReplyError};

/// A connection on which EHLO was answered in plaintext.
pub struct Plain<S> {
    stream: S,
    buffer: Vec<u8>,
    /// The answer to EHLO.
    pub ehlo: Reply,
}

impl<S: Stream> Plain<S> {
    /// Awaits the greeting and says EHLO.
    ///
    /// # Errors
    /// When either fails.
    pub async fn greet(stream: S, ehlo_name: &str) -> Result<Self, ConnectionError> {
        let ehlo = Reply { code: 220, enhanced: None, lines: vec![] };
        let mut this = Self { stream, buffer: Vec::new(), ehlo };
        this.reply(Stage::Greeting).await?.positive(Stage::Greeting)?;
        this.ehlo =
            this.command(Stage::Ehlo, &format!("EHLO {ehlo_name}\r\n")).await?.positive(Stage::Ehlo)?;
        Ok(this)
    }

    /// Whether TLS can begin here.
    pub fn offers_tls(&self) -> bool {
        Capabilities::of(&self.ehlo).starttls
    }

    /// Walks to the point where the handshake begins. `host` is for the errors.
    ///
    /// # Errors
    /// When STARTTLS is not offered or refused, or anything follows its answer.
    pub async fn start_tls(mut self, host: &str) -> Result<S, ConnectionError> {
        if !self.offers_tls() {
            return Err(ConnectionError::StartTlsMissing(host.to_owned()));
        }
        self.command(Stage::StartTls, "STARTTLS\r\n").await?.positive(Stage::StartTls)?;
        if !self.buffer.is_empty() {
            return Err(ConnectionError::StartTlsInjection(host.to_owned()));
        }
        Ok(self.stream)
    }

    /// Goes on in plaintext: the stream and the answer to EHLO.
    ///
    /// # Errors
    /// When more than that answer was sent, so that replies would no longer be those to our commands.
    pub fn stay(self) -> Result<(S, Reply), ConnectionError> {
        if self.buffer.is_empty() {
            Ok((self.stream, self.ehlo))
        } else {
            Err(ConnectionError::broken(Stage::Ehlo, "more was sent than was asked for"))
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::clock;

    const EHLO: &str = "250-mx Hello [203.0.113.7]\r\n250 STARTTLS\r\n";

    /// Greets a peer that has said all this already, and keeps its end open.
    async fn greeted(said: &str) -> (Result<Plain<DuplexStream>, ConnectionError>, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(said.as_bytes()).await.unwrap();
        (Plain::greet(ours, "app.example").await, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_drips_gets_no_more_time_than_a_silent_one() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let started = clock::now();
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                theirs.write_all(b"2").await.unwrap();
            }
        };
        let error = tokio::select! {
            plain = Plain::greet(ours, "app.example") => plain.err().unwrap(),
            () = drip => unreachable!("it never ends"),
        };
        assert!(matches!(error, ConnectionError::Timeout(Stage::Greeting)), "{error}");
        assert_eq!(started.elapsed(), Stage::Greeting.limit());
    }

    #[tokio::test]
    async fn whatever_follows_the_answer_to_starttls_is_an_attack() {
        let (plain, mut peer) = greeted(&format!("220 mx\r\n{EHLO}")).await;
        peer.write_all(b"220 go\r\n250 injected\r\n").await.unwrap();
        let error = plain.unwrap().start_tls("mx").await.err().unwrap();
        assert!(matches!(error, ConnectionError::StartTlsInjection(_)), "{error}");
        let (plain, mut peer) = greeted(&format!("220 mx\r\n{EHLO}")).await;
        peer.write_all(b"220 go\r\n").await.unwrap();
        assert!(plain.unwrap().start_tls("mx").await.is_ok());
    }

    #[tokio::test]
    async fn replies_that_were_not_asked_for_end_a_plaintext_connection() {
        let (plain, _peer) = greeted(&format!("220 mx\r\n{EHLO}250 ok\r\n250 ok\r\n354 go\r\n")).await;
        assert!(plain.unwrap().stay().is_err());
        let (plain, _peer) = greeted(&format!("220 mx\r\n{EHLO}")).await;
        assert_eq!(plain.unwrap().stay().unwrap().1.lines.len(), 2);
    }
}
