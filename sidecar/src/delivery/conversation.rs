//! Commands out, replies in, over a stream: the one reader of an upstream's replies, before TLS and over it.
//!
//! Owns the time limit of each step and what is kept of a reply. Refuses to know what a reply means.
//!
//! Invariants: what a peer sends is bounded in memory by [`ReplyReader`] and [`KEPT`], in time by [`reply`](super::timeouts::reply); a
//! reply that is handed out holds nothing that looks like a token.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::ConnectionError;
use super::timeouts;
use crate::outcome::classify::Stage;
use crate::secret::scrub;
use crate::smtp::reply::{Reply, ReplyError, ReplyReader};

/// Octets of text that are kept of one reply: all that Exchange was ever seen to say, several times over. A message to a
/// thousand recipients has as many replies.
const KEPT: usize = 8 * 1024;

/// What an SMTP conversation runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A stream, and what was read of it that belongs to the next reply.
pub struct Conversation<S> {
    stream: S,
    buffer: Vec<u8>,
    reader: ReplyReader,
}

impl<S: Stream> Conversation<S> {
    /// A conversation over `stream`, of which nothing was read.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), reader: ReplyReader::default() }
    }

    /// Whether more was received than was asked for.
    pub const fn is_ahead(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The stream again. What was read ahead is lost.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Sends one command, or several pipelined ones, and reads the reply to the first, both within the limit of `stage`.
    ///
    /// # Errors
    /// When there is no well-formed reply in time. A negative reply is no error.
    pub async fn command(&mut self, stage: Stage, command: &str) -> Result<Reply, ConnectionError> {
        let exchange = async {
            let broken = |error| ConnectionError::broken(stage, error);
            self.stream.write_all(command.as_bytes()).await.map_err(broken)?;
            self.stream.flush().await.map_err(broken)?;
            self.read_reply(stage).await
        };
        timeout(timeouts::reply(stage), exchange).await.map_err(|_| ConnectionError::Timeout(stage))?
    }

    /// Reads the next reply: to a command that was pipelined, to the message, or the greeting.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        let read = timeout(timeouts::reply(stage), self.read_reply(stage)).await;
        read.map_err(|_| ConnectionError::Timeout(stage))?
    }

    async fn read_reply(&mut self, stage: Stage) -> Result<Reply, ConnectionError> {
        loop {
            let broken = |error: ReplyError| ConnectionError::broken(stage, error);
            let taken = self.reader.read(&self.buffer).map_err(broken)?;
            self.buffer.drain(..taken);
            if let Some(reply) = self.reader.reply() {
                return Ok(kept(reply));
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| ConnectionError::broken(stage, error))? == 0 {
                return Err(ConnectionError::broken(stage, "the upstream closed it"));
            }
        }
    }

    /// Writes a piece of the message as it is.
    ///
    /// # Errors
    /// When the upstream does not take it in time.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), ConnectionError> {
        written(timeout(timeouts::BLOCK, self.stream.write_all(piece)).await)
    }

    /// Sends what has been written on its way.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        written(timeout(timeouts::BLOCK, self.stream.flush()).await)
    }

    /// Ends the conversation politely.
    pub async fn quit(mut self) {
        // Whatever comes back, this was the last word.
        let _ = self.command(Stage::Quit, "QUIT\r\n").await;
        let _ = self.stream.shutdown().await;
    }
}

/// What is kept of a reply: without what looks like a token, and not more than [`KEPT`] octets.
fn kept(mut reply: Reply) -> Reply {
    let mut room = KEPT;
    for line in &mut reply.lines {
        let mut text = scrub(line).into_owned();
        text.truncate(text.floor_char_boundary(room));
        room -= text.len();
        *line = text;
    }
    reply
}

fn written(outcome: Result<std::io::Result<()>, tokio::time::error::Elapsed>) -> Result<(), ConnectionError> {
    outcome
        .map_err(|_| ConnectionError::Timeout(Stage::Message))?
        .map_err(|error| ConnectionError::broken(Stage::Message, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{MAX_REPLY_LINE, MAX_REPLY_LINES};

    /// Reads one reply from a peer that says `said` and closes.
    async fn read(said: String) -> Result<Reply, ConnectionError> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        // Fails where what it says is not read to the end.
        let _said = tokio::spawn(async move { theirs.write_all(said.as_bytes()).await });
        Conversation::new(ours).reply(Stage::Message).await
    }

    #[tokio::test]
    async fn a_refusal_of_exchanges_real_length_is_read_whole() {
        let text = format!("5.2.252 SendAsDenied; {}", "1.84300:0A000000, ".repeat(83));
        let reply = read(format!("554 {text}\r\n")).await.unwrap();
        assert_eq!((reply.code, reply.text().len()), (554, text.len() - "5.2.252 ".len()));
    }

    #[tokio::test]
    async fn lines_and_their_number_have_a_bound_and_so_has_what_is_kept() {
        let line = |mark, len: usize| format!("550{mark}{}\r\n", &"x ".repeat(len)[..len - 4]);
        let longest = line('-', MAX_REPLY_LINE).repeat(MAX_REPLY_LINES - 1) + &line(' ', MAX_REPLY_LINE);
        let reply = read(longest.clone()).await.unwrap();
        assert_eq!(reply.lines.len(), MAX_REPLY_LINES);
        assert_eq!(reply.lines.iter().map(String::len).sum::<usize>(), KEPT);
        for too_long in [line('-', 5) + &longest, line(' ', MAX_REPLY_LINE + 1), "5".repeat(100_000)] {
            let error = read(too_long).await.unwrap_err();
            assert!(matches!(error, ConnectionError::Broken { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn an_echoed_token_is_not_part_of_a_reply() {
        let reply = read(format!("501 5.5.4 what is {}\r\n", "QUJD".repeat(100))).await.unwrap();
        assert_eq!(reply.lines, ["what is [removed]"]);
    }
}
