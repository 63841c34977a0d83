//! What TLS servers of the operator have in common: versions, protocol, and where the certificate comes from.
//!
//! Knows nothing of HTTP, of certificates' origin or of who is calling.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;

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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use jiff::Timestamp;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::super::authority::Authority;
    use super::super::leaf::{Leaf, ServedLeaf};
    use super::*;
    use crate::server::{Limits, serve as serve_http};

    const NAME: &str = "mailroute.mail.svc";
    const HOUR: Duration = Duration::from_secs(3600);

    struct Served {
        address: SocketAddr,
        leaf: Arc<ServedLeaf>,
    }

    async fn serve() -> Served {
        let leaf = Arc::new(ServedLeaf::default());
        let config = server_config(leaf.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(serve_http(listener, Some(config), app, Limits::of(64), std::future::pending()));
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
    async fn a_new_leaf_serves_the_next_handshake() {
        let served = serve().await;
        let old = new_leaf(&served);
        let kept = connect(served.address, &old).await.unwrap();
        let new = new_leaf(&served);
        assert!(connect(served.address, &old).await.is_err(), "the old authority is no longer served");
        assert!(ask(connect(served.address, &new).await.unwrap()).await.ends_with("hello"));
        assert!(ask(kept).await.ends_with("hello"), "an open connection goes on");
    }

    #[tokio::test]
    async fn without_a_leaf_a_handshake_fails_and_the_listener_lives() {
        let served = serve().await;
        let stranger = Authority::mint(Timestamp::now(), HOUR).unwrap();
        assert!(connect(served.address, &stranger).await.is_err());
        let authority = new_leaf(&served);
        assert!(connect(served.address, &authority).await.is_ok());
    }

    #[tokio::test]
    async fn both_supported_versions_of_tls_are_spoken() {
        let served = serve().await;
        let authority = new_leaf(&served);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let stream = TcpStream::connect(served.address).await.unwrap();
            let name = ServerName::try_from(NAME).unwrap();
            let stream = client(&authority, &[version]).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        }
    }
}
