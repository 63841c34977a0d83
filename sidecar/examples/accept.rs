//! How fast messages are taken in: the session alone, and the whole local server over loopback, with nothing behind it.
//!
//! Prints messages per second; compare numbers of one machine and one hour only.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use clap::Parser;
use mailroute_sidecar::listener::{
    Accept, Listeners, Observer, Refusal, RuleAction, Service, SessionLimits, Settings, serve,
};
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::Envelope;
use mailroute_sidecar::smtp::reply::{EnhancedCode, Reply};
use mailroute_sidecar::smtp::session::{Session, Step};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Measures the way in.
#[derive(Parser)]
struct Arguments {
    /// Messages of each run.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Octets of a message's body.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Sessions at once.
    #[arg(long, default_value_t = 10)]
    sessions: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let message = message(arguments.bytes);
    session_alone(&arguments, &message);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(over_loopback(&arguments, &message))
}

/// What a client sends for one message, in two writes: the pipelined commands, and the data.
fn message(bytes: usize) -> (String, String) {
    let commands =
        "MAIL FROM:<noreply@contoso.com> SIZE=5000\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n".to_owned();
    let header = "Received: from app by mta\r\nFrom: Shop <noreply@contoso.com>\r\nTo: Ada <ada@example.com>\r\nSubject: Your order\r\n\
                  Message-ID: <1@contoso.com>\r\nDate: Sun, 22 Nov 2026 03:02:28 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n";
    let line = "It left the warehouse today, and it will be with you tomorrow morning.\r\n";
    (commands, format!("{header}{}.\r\n", line.repeat(bytes / line.len() + 1)))
}

fn settings() -> Settings {
    Settings::new("mail.example", 36_700_160, 500)
}

fn ok() -> Reply {
    Reply::new(250, EnhancedCode::new(2, 0, 0), "OK")
}

fn session_alone(arguments: &Arguments, (commands, data): &(String, String)) {
    let (mut session, mut message, mut taken) = (Session::new(Arc::new(settings())), Vec::new(), 0);
    let pieces = std::iter::repeat_n([commands.as_bytes(), data.as_bytes()], arguments.messages).flatten();
    let started = Instant::now();
    for mut input in std::iter::once(b"EHLO app\r\n".as_slice()).chain(pieces) {
        loop {
            match session.step(&mut input, &mut message) {
                Step::Read => break,
                Step::Store(_) => {
                    taken += 1;
                    session.stored(&ok());
                }
                Step::Begin => message.clear(),
                Step::Write(_)
                | Step::Abandon
                | Step::Refused(_)
                | Step::Verify(_)
                | Step::StartTls(_)
                | Step::Close => {}
            }
        }
    }
    assert_eq!(taken, arguments.messages);
    report("session alone", taken, started.elapsed());
}

struct Taken;

#[async_trait]
impl Accept for Taken {
    async fn accept(&self, _: Envelope, body: Body) -> Reply {
        debug_assert!(!body.is_empty());
        ok()
    }
}

impl Observer for Taken {
    fn session_opened(&self) {}
    fn session_closed(&self, _: Duration) {}
    fn refused(&self, _: Refusal) {}
    fn header_encoded(&self, _: u32) {}
    fn rule_applied(&self, _: RuleAction, _: u64) {}
    fn answered(&self, _: &Reply, _: u64, _: Duration) {}
}

async fn over_loopback(arguments: &Arguments, message: &(String, String)) -> Result<()> {
    let listeners = Listeners::bind(0).await?;
    let address = listeners.addresses()[0];
    let settings = Arc::new(settings());
    let service = Service {
        accept: Arc::new(Taken),
        settings: Arc::new(move || Arc::clone(&settings)),
        observer: Arc::new(Taken),
        scratch: Arc::new(std::env::temp_dir()),
        limits: SessionLimits::default(),
        draining: watch::channel(false).1,
    };
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listeners, service, watch::channel(100).1, stopped));
    let each = arguments.messages / arguments.sessions;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..arguments.sessions {
        clients.spawn(client(address, each, message.clone()));
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    report("over loopback", each * arguments.sessions, started.elapsed());
    Ok(())
}

async fn client(address: SocketAddr, messages: usize, (commands, data): (String, String)) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    answers(&mut stream, 1).await?;
    stream.write_all(b"EHLO app\r\n").await?;
    stream.flush().await?;
    while !answers(&mut stream, 1).await?.starts_with("250 ") {}
    for _ in 0..messages {
        stream.write_all(commands.as_bytes()).await?;
        stream.flush().await?;
        let last = answers(&mut stream, 3).await?;
        ensure!(last.starts_with("354"), "{last}");
        stream.write_all(data.as_bytes()).await?;
        stream.flush().await?;
        let last = answers(&mut stream, 1).await?;
        ensure!(last.starts_with("250"), "{last}");
    }
    Ok(())
}

/// The last of so many lines.
async fn answers(stream: &mut BufStream<TcpStream>, lines: usize) -> Result<String> {
    let mut line = String::new();
    for _ in 0..lines {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(line)
}

fn report(what: &str, messages: usize, took: Duration) {
    println!(
        "{what}: {messages} messages in {took:.2?}, {:.0} a second",
        messages as f64 / took.as_secs_f64()
    );
}
