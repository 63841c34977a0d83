//! The content of a request to `sendMail`: the whole message in base64, streamed piece by piece.
//!
//! Owns the one change to the message, which is to its header ([`recipients`]), and how far a request has come. Holds the
//! header and one piece at a time, whatever the size of the message.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::recipients::{self, HeaderProblem};
use crate::message::body::{Body, Reader};
use crate::message::envelope::Address;
use crate::smtp::header::MAX_HEADER_BYTES;

/// Octets of the message that become one piece of base64; a multiple of three.
const PIECE: usize = 48 * 1024;

/// Most octets that are searched for the end of the header: the largest that is taken, and the fields that were added to it.
const MAX_SEARCHED: u64 = MAX_HEADER_BYTES + 64 * 1024;

/// What a request carries.
pub type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The recipients in the header cannot be made those of the envelope.
    #[error(transparent)]
    Header(#[from] HeaderProblem),
    /// The header does not end.
    #[error("the header is larger than {MAX_SEARCHED} octets")]
    EndlessHeader,
    /// The message cannot be read here.
    #[error("cannot read the message: {0}")]
    Read(#[from] io::Error),
}

/// How far a request has come.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    handed_over: AtomicBool,
    unreadable: AtomicBool,
}

impl Progress {
    /// Whether all of the content was handed over to the connection, so that the other side may have it.
    pub fn is_handed_over(&self) -> bool {
        self.0.handed_over.load(Ordering::Relaxed)
    }

    /// Whether the message could not be read to its end.
    pub fn is_unreadable(&self) -> bool {
        self.0.unreadable.load(Ordering::Relaxed)
    }
}

/// A message that is ready to be sent, with the recipients in its header.
pub struct Content {
    /// The header, and what was read behind it.
    front: BytesMut,
    rest: Reader,
    len: u64,
    /// Octets that were not taken yet.
    left: u64,
}

impl Content {
    /// Makes the message in `body` ready for `envelope`.
    ///
    /// # Errors
    /// When its header cannot be, or the message cannot be read.
    pub async fn of(body: &Body, envelope: &[Address]) -> Result<Self, ContentError> {
        let (mut rest, mut read) = (body.reader(), Vec::new());
        let end = loop {
            if let Some(end) = header_end(&read) {
                break end;
            }
            if read.len() as u64 > MAX_SEARCHED {
                return Err(ContentError::EndlessHeader);
            }
            match rest.next().await? {
                Some(piece) => read.extend_from_slice(&piece),
                // All of the message is its header.
                None => break read.len(),
            }
        };
        let header = recipients::for_graph(&read[..end], envelope)?;
        let len = body.len() - end as u64 + header.len() as u64;
        let mut front = BytesMut::from(&header[..]);
        front.extend_from_slice(&read[end..]);
        Ok(Self { front, rest, len, left: len })
    }

    /// Octets of the message as it is sent.
    pub const fn octets(&self) -> u64 {
        self.len
    }

    /// Octets of it in base64.
    pub const fn encoded_len(&self) -> u64 {
        self.len.div_ceil(3) * 4
    }

    /// The content as the body of a request.
    pub fn into_body(self, progress: &Progress) -> RequestBody {
        let progress = progress.clone();
        let pieces = stream::try_unfold(Some(self), move |content| {
            let progress = progress.clone();
            async move {
                let Some(mut content) = content else { return Ok(None) };
                let taken = content.next().await;
                let raw = taken.inspect_err(|_| progress.0.unreadable.store(true, Ordering::Relaxed))?;
                content.left = content.left.saturating_sub(raw.len() as u64);
                // Nobody asks for a piece behind the last octet.
                let is_last = content.left == 0 || raw.len() < PIECE;
                progress.0.handed_over.fetch_or(is_last, Ordering::Relaxed);
                let encoded = Bytes::from(STANDARD.encode(&raw));
                Ok::<_, io::Error>(Some((Frame::data(encoded), (!is_last).then_some(content))))
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    /// The next octets: [`PIECE`] of them, or fewer at the end.
    async fn next(&mut self) -> io::Result<BytesMut> {
        while self.front.len() < PIECE {
            let Some(piece) = self.rest.next().await? else { break };
            self.front.extend_from_slice(&piece);
        }
        Ok(self.front.split_to(self.front.len().min(PIECE)))
    }
}

/// A body that is no message, not even base64, and its length.
pub fn no_message() -> (RequestBody, u64) {
    const TEXT: &[u8] = b"*** not base64: nothing is to be sent ***";
    let body = Full::new(Bytes::from_static(TEXT)).map_err(|never| match never {});
    (body.boxed_unsync(), TEXT.len() as u64)
}

/// Where the header ends: in front of the empty line.
fn header_end(message: &[u8]) -> Option<usize> {
    if message.starts_with(b"\r\n") {
        return Some(0);
    }
    message.windows(4).position(|octets| octets == b"\r\n\r\n").map(|at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str) -> Vec<Address> {
        vec![Address::parse(address).unwrap()]
    }

    async fn sent(body: &Body) -> (Vec<u8>, u64, Progress) {
        let content = Content::of(body, &to("a@b")).await.unwrap();
        let (len, encoded_len, progress) = (content.octets(), content.encoded_len(), Progress::default());
        let encoded = content.into_body(&progress).collect().await.unwrap().to_bytes();
        assert_eq!(encoded.len() as u64, encoded_len);
        let message = STANDARD.decode(encoded).unwrap();
        assert_eq!(message.len() as u64, len);
        (message, len, progress)
    }

    #[tokio::test]
    async fn a_message_of_any_size_is_encoded_as_one_text_of_known_length() {
        for len in [0, 1, 2, PIECE - 60, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let text = "x".repeat(len);
            let body = Body::new("Received: x\r\n", format!("Bcc: c@d\r\n\r\n{text}"));
            let (message, _, progress) = sent(&body).await;
            assert_eq!(message, format!("Bcc: a@b\r\nReceived: x\r\n\r\n{text}").as_bytes(), "{len}");
            assert!(progress.is_handed_over() && !progress.is_unreadable());
        }
    }

    #[tokio::test]
    async fn a_message_without_a_body_or_without_a_header_is_sent_too() {
        for (body, expected) in [
            ("To: a@b\r\n", "To: a@b\r\n"),
            ("\r\nText\r\n\r\n", "Bcc: a@b\r\n\r\nText\r\n\r\n"),
            ("", "Bcc: a@b\r\n"),
        ] {
            assert_eq!(sent(&Body::new("", body)).await.0, expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn nothing_is_said_to_be_handed_over_before_it_is() {
        let body = Body::new("", format!("To: a@b\r\n\r\n{}", "x".repeat(3 * PIECE)));
        let progress = Progress::default();
        let mut request = Content::of(&body, &to("a@b")).await.unwrap().into_body(&progress);
        for _ in 0..3 {
            request.frame().await.unwrap().unwrap();
            assert!(!progress.is_handed_over());
        }
        request.frame().await.unwrap().unwrap();
        assert!(progress.is_handed_over() && request.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_header_that_does_not_end_is_refused() {
        let body = Body::new("", "X: y\r\n".repeat(100_000));
        assert!(matches!(Content::of(&body, &to("a@b")).await, Err(ContentError::EndlessHeader)));
    }
}
