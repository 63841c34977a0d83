//! Floods of the operator's ports from one address: what the others ask is answered while the flood lasts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use jiff::Timestamp;
use mailroute_operator::pki::authority::Authority;
use mailroute_operator::pki::leaf::{Leaf, ServedLeaf};
use mailroute_operator::pki::tls::server_config;
use mailroute_operator::server::{Limits, serve};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Where the flood comes from, and where the others do.
const FLOOD: &str = "127.0.0.66:0";
const OTHER: &str = "127.0.0.1:0";

const NAME: &str = "mailroute.mail.svc";
const HOUR: Duration = Duration::from_secs(3600);

/// Longest wait of the test itself; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A server, and how to speak to it.
struct Served {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    close: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

/// Few places, so that a flood needs no thousands of connections, and no bound on how fast they are taken.
fn few() -> Limits {
    let unbounded = (1_000_000, Duration::from_nanos(1));
    Limits { opened: unbounded, requests: unbounded, ..Limits::of(32) }
}

impl Served {
    async fn start(with_tls: bool, limits: Limits) -> Self {
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, tls) = with_tls.then(identity).unzip();
        let (close, mut closing) = watch::channel(false);
        let closing = async move { drop(closing.wait_for(|close| *close).await) };
        let ended = tokio::spawn(serve(listener, config, router, limits, closing));
        Self { address, tls, close, ended }
    }

    async fn connect(&self, from: &str) -> std::io::Result<Box<dyn Stream>> {
        let stream = connect(self.address, from).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        Ok(Box::new(tls.connect(ServerName::try_from(NAME).unwrap(), stream).await?))
    }

    /// What one who is no part of the flood is answered.
    async fn asked(&self) -> String {
        let asked = async {
            let stream = self.connect(OTHER).await.unwrap();
            ask(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await
        };
        timeout(PATIENCE, asked).await.expect("an answer while the flood lasts")
    }
}

async fn connect(to: SocketAddr, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from.parse().unwrap())?;
    socket.connect(to).await
}

fn identity() -> (Arc<rustls::ServerConfig>, TlsConnector) {
    let now = Timestamp::now();
    let authority = Authority::mint(now, HOUR).unwrap();
    let leaf = Arc::new(ServedLeaf::default());
    leaf.swap(Leaf::sign(&authority, &[NAME.to_owned()], now, HOUR).unwrap().certified());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server_config(leaf).unwrap(), TlsConnector::from(Arc::new(client)))
}

/// What is answered until the server closes, however it does.
async fn ask(mut stream: impl Stream, request: &str) -> String {
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Holds more connections open than there are places, each after saying this; those that are closed are opened again until
/// the others were answered.
async fn flooded(served: &Served, said: &str) -> Vec<String> {
    let mut held = Vec::new();
    for _ in 0..40 {
        // The server may close it at any moment.
        if let Ok(mut stream) = served.connect(FLOOD).await
            && stream.write_all(said.as_bytes()).await.is_ok()
        {
            held.push(stream);
        }
    }
    let answers = [served.asked().await, served.asked().await, served.asked().await];
    drop(held);
    answers.into()
}

#[tokio::test]
async fn a_flood_from_one_address_keeps_no_answer_from_another() {
    let endless_head = format!("GET / HTTP/1.1\r\nX-Long: {}", "x".repeat(64 * 1024));
    let slow_body = "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx";
    for with_tls in [true, false] {
        for said in ["", "GET / HTTP/1.1\r\n", &endless_head, slow_body] {
            let served = Served::start(with_tls, few()).await;
            for answer in flooded(&served, said).await {
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn connections_that_never_begin_tls_keep_no_answer_from_another() {
    let served = Served::start(true, few()).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(connect(served.address, FLOOD).await.unwrap());
    }
    assert!(served.asked().await.ends_with("hello"));
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let served = Served::start(false, few()).await;
    let stream = served.connect(FLOOD).await.unwrap();
    let answer = ask(stream, &format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(64 * 1024))).await;
    // The rest of the head may be on its way when the server closes, and undo the answer.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(served.asked().await.ends_with("hello"));
}

#[tokio::test]
async fn a_connection_that_asks_nothing_in_time_is_closed() {
    let limits = Limits { first_request: Duration::from_millis(100), ..few() };
    for with_tls in [true, false] {
        let served = Served::start(with_tls, limits).await;
        let mut plain = connect(served.address, OTHER).await.unwrap();
        let ended = timeout(PATIENCE, plain.read(&mut [0; 16])).await.expect("it is closed");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let stream = served.connect(OTHER).await.unwrap();
        let answer = timeout(PATIENCE, ask(stream, "GET / HTTP/1.1\r\nHost:")).await.expect("it is closed");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_is_closed_between_requests_when_it_waits_too_long() {
    let limits = Limits { idle: Duration::from_millis(100), ..few() };
    let served = Served::start(false, limits).await;
    let stream = served.connect(OTHER).await.unwrap();
    let answer =
        timeout(PATIENCE, ask(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await.expect("it is closed");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_old_connection_is_closed_after_an_answer_that_says_so() {
    let served = Served::start(false, Limits { life: Duration::ZERO, ..few() }).await;
    let stream = served.connect(OTHER).await.unwrap();
    let answer =
        timeout(PATIENCE, ask(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await.expect("it is closed");
    assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn an_address_that_opens_connections_or_asks_too_fast_is_held_back_and_no_other_is() {
    let rarely = (3, HOUR);
    let served = Served::start(false, Limits { opened: rarely, ..few() }).await;
    let asks = async || {
        let Ok(stream) = served.connect(FLOOD).await else { return String::new() };
        ask(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await
    };
    let mut answered = 0;
    for _ in 0..10 {
        answered += usize::from(asks().await.ends_with("hello"));
    }
    assert_eq!(answered, 3);
    assert!(served.asked().await.ends_with("hello"));

    let served = Served::start(false, Limits { requests: rarely, ..few() }).await;
    let stream = served.connect(FLOOD).await.unwrap();
    let answer = ask(stream, &"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10)).await;
    assert_eq!((answer.matches("hello").count(), answer.matches("HTTP/1.1 429").count()), (3, 1), "{answer}");
    assert!(served.asked().await.ends_with("hello"));
}

#[tokio::test]
async fn what_was_begun_is_answered_when_the_server_ends_and_idle_connections_do_not_hold_it_up() {
    let served = Served::start(true, few()).await;
    let _idle = served.connect(OTHER).await.unwrap();
    let mut begun = served.connect(OTHER).await.unwrap();
    begun
        .write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    // The server says this when it waits for the body.
    let mut line = [0; 25];
    timeout(PATIENCE, begun.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    let began = Instant::now();
    served.close.send_replace(true);
    assert!(ask(begun, "hello").await.ends_with('5'));
    timeout(PATIENCE, served.ended).await.expect("it ends").unwrap();
    assert!(began.elapsed() < few().first_request, "nothing else was waited for");
}
