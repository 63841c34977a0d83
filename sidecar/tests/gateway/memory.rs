//! The memory of a gateway: ten thousand messages that come in within seconds, small ones and a large one among them; and everything at
//! once that takes memory of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::identity::Role;
use mailroute_sidecar::gateway::client::{Gateways, Offer};
use mailroute_sidecar::message::body::Writer;
use mailroute_sidecar::spool::{Progress, Shelf};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::child;
use crate::kept::{SENDER, down};
use crate::kills::{Process, folder, free};
use crate::once::{gateways, give};
use crate::pods::{ANN, Pods};
use crate::scene::Files;

const MESSAGES: u64 = 10_000;

/// What the container has.
const MOST_KIB: u64 = 64 * 1024;

/// Sidecars that hand over at the same time, each with several connections.
const SIDECARS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_takes_ten_thousand_messages_over_stays_small() {
    let address = free();
    let pods = Pods::new(&address.to_string(), Queue).await;
    down(&pods.m365, true).await;
    let files = folder(&pods, Role::Gateway);
    std::fs::write(files.path("address"), address.to_string()).unwrap();
    let process = Process::start("kills::a_gateway_until_it_is_killed", &files.path(""));
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    while give(&sidecar, MESSAGES).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..SIDECARS {
        let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
        tasks.extend((0..2).map(|_| tokio::spawn(load(Arc::clone(&sidecar), Arc::clone(&next), MESSAGES))));
    }
    large(&sidecar).await;
    for task in tasks {
        task.await.unwrap();
    }
    let (took, peak) = (started.elapsed(), process.peak());
    process.kill();
    println!("{MESSAGES} messages in {took:?}; {peak} KiB at most");
    let stored = crate::pods::stored(&files, "queue") as u64;
    assert_eq!(stored, MESSAGES + 2);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

async fn load(sidecar: Arc<Gateways>, next: Arc<AtomicU64>, messages: u64) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= messages {
            return;
        }
        give(&sidecar, n).await.unwrap();
    }
}

/// Hands over a message of a hundred mebibytes.
async fn large(sidecar: &Gateways) {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Arc::new(scratch.path().to_owned()));
    for _ in 0..100 * 16 {
        writer.buffer().extend(std::iter::repeat_n(b'x', 64 * 1024 - 2));
        writer.buffer().extend(b"\r\n");
        writer.spill().await.unwrap();
    }
    let (body, entry) = (writer.finish("").await.unwrap(), child::entry(MESSAGES + 1));
    let progress = Progress::fresh(&entry);
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    sidecar.hand_over(offer).await.unwrap();
}

/// The container's limit by default.
const DEFAULT_KIB: u64 = 128 * 1024;

/// Sessions of SMTP clients; one more is left of those that a route has by default.
const SESSIONS: u8 = 99;

/// Messages that come in meanwhile.
const SOME: u64 = 2_000;

/// `ann` has the password `secret`; to find out that a password of `bob` is wrong takes as much memory as a hash may.
const USERS: &str = "ann:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
    bob:$argon2id$v=19$m=19456,t=1,p=1$vIwxhyj1oFabQwg3Ve8rYw$GszFMOsMURFzAxBsL5oesFmvDszZcDIAFp2Ce9yfLm8\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_everything_at_once_fits_into_the_default_limit() {
    let (address, smtp) = (free(), free());
    let pods = Pods::new(&address.to_string(), Queue).await;
    down(&pods.m365, true).await;
    let files = folder(&pods, Role::Gateway);
    for (name, text) in
        [("address", address.to_string()), ("smtp", smtp.to_string()), ("users", USERS.into())]
    {
        std::fs::write(files.path(name), text).unwrap();
    }
    let connector = certify(&files);
    let process = Process::start("kills::a_gateway_until_it_is_killed", &files.path(""));
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    while give(&sidecar, SOME).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        sessions.push(in_a_message(2 + n / 20, smtp, &connector).await);
    }
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> =
        (0..4).map(|_| tokio::spawn(load(Arc::clone(&sidecar), Arc::clone(&next), SOME))).collect();
    let guess = async {
        let mut client = under_tls(9, smtp, &connector).await;
        // NUL, `bob`, NUL, `wrong`.
        assert!(say(&mut client, "AUTH PLAIN AGJvYgB3cm9uZw==").await.starts_with("535"));
    };
    tokio::join!(guess, large(&sidecar));
    for task in tasks {
        task.await.unwrap();
    }
    let peak = process.peak();
    process.kill();
    println!("{} sessions, a hash and {SOME} messages: {peak} KiB at most", sessions.len());
    assert!(peak < DEFAULT_KIB, "{peak} KiB");
}

type TlsClient = BufReader<TlsStream<TcpStream>>;

/// Writes a certificate for the SMTP clients of a gateway; what trusts it.
fn certify(files: &Files) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(files.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(files.path("tls.crt"), made.cert.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// A client at `127.0.0.<last>` that has logged in, and has sent the longest header of a message and not its end.
async fn in_a_message(last: u8, smtp: SocketAddr, connector: &TlsConnector) -> TlsClient {
    let mut client = under_tls(last, smtp, connector).await;
    // NUL, `ann`, NUL, `secret`.
    assert!(say(&mut client, "AUTH PLAIN AGFubgBzZWNyZXQ=").await.starts_with("235"));
    for command in [&format!("MAIL FROM:<{SENDER}>"), &format!("RCPT TO:<{ANN}>")] {
        assert!(say(&mut client, command).await.starts_with("250"));
    }
    assert!(say(&mut client, "DATA").await.starts_with("354"));
    let field = format!("X-Field: {}\r\n", "x".repeat(900));
    let header = field.repeat(255 * 1024 / field.len());
    client.write_all(header.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    client
}

async fn under_tls(last: u8, smtp: SocketAddr, connector: &TlsConnector) -> TlsClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    let mut plain = BufReader::new(socket.connect(smtp).await.unwrap());
    assert!(last_line(&mut plain).await.starts_with("220"));
    assert!(say(&mut plain, "EHLO app.example").await.starts_with("250"));
    assert!(say(&mut plain, "STARTTLS").await.starts_with("220"));
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = BufReader::new(connector.connect(name, plain.into_inner()).await.unwrap());
    assert!(say(&mut client, "EHLO app.example").await.starts_with("250"));
    client
}

async fn say(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin), line: &str) -> String {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    last_line(stream).await
}

/// The last line of a reply.
async fn last_line(stream: &mut (impl AsyncBufRead + Unpin)) -> String {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}
