//! The plaintext beginning of a connection: greeting, EHLO, STARTTLS, and not an octet more.
//!
//! Nothing that was said here is believed after the handshake; the stream is given away only while nothing is buffered
//! behind the answer to STARTTLS, as whoever sits on the way could have put it there.

use super::capabilities::Capabilities;
use super::connection::Positive;
use super::conversation::{Conversation, Stream};
use super::error::ConnectionError;
use crate::outcome::classify::Stage;
use crate::smtp::reply::Reply;

/// A connection on which EHLO was answered in plaintext.
pub struct PlaintextConnection<S> {
    conversation: Conversation<S>,
    /// The answer to EHLO.
    pub ehlo: Reply,
}

impl<S: Stream> PlaintextConnection<S> {
    /// Awaits the greeting and says EHLO.
    ///
    /// # Errors
    /// When either fails.
    pub async fn greet(stream: S, ehlo_name: &str) -> Result<Self, ConnectionError> {
        let mut conversation = Conversation::new(stream);
        conversation.reply(Stage::Greeting).await?.positive(Stage::Greeting)?;
        let ehlo = conversation.command(Stage::Ehlo, &format!("EHLO {ehlo_name}\r\n")).await?;
        Ok(Self { conversation, ehlo: ehlo.positive(Stage::Ehlo)? })
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
        self.conversation.command(Stage::StartTls, "STARTTLS\r\n").await?.positive(Stage::StartTls)?;
        if self.conversation.is_ahead() {
            return Err(ConnectionError::StartTlsInjection(host.to_owned()));
        }
        Ok(self.conversation.into_stream())
    }

    /// Goes on in plaintext: the stream and the answer to EHLO.
    ///
    /// # Errors
    /// When more than that answer was sent, so that replies would no longer be those to our commands.
    pub fn stay(self) -> Result<(S, Reply), ConnectionError> {
        if self.conversation.is_ahead() {
            return Err(ConnectionError::broken(Stage::Ehlo, "more was sent than was asked for"));
        }
        Ok((self.conversation.into_stream(), self.ehlo))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::clock;

    const EHLO: &str = "250-mx Hello [203.0.113.7]\r\n250 STARTTLS\r\n";

    /// Greets a peer that has said all this already, and keeps its end open.
    async fn greeted(
        said: &str,
    ) -> (Result<PlaintextConnection<DuplexStream>, ConnectionError>, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(said.as_bytes()).await.unwrap();
        (PlaintextConnection::greet(ours, "app.example").await, theirs)
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
            plain = PlaintextConnection::greet(ours, "app.example") => plain.err().unwrap(),
            () = drip => unreachable!("it never ends"),
        };
        assert!(matches!(error, ConnectionError::Timeout(Stage::Greeting)), "{error}");
        assert_eq!(started.elapsed(), crate::delivery::timeouts::reply(Stage::Greeting));
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
