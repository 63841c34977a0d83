//! The application: sessions that send one message after another, as fast as they are answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

/// What sending came to.
#[derive(Debug, Default)]
pub struct Sent {
    /// How long it took from the first session's start until the last 250.
    pub took: Duration,
    /// Up to 250, one for each message: from the final dot of an application's, from the start of one that is handed over.
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
    /// Each message has a session of its own.
    pub per_session: bool,
}

/// What the sessions of a load have left to send.
#[derive(Clone)]
pub struct Remaining {
    messages: Rc<Cell<u64>>,
    began: Instant,
    time: Duration,
}

impl Remaining {
    /// Takes one message; false when the messages or the time are used up.
    pub fn take(&self) -> bool {
        let is_one = !self.is_over();
        self.messages.set(self.messages.get() - u64::from(is_one));
        is_one
    }

    /// Whether nothing is left to send.
    fn is_over(&self) -> bool {
        self.messages.get() == 0 || self.began.elapsed() >= self.time
    }
}

/// Sends until the messages or the time are used up.
///
/// # Errors
/// When a message is not answered with 250.
pub async fn send(load: Load) -> Result<Sent> {
    let content = Rc::new([message(load.bytes), b".\r\n".to_vec()].concat());
    side_by_side(load, |_, remaining| {
        let content = Rc::clone(&content);
        async move {
            let (mut replies, most) = (Vec::new(), if load.per_session { 1 } else { u64::MAX });
            while !remaining.is_over() {
                let mut peer = Peer::new(connect(load.port).await?);
                peer.expect(&[220]).await?;
                replies.extend(session(peer, &remaining, most, &content).await?);
            }
            anyhow::Ok(replies.into_iter().map(|(_, reply)| reply).collect())
        }
    })
    .await
}

/// The same over STARTTLS, as a relay that has nothing else to do.
///
/// # Errors
/// The same, and when there is no TLS.
pub async fn send_over_start_tls(load: Load, connector: &TlsConnector) -> Result<Sent> {
    let content = Rc::new([message(load.bytes), b".\r\n".to_vec()].concat());
    side_by_side(load, |_, remaining| {
        let (content, connector) = (Rc::clone(&content), connector.clone());
        async move {
            let mut plain = Peer::new(connect(load.port).await?);
            plain.expect(&[220]).await?;
            plain.say(b"EHLO app.example\r\n").await?;
            plain.expect(&[250]).await?;
            plain.say(b"STARTTLS\r\n").await?;
            plain.expect(&[220]).await?;
            let name = ServerName::try_from("localhost")?;
            let stream = connector.connect(name, plain.stream).await.context("no TLS")?;
            let replies = session(Peer::new(stream), &remaining, u64::MAX, &content).await?;
            anyhow::Ok(replies.into_iter().map(|(_, reply)| reply).collect())
        }
    })
    .await
}

/// The same over TLS from the first octet. The times are of whole messages.
///
/// # Errors
/// The same, and when there is no TLS.
pub async fn send_over_tls(load: Load, connector: &TlsConnector, name: &ServerName<'static>) -> Result<Sent> {
    let content = Rc::new([message(load.bytes), b".\r\n".to_vec()].concat());
    side_by_side(load, |_, remaining| {
        let (content, connector, name) = (Rc::clone(&content), connector.clone(), name.clone());
        async move {
            let stream = connector.connect(name, connect(load.port).await?).await.context("no TLS")?;
            let mut peer = Peer::new(stream);
            peer.expect(&[220]).await?;
            let replies = session(peer, &remaining, u64::MAX, &content).await?;
            anyhow::Ok(replies.into_iter().map(|(whole, _)| whole).collect())
        }
    })
    .await
}

/// Runs the sessions of a load, each with its number.
///
/// # Errors
/// The first of a session.
pub async fn side_by_side<S>(load: Load, session: impl Fn(usize, Remaining) -> S) -> Result<Sent>
where
    S: Future<Output = Result<Vec<Duration>>> + 'static,
{
    let local = LocalSet::new();
    let remaining =
        Remaining { messages: Rc::new(Cell::new(load.messages)), began: Instant::now(), time: load.time };
    let sessions: Vec<_> =
        (0..load.sessions).map(|number| local.spawn_local(session(number, remaining.clone()))).collect();
    let mut replies = Vec::new();
    local
        .run_until(async {
            for session in sessions {
                replies.extend(session.await??);
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(Sent { took: remaining.began.elapsed(), replies })
}

async fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends up to `most` messages. For each, how long it took as a whole, and from its final dot.
async fn session(
    mut peer: Peer<impl AsyncRead + AsyncWrite + Unpin>,
    remaining: &Remaining,
    most: u64,
    content: &[u8],
) -> Result<Vec<(Duration, Duration)>> {
    peer.say(b"EHLO app.example\r\n").await?;
    peer.expect(&[250]).await?;
    let mut replies = Vec::new();
    while (replies.len() as u64) < most && remaining.take() {
        let began = Instant::now();
        peer.say(b"MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ada@contoso.com>\r\nDATA\r\n").await?;
        peer.expect(&[250, 250, 354]).await?;
        peer.say(content).await?;
        let written = Instant::now();
        peer.expect(&[250]).await?;
        replies.push((began.elapsed(), written.elapsed()));
    }
    peer.say(b"QUIT\r\n").await?;
    Ok(replies)
}

struct Peer<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn say(&mut self, octets: &[u8]) -> Result<()> {
        self.stream.write_all(octets).await?;
        Ok(self.stream.flush().await?)
    }

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

/// A message of lines of 76 octets.
pub fn message(bytes: usize) -> Vec<u8> {
    let mut message = b"From: Shop <noreply@contoso.com>\r\nTo: Ada <ada@contoso.com>\r\nSubject: Order\r\n\
        Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nMessage-ID: <4711@shop.contoso.com>\r\n\r\n"
        .to_vec();
    let line = [[b'x'; 76].as_slice(), b"\r\n"].concat();
    while message.len() + line.len() <= bytes {
        message.extend(&line);
    }
    message
}
