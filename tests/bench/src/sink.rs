//! The upstream: an SMTP server over TLS that takes everything, forgets it and counts.
//!
//! It does as little as the protocol allows, so that it is not what is measured. A second port answers `COUNT\n` when so
//! many messages have come.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use memchr::memmem;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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
    /// Time on the way to it and back, milliseconds: each answer comes so much later.
    #[arg(long, default_value_t = 0)]
    round_trip: u64,
    /// Where its certificate is written.
    #[arg(long)]
    certificate: PathBuf,
    /// Where the certificate's key is kept, for a sink that comes again.
    #[arg(long)]
    key: PathBuf,
    /// Where it takes mail; a free port without this.
    #[arg(long, default_value_t = 0)]
    port: u16,
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
    "250-sink.example\r\n250-SIZE 157286400\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n";

/// Runs until it is killed.
pub async fn run(arguments: Arguments) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(kept_identity(&arguments.certificate, &arguments.key)?));
    let (smtp, count) = (
        TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    );
    let ready = Ready { smtp: smtp.local_addr()?.port(), count: count.local_addr()?.port() };
    println!("{}", serde_json::to_string(&ready)?);
    let taken = Arc::new(watch::Sender::new(0_u64));
    tokio::spawn(serve_count(count, taken.subscribe()));
    let times = Times {
        delay: Duration::from_millis(arguments.delay),
        round_trip: Duration::from_millis(arguments.round_trip),
    };
    loop {
        let (stream, _) = smtp.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, taken) = (acceptor.clone(), Arc::clone(&taken));
        tokio::spawn(async move {
            // A client that goes away is its own affair.
            let _ = converse(stream, &acceptor, &taken, times).await;
        });
    }
}

/// The certificate and key in these files, which are made where they are missing.
fn kept_identity(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    if !key.exists() {
        let (own, pem) = made()?;
        std::fs::write(certificate, &pem)?;
        std::fs::write(key, own.serialize_pem())?;
    }
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    Ok(ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?)
}

/// A key, and a certificate of it for `localhost`, PEM.
fn made() -> Result<(KeyPair, String)> {
    let key = KeyPair::generate()?;
    let pem = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?.pem();
    Ok((key, pem))
}

/// The same with a key that nobody keeps; the certificate is written to `path` for those who are to trust it.
///
/// # Errors
/// When there is no key, or the file cannot be written.
pub fn identity(path: &Path) -> Result<ServerConfig> {
    let (key, pem) = made()?;
    std::fs::write(path, &pem)?;
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes())?];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
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

/// How long things take.
#[derive(Clone, Copy)]
struct Times {
    delay: Duration,
    round_trip: Duration,
}

async fn converse(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
    taken: &watch::Sender<u64>,
    times: Times,
) -> Result<()> {
    stream.write_all(b"220 sink.example ESMTP\r\n").await?;
    if Session::new(&mut stream, times, true).run(taken).await? {
        let mut stream = acceptor.accept(stream).await?;
        Session::new(&mut stream, times, false).run(taken).await?;
    }
    Ok(())
}

struct Session<'a, S> {
    stream: &'a mut S,
    buffer: Vec<u8>,
    out: Vec<u8>,
    times: Times,
    starttls: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: &'a mut S, times: Times, starttls: bool) -> Self {
        Self { stream, buffer: Vec::with_capacity(64 << 10), out: Vec::new(), times, starttls }
    }

    /// Whether TLS is to begin.
    async fn run(mut self, taken: &watch::Sender<u64>) -> Result<bool> {
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
                        self.taken(taken).await;
                    }
                    b"BDAT" => {
                        self.chunk(&line).await?;
                        self.taken(taken).await;
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

    async fn taken(&mut self, taken: &watch::Sender<u64>) {
        if !self.times.delay.is_zero() {
            tokio::time::sleep(self.times.delay).await;
        }
        self.out.extend(b"250 2.6.0 taken\r\n");
        taken.send_modify(|taken| *taken += 1);
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.times.round_trip.is_zero() && !self.out.is_empty() {
            tokio::time::sleep(self.times.round_trip).await;
        }
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.out.clear();
        Ok(())
    }

    /// Reads the one chunk of a message, as `BDAT n LAST` announces it, and drops it.
    async fn chunk(&mut self, command: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(command);
        let octets = text.split_whitespace().nth(1).and_then(|octets| octets.parse::<usize>().ok());
        let mut left = octets.context("BDAT without a size")?;
        anyhow::ensure!(text.trim_end().ends_with(" LAST"), "more than one chunk");
        loop {
            let taken = left.min(self.buffer.len());
            self.buffer.drain(..taken);
            left -= taken;
            if left == 0 {
                return Ok(());
            }
            anyhow::ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the message broke off");
        }
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
