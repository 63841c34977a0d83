//! The operator's control service, or a part of it, over TLS and real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use mailroute_m365::tls::Identity;
use mailroute_operator::server::Peer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control service at one address, which can go away and come back.
pub struct Operator {
    pub ca_pem: String,
    pub address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    serving: Option<AbortHandle>,
}

impl Operator {
    /// Serves `router`, to which every caller is `peer`.
    pub async fn serving(router: Router, peer: Peer) -> Self {
        let identity = Identity::new(&["localhost".to_owned()], None).unwrap();
        let (ca_pem, acceptor) = (identity.authority.pem, TlsAcceptor::from(identity.submission));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router.layer(axum::Extension(peer));
        let mut this = Self { ca_pem, address, acceptor, router, serving: None };
        this.serve(listener);
        this
    }

    fn serve(&mut self, listener: TcpListener) {
        let (listener, router) = (Tls { listener, acceptor: self.acceptor.clone() }, self.router.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        self.serving = Some(serving.abort_handle());
    }

    pub fn leave(&mut self) {
        self.serving.take().unwrap().abort();
    }

    pub async fn come_back(&mut self) {
        // The port is free as soon as the task that listened has ended.
        let bound = async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = tokio::time::timeout(PATIENCE, bound).await.expect("the port is free");
        self.serve(listener);
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
