//! The HTTP server of the operator's three ports, on which no caller can crowd out another.
//!
//! ```text
//!  listener ─► Places: too many, too fast? ─► TLS, where there is a certificate ─► HTTP/1.1 ─► router
//!              (pure, by address)             └──────── a task for each connection ───────┘
//! ```
//!
//! Who calls is known by the address alone, and the address of the API server is not known in advance. So every address has
//! the same bounds: on connections, on how fast it opens them, on requests, on the memory and processor time that its
//! requests take ([`Peer`]). When there is no place left, an address that was never answered gives one up before any that was.
//!
//! Knows nothing of what is served, nor of where certificates come from.

mod listen;
mod places;
mod write_timeout;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

pub use listen::listen;
pub use places::Peer;
use places::{Connection, Places};
use write_timeout::WriteTimeout;

use crate::lock;
use crate::rate_limit::RateLimit;

/// Bounds on what callers may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections, TLS handshakes included.
    pub connections: usize,
    /// Most connections of one address. One more closes the one that has waited longest.
    pub per_address: usize,
    /// Connections that one address may open at once, and the time after which it may open one more.
    pub opened: (u32, Duration),
    /// Requests that one address may make at once, and the time after which it may make one more.
    pub requests: (u32, Duration),
    /// Longest time until the first request has been read up to its body, the TLS handshake included.
    pub first_request: Duration,
    /// Longest time until the next request has been read up to its body.
    pub idle: Duration,
    /// Longest time until an answer has been taken.
    pub answer: Duration,
    /// Age at which a connection is closed after the answer to a request.
    pub life: Duration,
}

/// Most bytes of a request before its body. Our longest heads hold a token of about one thousand.
const HEAD_BYTES: usize = 16 * 1024;

/// Longest answer on a connection that has reached its age, before the connection is cut.
const LAST_ANSWER: Duration = Duration::from_secs(60);

impl Limits {
    /// For so many connections, a quarter of them of one address.
    ///
    /// The time between requests is longer than the 90 s after which Go's HTTP client, and so the API server, closes an idle
    /// connection itself: a server that closes first makes a request fail now and then. The API server opens a connection
    /// for each review under way and keeps 25 of them. A TLS handshake takes about half a millisecond of one processor, so
    /// one address can have five hundredths of it.
    pub const fn of(connections: usize) -> Self {
        Self {
            connections,
            per_address: connections / 4,
            opened: (200, Duration::from_millis(10)),
            requests: (1000, Duration::from_millis(2)),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            answer: Duration::from_secs(30),
            life: Duration::from_secs(600),
        }
    }
}

/// Serves `router` on `listener`, over TLS with `tls`, until `closing` is ready; then finishes the requests under way.
///
/// Each request carries its [`Peer`] as an extension.
pub async fn serve(
    mut listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    closing: impl Future<Output = ()>,
) {
    let server = Arc::new(Server {
        tls: tls.map(TlsAcceptor::from),
        router: TowerToHyperService::new(router),
        limits,
        places: Mutex::new(Places::new(limits.connections, limits.per_address)),
        opened: rate(limits.opened),
        requests: rate(limits.requests),
    });
    let (close, closes) = watch::channel(());
    let (mut closing, mut connections) = (pin!(closing), JoinSet::new());
    loop {
        tokio::select! {
            () = &mut closing => break,
            Some(_) = connections.join_next() => {}
            // axum's way to accept logs an error and waits when the process is out of file descriptors.
            (stream, from) = axum::serve::Listener::accept(&mut listener) => {
                if let Some(connection) = server.admit(from) {
                    connections.spawn(Arc::clone(&server).converse(stream, connection, closes.clone()));
                }
            }
        }
    }
    drop(listener);
    close.send_replace(());
    while connections.join_next().await.is_some() {}
}

struct Server {
    tls: Option<TlsAcceptor>,
    router: TowerToHyperService<Router>,
    limits: Limits,
    places: Mutex<Places>,
    opened: Mutex<RateLimit<std::net::IpAddr>>,
    requests: Mutex<RateLimit<std::net::IpAddr>>,
}

fn rate((burst, refill): (u32, Duration)) -> Mutex<RateLimit<std::net::IpAddr>> {
    Mutex::new(RateLimit::new(burst, refill))
}

impl Server {
    /// A place for a connection from this address, if it has not opened too many too fast.
    fn admit(&self, from: SocketAddr) -> Option<Arc<Connection>> {
        let address = from.ip().to_canonical();
        if !lock(&self.opened).allows(&address, std::time::Instant::now()) {
            return None;
        }
        Some(lock(&self.places).take(address))
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        connection: Arc<Connection>,
        closes: watch::Receiver<()>,
    ) {
        let ended = tokio::select! {
            ended = self.answer(stream, &connection, closes) => ended,
            () = self.outstays(&connection) => Err(io::ErrorKind::TimedOut.into()),
            () = connection.evicted() => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %connection.peer().address(), %error, "a connection was closed");
        }
        lock(&self.places).leave(&connection);
    }

    /// Ready when the connection has to be closed.
    async fn outstays(&self, connection: &Connection) {
        sleep(self.limits.first_request).await;
        if connection.has_asked() {
            sleep(self.limits.life + self.limits.idle + LAST_ANSWER).await;
        }
    }

    async fn answer(
        &self,
        stream: TcpStream,
        connection: &Arc<Connection>,
        closes: watch::Receiver<()>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => self.http(tls.accept(stream).await?, connection, closes).await,
            None => self.http(stream, connection, closes).await,
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        connection: &Arc<Connection>,
        mut closes: watch::Receiver<()>,
    ) -> io::Result<()> {
        let began = Instant::now();
        let service = service_fn(|request| async move {
            let _busy = connection.busy();
            let mut response = self.request(request, connection.peer()).await;
            if response.status().is_success() {
                lock(&self.places).succeeded(connection.peer().address());
            }
            if began.elapsed() > self.limits.life {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok::<_, Infallible>(response)
        });
        let mut http = Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.idle).max_buf_size(HEAD_BYTES);
        let stream = WriteTimeout::new(stream, self.limits.answer);
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = &mut served => ended,
            // An error means that the server is gone, which is the same.
            _ = closes.changed() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        ended.map_err(io::Error::other)
    }

    async fn request(&self, mut request: Request<Incoming>, peer: &Peer) -> Response {
        if !lock(&self.requests).allows(&peer.address(), std::time::Instant::now()) {
            let body = Body::from("too many requests from this address\n");
            return (StatusCode::TOO_MANY_REQUESTS, [(header::CONNECTION, CLOSE)], body).into_response();
        }
        request.extensions_mut().insert(peer.clone());
        match self.router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");
