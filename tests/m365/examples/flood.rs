//! Sends many messages as fast as they are taken, to measure the simulator itself: what stands between two figures of a
//! benchmark must not be the server that both are measured against.
//!
//! ```console
//! $ m365-simulator serve --quiet --config tests/m365/examples/sink.json --state /tmp/m365 &
//! $ cargo run --release -p mailroute-m365 --example flood -- --ca /tmp/m365/ca.pem --sessions 10 --messages 100000
//! ```
//! MAIL, RCPT and DATA go in one packet, the message in another. It logs in with the sample password, so the tenant's
//! `basicAuth` must be `allowed`.

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_PASSWORD};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Sends many messages as fast as they are taken.
#[derive(Clone, Debug, Parser)]
struct Flood {
    /// Where client submission listens
    #[arg(long, default_value = "127.0.0.1:8587")]
    address: SocketAddr,
    /// The certificate to trust
    #[arg(long)]
    ca: PathBuf,
    /// Connections side by side
    #[arg(long, default_value_t = 3)]
    sessions: u64,
    /// Messages in all
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Bytes of each message's body
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let flood = Flood::parse();
    let config = Arc::new(trust(&flood)?);
    let (left, message) = (Arc::new(AtomicU64::new(flood.messages)), Arc::new(message(flood.bytes)));
    let mut sessions = Vec::new();
    for _ in 0..flood.sessions {
        sessions.push(log_in(&flood, &config).await?);
    }
    let start = Instant::now();
    let running: Vec<_> = sessions
        .into_iter()
        .map(|session| tokio::spawn(send_all(session, Arc::clone(&left), Arc::clone(&message))))
        .collect();
    for session in running {
        session.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^52 messages")]
    let rate = flood.messages as f64 / seconds;
    writeln!(std::io::stdout(), "{} messages in {seconds:.2} s: {rate:.0} messages/s", flood.messages)?;
    Ok(())
}

fn trust(flood: &Flood) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&flood.ca).context("cannot read the certificate to trust")?)?;
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn message(bytes: usize) -> Vec<u8> {
    let head = format!(
        "From: Shop <{SAMPLE_MAILBOX}>\r\nTo: alice@example.com\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <flood@contoso.com>\r\nSubject: flood\r\n\r\n"
    );
    let line = format!("{}\r\n", "x".repeat(76));
    let body = line.repeat(bytes / line.len());
    format!("{head}{body}.\r\n").into_bytes()
}

type Session = BufReader<TlsStream<TcpStream>>;

async fn log_in(flood: &Flood, config: &Arc<ClientConfig>) -> Result<Session> {
    let stream = TcpStream::connect(flood.address).await?;
    stream.set_nodelay(true)?;
    let mut plain = BufReader::new(stream);
    expect(&mut plain, "220").await?;
    say(&mut plain, "EHLO flood.example", "250").await?;
    say(&mut plain, "STARTTLS", "220").await?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, plain.into_inner()).await?;
    let mut session = BufReader::new(stream);
    say(&mut session, "EHLO flood.example", "250").await?;
    say(&mut session, &format!("AUTH LOGIN {}", STANDARD.encode(SAMPLE_MAILBOX)), "334").await?;
    say(&mut session, &STANDARD.encode(SAMPLE_PASSWORD), "235").await?;
    Ok(session)
}

async fn send_all(mut session: Session, left: Arc<AtomicU64>, message: Arc<Vec<u8>>) -> Result<()> {
    let envelope =
        format!("MAIL FROM:<{SAMPLE_MAILBOX}>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n").into_bytes();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        session.write_all(&envelope).await?;
        session.flush().await?;
        for code in ["250", "250", "354"] {
            expect(&mut session, code).await?;
        }
        session.write_all(&message).await?;
        session.flush().await?;
        expect(&mut session, "250").await?;
    }
    say(&mut session, "QUIT", "221").await
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    line: &str,
    code: &str,
) -> Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    expect(stream, code).await
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut BufReader<S>, code: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            bail!("the connection ended");
        }
        if !line.starts_with(code) {
            bail!("expected {code}, met {line}");
        }
        if line.as_bytes().get(3) == Some(&b' ') {
            return Ok(());
        }
    }
}
