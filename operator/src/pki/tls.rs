//! A TLS listener for axum in which no client can hold up another.
//!
//! Handshakes run in tasks of their own, each within [`Limits::handshake`]; a connection that is silent for
//! [`Limits::idle`] is closed; and there are never more than [`Limits::connections`] of either kind, further ones
//! wait in the kernel's queue. Knows nothing of HTTP, of certificates' origin or of who is calling.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bounds on what clients may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest handshake.
    pub handshake: Duration,
    /// Longest silence on an open connection.
    pub idle: Duration,
    /// Most connections, handshakes included.
    pub connections: usize,
}

impl Default for Limits {
    /// Five seconds for a handshake is generous inside a cluster. The silence is longer than the 90 s after which Go's
    /// HTTP client, and so the API server, closes an idle connection itself: a server that closes first makes a
    /// request fail now and then. A connection costs about 50 KiB, so that all of them stay well within 64 MiB.
    fn default() -> Self {
        Self { handshake: Duration::from_secs(5), idle: Duration::from_secs(120), connections: 1024 }
    }
}

/// A server configuration: TLS 1.2 and 1.3, HTTP/1.1, certificates from `resolver`.
///
/// # Errors
/// When the provider supports neither version, which cannot be with the one that is compiled in.
pub fn server_config(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts TLS connections. Dropping it stops accepting.
#[derive(Debug)]
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(Connection, SocketAddr)>,
    acceptor: JoinHandle<()>,
}

impl TlsListener {
    /// Listens on the address; port 0 picks a free one, see [`axum::serve::Listener::local_addr`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, config: Arc<ServerConfig>, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(16);
        let acceptor = tokio::spawn(accept_all(listener, TlsAcceptor::from(config), limits, sender));
        Ok(Self { address, accepted, acceptor })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // The acceptor ends only with its listener or its runtime; there is nothing more to accept.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

type Accepted = mpsc::Sender<(Connection, SocketAddr)>;

async fn accept_all(mut listener: TcpListener, tls: TlsAcceptor, limits: Limits, accepted: Accepted) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        // axum's way to accept logs an error and waits when the process is out of file descriptors.
        let (stream, peer) = axum::serve::Listener::accept(&mut listener).await;
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            match handshake(&tls, stream, limits, slot).await {
                // A send fails only after the listener was dropped, and then nobody waits for the connection.
                Ok(connection) => drop(accepted.send((connection, peer)).await),
                Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            }
        });
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limits: Limits,
    slot: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(limits.handshake, tls.accept(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Connection { stream, silence: Silence::new(limits.idle), _slot: slot })
}

/// An accepted connection. Holds its place among [`Limits::connections`] until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    silence: Silence,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.silence.watch(cx, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.silence.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.silence.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.silence.watch(cx, shut)
    }
}

/// Turns waiting for too long into an error; any progress starts the wait anew.
#[derive(Debug)]
struct Silence {
    longest: Duration,
    ends: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(longest: Duration) -> Self {
        Self { longest, ends: Box::pin(tokio::time::sleep(longest)) }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.ends.as_mut().reset(Instant::now() + self.longest);
            return progress;
        }
        self.ends.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use axum::serve::Listener as _;
    use jiff::Timestamp;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::super::authority::Authority;
    use super::super::leaf::{Leaf, ServedLeaf};
    use super::*;

    const NAME: &str = "mailroute.mail.svc";
    const HOUR: Duration = Duration::from_secs(3600);

    struct Served {
        address: SocketAddr,
        leaf: Arc<ServedLeaf>,
    }

    async fn serve(limits: Limits) -> Served {
        let leaf = Arc::new(ServedLeaf::default());
        let config = server_config(leaf.clone()).unwrap();
        let listener = TlsListener::bind(([127, 0, 0, 1], 0).into(), config, limits).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Served { address, leaf }
    }

    fn new_leaf(served: &Served) -> Authority {
        let now = Timestamp::now();
        let authority = Authority::mint(now, HOUR).unwrap();
        let leaf = Leaf::sign(&authority, &[NAME.to_owned()], now, HOUR).unwrap();
        served.leaf.swap(leaf.certified());
        authority
    }

    fn client(trusts: &Authority, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(trusts.certificate().der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(address: SocketAddr, trusts: &Authority) -> io::Result<ClientStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        client(trusts, rustls::ALL_VERSIONS).connect(ServerName::try_from(NAME).unwrap(), stream).await
    }

    async fn ask(mut stream: ClientStream<TcpStream>) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // The server closes without close_notify only when it is ended, so errors matter here.
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_client_that_never_speaks_does_not_hold_up_another() {
        let served = serve(Limits::default()).await;
        let authority = new_leaf(&served);
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        let answer = ask(connect(served.address, &authority).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn an_unfinished_handshake_is_closed_and_its_place_is_free_again() {
        let limits = Limits { handshake: Duration::from_millis(50), connections: 1, ..Limits::default() };
        let served = serve(limits).await;
        let authority = new_leaf(&served);
        let mut silent = TcpStream::connect(served.address).await.unwrap();
        // One place only, so this one is accepted when the silent one is given up.
        let answer = ask(connect(served.address, &authority).await.unwrap()).await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0, "the server has closed it");
    }

    #[tokio::test]
    async fn a_connection_that_falls_silent_is_closed() {
        let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
        let served = serve(limits).await;
        let authority = new_leaf(&served);
        let mut stream = connect(served.address, &authority).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        let mut rest = Vec::new();
        // With or without a TLS close, the end is what matters.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_new_leaf_serves_the_next_handshake() {
        let served = serve(Limits::default()).await;
        let old = new_leaf(&served);
        let kept = connect(served.address, &old).await.unwrap();
        let new = new_leaf(&served);
        assert!(connect(served.address, &old).await.is_err(), "the old authority is no longer served");
        assert!(ask(connect(served.address, &new).await.unwrap()).await.ends_with("hello"));
        assert!(ask(kept).await.ends_with("hello"), "an open connection goes on");
    }

    #[tokio::test]
    async fn without_a_leaf_a_handshake_fails_and_the_listener_lives() {
        let served = serve(Limits::default()).await;
        let stranger = Authority::mint(Timestamp::now(), HOUR).unwrap();
        assert!(connect(served.address, &stranger).await.is_err());
        let authority = new_leaf(&served);
        assert!(connect(served.address, &authority).await.is_ok());
    }

    #[tokio::test]
    async fn both_supported_versions_of_tls_are_spoken() {
        let served = serve(Limits::default()).await;
        let authority = new_leaf(&served);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let stream = TcpStream::connect(served.address).await.unwrap();
            let name = ServerName::try_from(NAME).unwrap();
            let stream = client(&authority, &[version]).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        }
    }
}
