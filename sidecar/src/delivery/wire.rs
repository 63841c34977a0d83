//! The stream under lettre's SMTP connection, over TLS or without, shared with us.
//!
//! lettre reads replies and writes commands; the body of a message is written by [`super::transaction`] through the same
//! stream, in pieces, so that its size does not matter. Three things are made right on the way:
//! * lettre starts every connection by reading a greeting and saying EHLO. Both have been done, so it is answered from
//!   here and its EHLO is not sent; the real one follows as an ordinary command, whose reply lettre then cannot misread.
//! * a reply line without end would fill lettre's memory: it ends the connection.
//! * octets above 127 would be an error of lettre's: they become `?`.
//!
//! Invariant: the lock is never held across an await, and only one of the two sides uses the stream at a time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest line of a reply, octets. RFC 5321 §4.5.3.1.5 allows 512; Exchange's diagnostics are longer.
const MAX_LINE: usize = 4096;

/// The answers to what lettre asks first: its greeting and its EHLO.
const PRELUDE: &[u8] = b"220 ready\r\n250 ready\r\n";

/// What an SMTP conversation runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// One handle of the shared stream.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    stream: Box<dyn Stream>,
    /// What lettre is yet to be told in the server's place.
    prelude: &'static [u8],
    /// Whether lettre's own EHLO is yet to be swallowed.
    swallow: bool,
    /// Octets of the reply line under way.
    line: usize,
}

impl Wire {
    /// A stream whose greeting and first EHLO are behind it.
    pub fn new(stream: impl Stream + 'static) -> Self {
        let stream = Box::new(stream);
        Self(Arc::new(Mutex::new(State { stream, prelude: PRELUDE, swallow: true, line: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes what was read fit for lettre.
    fn check(&mut self, read: &mut [u8]) -> io::Result<()> {
        for byte in read {
            self.line = if *byte == b'\n' { 0 } else { self.line + 1 };
            if self.line > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the reply has no end"));
            }
            if !byte.is_ascii() {
                *byte = b'?';
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if !state.prelude.is_empty() {
            let (now, rest) = state.prelude.split_at(state.prelude.len().min(buf.remaining()));
            buf.put_slice(now);
            state.prelude = rest;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut state.stream).poll_read(cx, buf))?;
        Poll::Ready(state.check(&mut buf.filled_mut()[before..]))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.swallow {
            state.swallow = !buf.ends_with(b"\n");
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut state.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state().stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<std::net::SocketAddr> {
        // For users of lettre's transport, of which there are none here.
        Err(io::ErrorKind::Unsupported.into())
    }
}
