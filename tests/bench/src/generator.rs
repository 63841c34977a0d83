//! The application: sessions that send one message after another, as fast as they are answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What sending came to.
#[derive(Debug, Default)]
pub struct Sent {
    /// How long it took from the first session's start until the last 250.
    pub took: Duration,
    /// From the final dot to 250, one for each message.
    pub replies: Vec<Duration>,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Port on localhost.
    pub port: u16,
    /// Sessions at a time.
    pub sessions: usize,
    /// Octets of a message.
    pub bytes: usize,
    /// Most messages, all sessions together.
    pub messages: u64,
    /// No message is begun after this time.
    pub time: Duration,
}

/// Sends until the messages or the time are used up.
///
/// # Errors
/// When a message is not answered with 250.
pub async fn send(load: Load) -> Result<Sent> {
    let local = LocalSet::new();
    let (left, content) = (Rc::new(Cell::new(load.messages)), Rc::new(content(load.bytes)));
    let began = Instant::now();
    let sessions: Vec<_> = (0..load.sessions)
        .map(|_| local.spawn_local(session(load, began, Rc::clone(&left), Rc::clone(&content))))
        .collect();
    let mut replies = Vec::new();
    local
        .run_until(async {
            for session in sessions {
                replies.extend(session.await??);
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(Sent { took: began.elapsed(), replies })
}

async fn session(
    load: Load,
    began: Instant,
    left: Rc<Cell<u64>>,
    content: Rc<Vec<u8>>,
) -> Result<Vec<Duration>> {
    let mut peer = Peer { stream: TcpStream::connect(("127.0.0.1", load.port)).await?, buffer: Vec::new() };
    peer.stream.set_nodelay(true)?;
    peer.expect(&[220]).await?;
    peer.stream.write_all(b"EHLO app.example\r\n").await?;
    peer.expect(&[250]).await?;
    let mut replies = Vec::new();
    while left.get() > 0 && began.elapsed() < load.time {
        left.set(left.get() - 1);
        let envelope = b"MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ada@contoso.com>\r\nDATA\r\n";
        peer.stream.write_all(envelope).await?;
        peer.expect(&[250, 250, 354]).await?;
        peer.stream.write_all(&content).await?;
        let written = Instant::now();
        peer.expect(&[250]).await?;
        replies.push(written.elapsed());
    }
    peer.stream.write_all(b"QUIT\r\n").await?;
    Ok(replies)
}

struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    /// Reads as many replies as there are codes.
    async fn expect(&mut self, codes: &[u16]) -> Result<()> {
        for code in codes {
            loop {
                if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                    let line: Vec<u8> = self.buffer.drain(..=end).collect();
                    if line.get(3) == Some(&b'-') {
                        continue;
                    }
                    let text = String::from_utf8_lossy(&line);
                    ensure!(text.starts_with(&code.to_string()), "{code} was expected: {text}");
                    break;
                }
                let read = self.stream.read_buf(&mut self.buffer).await.context("the connection broke")?;
                ensure!(read > 0, "the connection was closed");
            }
        }
        Ok(())
    }
}

/// A message with its end, of lines of 76 octets.
fn content(bytes: usize) -> Vec<u8> {
    let mut message = b"From: Shop <noreply@contoso.com>\r\nTo: Ada <ada@contoso.com>\r\nSubject: Order\r\n\
        Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nMessage-ID: <4711@shop.contoso.com>\r\n\r\n"
        .to_vec();
    let line = [[b'x'; 76].as_slice(), b"\r\n"].concat();
    while message.len() + line.len() <= bytes {
        message.extend(&line);
    }
    message.extend(b".\r\n");
    message
}
