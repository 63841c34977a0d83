//! Connections from an address of one's own, as a pod makes them: TLS or not, finished or not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where the attackers' connections come from: an address of this machine that nobody else uses.
pub const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 6, 6, 6));

/// A way to the operator.
#[derive(Clone)]
pub struct Wire {
    connector: TlsConnector,
    name: ServerName<'static>,
    host: String,
}

impl Wire {
    /// To a service of this name (`host:port`), under this bundle.
    ///
    /// # Errors
    /// When the bundle is none.
    pub fn new(service: &str, bundle: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let host = service.rsplit_once(':').map_or(service, |(host, _)| host).to_owned();
        let name = ServerName::try_from(host.clone())?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, host })
    }

    /// A connection on which nothing is said yet.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn plain(&self, to: SocketAddr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // Many connections from one address to one port: none may wait for the ports of those that have ended.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(ATTACKER, 0))?;
        Ok(socket.connect(to).await?)
    }

    /// A connection after its handshake.
    ///
    /// # Errors
    /// When there is none.
    pub async fn tls(&self, to: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = self.plain(to).await?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }

    /// A request with a JSON body, as it goes over the wire.
    pub fn post(&self, path: &str, token: &str, body: &Value) -> String {
        let (host, body) = (&self.host, body.to_string());
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends a request and reads the status of its answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn say(&self, to: SocketAddr, request: &str) -> Result<(u16, String)> {
        let mut stream = self.tls(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // A server that closes without saying so has answered all the same.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no answer")?;
        Ok((status, answer))
    }
}
