//! A client that says what it is told to, before TLS and under it.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroute_sidecar::smtp::reply::Reply;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::server::{PATIENCE, Server};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut this = Self::silent(address).await;
        assert_eq!(this.reply().await.code, 220);
        this
    }

    /// Connects, and reads nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// The same from `127.0.0.<last>`.
    pub async fn silent_from(last: u8, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Connects, starts TLS and says EHLO.
    pub async fn secured(server: &Server) -> Self {
        let mut this = Self::connect(server.address).await;
        assert_eq!(this.command("EHLO app.example").await.code, 250);
        assert_eq!(this.command("STARTTLS").await.code, 220);
        let mut this = this.under_tls(&server.certificate).await.unwrap();
        assert_eq!(this.command("EHLO app.example").await.code, 250);
        this
    }

    /// The same, logged in as `ann`.
    pub async fn logged_in(server: &Server) -> Self {
        let mut this = Self::secured(server).await;
        assert_eq!(this.command(&plain("ann", "secret")).await.code, 235);
        this
    }

    /// Shakes hands with whoever has this certificate.
    pub async fn under_tls(self, certificate: &str) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.stream).await?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new() })
    }

    pub async fn write(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn reply(&mut self) -> Reply {
        self.next_reply().await.expect("the server closed the connection")
    }

    /// The next reply; none when the server closes.
    pub async fn next_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, taken)) = Reply::parse(&self.buffer).expect("a reply") {
                self.buffer.drain(..taken);
                return Some(reply);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            if !matches!(read.expect("an answer in time"), Ok(1..)) {
                return None;
            }
        }
    }

    /// All that comes until the server closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut self.buffer)).await;
        let _ = read.expect("closed in time");
        self.buffer
    }

    pub async fn command(&mut self, line: &str) -> Reply {
        self.write(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Sends a message, and gives the first answer that is not positive, or the last one.
    pub async fn send(&mut self, from: &str, to: &str) -> Reply {
        for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".into()] {
            let reply = self.command(&line).await;
            if !reply.is_positive() {
                return reply;
            }
        }
        self.command(&format!("From: <{from}>\r\nSubject: x\r\n\r\ny\r\n.")).await
    }
}

/// AUTH PLAIN with its initial response.
pub fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))
}
