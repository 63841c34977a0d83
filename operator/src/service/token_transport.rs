//! The connection to a token authority: one HTTPS POST, verified, bounded in size and time, through the proxy of the
//! operator's environment where there is one.
//!
//! Tokens are asked for rarely, so no connection is kept. Errors never hold the request.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::Uri;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mailroute_entra::exchange::{Answer, Post, Transport, unavailable};
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_entra::{Failure, clock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// Longest exchange, from name look-up to last byte.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest answer that is read, bytes. Token answers have some kilobytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The bundle holds no certificate.
#[derive(Debug, thiserror::Error)]
#[error("caPem contains no usable certificate: {0}")]
pub struct BundleError(String);

/// Connects to authorities whose certificate chains to what it trusts.
pub struct Https(Client<HttpsConnector<Dial>, Full<Bytes>>);

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Https")
    }
}

impl Https {
    /// Trusts the certificates of `ca_pem`, or the public roots. Goes through `proxy` to the hosts that it is for.
    ///
    /// # Errors
    /// When `ca_pem` holds none.
    pub fn trusting(ca_pem: Option<&str>, proxy: Proxy) -> Result<Self, BundleError> {
        let roots = match ca_pem {
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some(pem) => bundle(pem)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .wrap_connector(Dial::through(proxy));
        Ok(Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, host: &str) -> Result<Answer, String> {
        let answer = self
            .0
            .request(request)
            .await
            .map_err(|error| format!("no answer from {host}: {}", cause(&error)))?;
        let status = answer.status().as_u16();
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|value| clock::retry_after(value, clock::unix_seconds()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer of {host} broke off: {error}"))?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}

#[async_trait]
impl Transport for Https {
    async fn post(&self, post: Post<'_>) -> Result<Answer, Failure> {
        let request = Request::post(format!("https://{}:{}{}", post.host, post.port, post.path))
            .header(USER_AGENT, concat!("mailroute-operator/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(post.body))
            .map_err(|_| unavailable(format!("{}{} is not an address", post.host, post.path)))?;
        let late = || Err(format!("no answer from {} within {} seconds", post.host, TIMEOUT.as_secs()));
        let answer = timeout(TIMEOUT, self.exchange(request, post.host)).await.unwrap_or_else(|_| late());
        answer.map_err(unavailable)
    }
}

/// The proxy of the operator's environment; or why it cannot be used, which matters only for hosts that are reached through it.
pub type Proxy = Result<Option<WebProxy>, WrongProxy>;

type DialError = Box<dyn Error + Send + Sync>;

/// Connects to the authority itself, or has the proxy make a tunnel to it.
#[derive(Clone)]
struct Dial {
    tcp: HttpConnector,
    proxy: Proxy,
}

impl Dial {
    fn through(proxy: Proxy) -> Self {
        let mut tcp = HttpConnector::new();
        // Of the authority it gets https:// URLs.
        tcp.enforce_http(false);
        Self { tcp, proxy }
    }

    async fn connect(mut self, uri: Uri) -> Result<TokioIo<TcpStream>, DialError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(443);
        let proxy = match &self.proxy {
            Err(wrong) if wrong.is_for(host, port) => return Err(wrong.clone().into()),
            Ok(Some(proxy)) if proxy.is_for(host, port) => proxy,
            _ => return Ok(self.tcp.call(uri).await?),
        };
        let place = proxy.place();
        let failed =
            |error: &dyn Error| std::io::Error::other(format!("through the proxy {place}: {}", cause(error)));
        let address = Uri::try_from(format!("http://{place}")).map_err(|error| failed(&error))?;
        let mut stream = self.tcp.call(address).await.map_err(|error| failed(&error))?;
        proxy.tunnel(stream.inner_mut(), host, port).await.map_err(|error| failed(&error))?;
        Ok(stream)
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Always: name look-ups wait inside of [`Self::call`].
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

fn bundle(pem: &str) -> Result<RootCertStore, BundleError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| BundleError(error.to_string()))?;
        roots.add(certificate).map_err(|error| BundleError(error.to_string()))?;
    }
    if roots.is_empty() { Err(BundleError("there is none in it".into())) } else { Ok(roots) }
}

/// The innermost cause, which names what failed: the name, the connection or the certificate.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        assert!(Https::trusting(Some("no certificate"), Ok(None)).unwrap_err().to_string().contains("caPem"));
        assert!(Https::trusting(None, Ok(None)).is_ok());
    }
}
