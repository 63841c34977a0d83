//! A stream whose peer has to read what it is sent in time. Knows nothing of the content.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream on which what was written has to leave within a time, however it is cut into pieces; else writing fails.
pub(super) struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    /// While something waits to be sent.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    /// The stream, on which nothing waits longer than `limit`.
    pub(super) const fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, late: None }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            let late = self.late.get_or_insert_with(|| Box::pin(sleep(self.limit)));
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.in_time(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() {
            self.late = None;
        }
        self.in_time(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_or_reads_an_octet_at_a_time_is_given_up() {
        for reads in [false, true] {
            let (ours, mut theirs) = duplex(1024);
            let mut ours = WriteTimeout::new(ours, LIMIT);
            let reader = tokio::spawn(async move {
                while reads && theirs.read_u8().await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
                sleep(10 * LIMIT).await;
            });
            let began = Instant::now();
            let error = ours.write_all(&[0; 4096]).await.unwrap_err();
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, LIMIT.as_secs()));
            reader.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_each_answer_in_time_is_served_for_ever() {
        let (ours, mut theirs) = duplex(1024);
        let mut ours = WriteTimeout::new(ours, LIMIT);
        tokio::spawn(async move {
            let mut answer = [0; 4096];
            while theirs.read_exact(&mut answer).await.is_ok() {
                sleep(LIMIT - Duration::from_secs(1)).await;
            }
        });
        for _ in 0..10 {
            ours.write_all(&[0; 4096]).await.unwrap();
            ours.flush().await.unwrap();
        }
    }
}
