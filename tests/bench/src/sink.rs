//! The upstream: an SMTP server over TLS that takes everything, forgets it and counts.
//!
//! It does as little as the protocol allows, so that it is not what is measured. A second port answers `COUNT\n` when so
//! many messages have come.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use memchr::memmem;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How the sink starts.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long it thinks about a message, milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Where its certificate is written.
    #[arg(long)]
    certificate: PathBuf,
}

/// What it says when it is ready, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Port of SMTP.
    pub smtp: u16,
    /// Port of the counter.
    pub count: u16,
}

const CAPABILITIES: &str =
    "250-sink.example\r\n250-SIZE 157286400\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n";

/// Runs until it is killed.
pub async fn run(arguments: Arguments) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(identity(&arguments.certificate)?));
    let (smtp, count) = (
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    );
    let ready = Ready { smtp: smtp.local_addr()?.port(), count: count.local_addr()?.port() };
    println!("{}", serde_json::to_string(&ready)?);
    let taken = Arc::new(watch::Sender::new(0_u64));
    tokio::spawn(serve_count(count, taken.subscribe()));
    let delay = Duration::from_millis(arguments.delay);
    loop {
        let (stream, _) = smtp.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, taken) = (acceptor.clone(), Arc::clone(&taken));
        tokio::spawn(async move {
            // A client that goes away is its own affair.
            let _ = converse(stream, &acceptor, &taken, delay).await;
        });
    }
}

/// A certificate for `localhost`, written to `path` for those who are to trust it.
///
/// # Errors
/// When there is no key, or the file cannot be written.
pub fn identity(path: &std::path::Path) -> Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    std::fs::write(path, certificate.pem())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?)
}

/// Answers each line with a number when so many messages have been taken.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_count(listener: TcpListener, taken: watch::Receiver<u64>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut taken = taken.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let wanted: u64 = line.trim().parse().context("a number is expected")?;
            taken.wait_for(|taken| *taken >= wanted).await?;
            stream.write_all(b"reached\n").await?;
            anyhow::Ok(())
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
    taken: &watch::Sender<u64>,
    delay: Duration,
) -> Result<()> {
    stream.write_all(b"220 sink.example ESMTP\r\n").await?;
    if Session::new(&mut stream, true).run(taken, delay).await? {
        let mut stream = acceptor.accept(stream).await?;
        Session::new(&mut stream, false).run(taken, delay).await?;
    }
    Ok(())
}

struct Session<'a, S> {
    stream: &'a mut S,
    buffer: Vec<u8>,
    out: Vec<u8>,
    starttls: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: &'a mut S, starttls: bool) -> Self {
        Self { stream, buffer: Vec::with_capacity(64 << 10), out: Vec::new(), starttls }
    }

    /// Whether TLS is to begin.
    async fn run(mut self, taken: &watch::Sender<u64>, delay: Duration) -> Result<bool> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_slice() {
                    b"EHLO" => {
                        self.out.extend(CAPABILITIES.as_bytes());
                        if self.starttls {
                            self.out.extend(b"250-STARTTLS\r\n");
                        }
                        self.out.extend(b"250 8BITMIME\r\n");
                    }
                    b"STAR" => {
                        self.stream.write_all(b"220 2.0.0 go\r\n").await?;
                        return Ok(true);
                    }
                    b"DATA" => {
                        self.out.extend(b"354 go\r\n");
                        self.flush().await?;
                        self.message().await?;
                        if !delay.is_zero() {
                            tokio::time::sleep(delay).await;
                        }
                        self.out.extend(b"250 2.6.0 taken\r\n");
                        taken.send_modify(|taken| *taken += 1);
                    }
                    b"QUIT" => {
                        self.stream.write_all(b"221 2.0.0 bye\r\n").await?;
                        return Ok(false);
                    }
                    _ => self.out.extend(b"250 2.0.0 ok\r\n"),
                }
            }
            self.flush().await?;
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.out.clear();
        Ok(())
    }

    /// Reads up to the end of the data and drops it.
    async fn message(&mut self) -> Result<()> {
        const END: &[u8] = b"\r\n.\r\n";
        loop {
            if let Some(at) = memmem::find(&self.buffer, END) {
                self.buffer.drain(..at + END.len());
                return Ok(());
            }
            // What may be the beginning of the end is kept.
            let done = self.buffer.len().saturating_sub(END.len() - 1);
            self.buffer.drain(..done);
            anyhow::ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the message broke off");
        }
    }
}
