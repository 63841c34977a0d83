//! The asking end: of the program that runs when there is one, or else of the spool as it lies on disk.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::offline;
use super::protocol::{self, Answer, MAX_ANSWER_BYTES, Request};
use crate::cli::socket;
use crate::clock;
use crate::message::body::{self, Body, MEMORY_BYTES};
use crate::spool::Layout;

/// Longest wait for an answer. To give a thousand dead letters another chance on a slow disk takes a minute or two.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There may be a program, and it cannot be reached.
    #[error("the sidecar's socket {path} cannot be used")]
    Unreachable {
        /// Where it is.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the sidecar closed the connection; it may be stopping, or try again in a moment")]
    HungUp(#[source] io::Error),
    /// Nothing came.
    #[error("no answer from the sidecar within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// The message cannot be read on.
    #[error("the message cannot be read from the spool")]
    Unreadable(#[source] io::Error),
    /// What came is no answer.
    #[error("the sidecar's answer is not valid; are both programs the same version?")]
    Senseless(#[source] serde_json::Error),
    /// It cannot be done, in the words of whoever was asked.
    #[error("{0}")]
    Refused(String),
}

/// An answer.
pub struct Asked {
    /// The answer; never a refusal.
    pub answer: Answer,
    /// The octets behind [`Answer::Content`].
    pub content: Option<Content>,
    /// Whether a program runs that answered.
    pub running: bool,
}

/// A message's octets, from whoever has them.
pub enum Content {
    /// So many more come through the socket.
    Coming(BufReader<UnixStream>, u64),
    /// They are read from the disk.
    Kept(body::Reader),
}

/// Asks for `request` about the spool in `directory`.
///
/// # Errors
/// When there is no answer, or it is a refusal.
pub async fn ask(directory: &Path, request: Request) -> Result<Asked, AskError> {
    let layout = Layout::new(directory);
    let connected = socket::connect(&layout).await;
    let unreachable = |source| AskError::Unreachable { path: layout.socket().display().to_string(), source };
    let asked = match connected.map_err(unreachable)? {
        Some(stream) => {
            timeout(PATIENCE, converse(stream, &request)).await.map_err(|_| AskError::Silent)??
        }
        None => {
            let reply = offline::answer(directory, request, clock::timestamp()).await;
            let content = reply.content.as_ref().map(Body::reader).map(Content::Kept);
            Asked { answer: reply.answer, content, running: false }
        }
    };
    match asked.answer {
        Answer::Refused(why) => Err(AskError::Refused(why)),
        _ => Ok(asked),
    }
}

async fn converse(mut stream: UnixStream, request: &Request) -> Result<Asked, AskError> {
    // A refusal may come, and the other end be closed, before all is written; what came is read all the same.
    let written = stream.write_all(&protocol::line(request)).await;
    let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
    let most = MAX_ANSWER_BYTES as u64;
    (&mut stream).take(most).read_until(b'\n', &mut line).await.map_err(AskError::HungUp)?;
    if !line.ends_with(b"\n") {
        let cut = written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
        return Err(AskError::HungUp(cut));
    }
    let answer = serde_json::from_slice(&line).map_err(AskError::Senseless)?;
    let content = match answer {
        Answer::Content(bytes) => Some(Content::Coming(stream, bytes)),
        _ => None,
    };
    Ok(Asked { answer, content, running: true })
}

impl Content {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, AskError> {
        match self {
            Self::Kept(reader) => reader.next().await.map_err(AskError::Unreadable),
            Self::Coming(_, 0) => Ok(None),
            Self::Coming(stream, left) => {
                let mut piece = BytesMut::with_capacity(MEMORY_BYTES);
                let mut part = stream.take(*left);
                let read = timeout(PATIENCE, part.read_buf(&mut piece)).await;
                match read.map_err(|_| AskError::Silent)?.map_err(AskError::HungUp)? {
                    0 => Err(AskError::HungUp(io::ErrorKind::UnexpectedEof.into())),
                    len => {
                        *left -= len as u64;
                        Ok(Some(piece.freeze()))
                    }
                }
            }
        }
    }
}
