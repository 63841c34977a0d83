//! One HTTPS POST over its own connection: dial, verify, send, read a bounded answer, close. And its parts, for whoever keeps
//! connections.
//!
//! Both callers (token exchange, report) post rarely and rather want a fresh connection than a pool. The address that is
//! dialled and the name that is verified are two things, so that a report can be posted to a certain replica under the
//! service's name. A proxy, where there is one, gives a tunnel: TLS is verified to the far end. Headers may
//! carry secrets: nothing here is logged, and errors never hold the request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::http::request;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use mailroute_entra::web_proxy::WebProxy;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::{self, DialError};
use super::tls::{self, Trust, TrustError};
use crate::clock;
use crate::secret::Secret;

/// Longest exchange from name look-up to last byte.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer that is read, bytes. Token answers have some kilobytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Whom to talk HTTPS to, and how to get there.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Host to connect to: a name or an address.
    pub dial: &'a str,
    /// TCP port.
    pub port: u16,
    /// The proxy to go through, unless it is not for this host.
    pub proxy: Option<&'a WebProxy>,
    /// Name the certificate must carry, sent as SNI and `Host`.
    pub server_name: &'a str,
}

/// A POST to be made.
#[derive(Debug)]
pub struct Post<'a> {
    /// Host to connect to: a name or an address.
    pub dial: &'a str,
    /// TCP port.
    pub port: u16,
    /// The proxy to go through, unless it is not for this host.
    pub proxy: Option<&'a WebProxy>,
    /// Name the certificate must carry, sent as SNI and `Host`.
    pub server_name: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// `Content-Type`.
    pub content_type: &'a str,
    /// `Authorization: Bearer`, when the callee wants one.
    pub bearer: Option<&'a Secret>,
    /// Content.
    pub body: Bytes,
}

/// An answer, whatever its status.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, when given in seconds.
    pub retry_after: Option<Duration>,
    /// Content; may hold a token, so it has no `Debug`.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The proxy is not reached, or gives no tunnel.
    #[error("through the proxy {proxy}: {message}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// What was wrong.
        message: String,
    },
    /// Nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The name cannot stand in a certificate.
    #[error("{0} is not a valid server name")]
    ServerName(String),
    /// The handshake failed: name, chain or version.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name verified.
        host: String,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The exchange broke off or is not HTTP.
    #[error("HTTP with {host} failed: {message}")]
    Http {
        /// The name verified.
        host: String,
        /// What was wrong.
        message: String,
    },
    /// The answer is larger than any honest one.
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// Nothing within the time limit.
    #[error("no answer from {0} within {seconds} seconds", seconds = TIMEOUT.as_secs())]
    Timeout(String),
}

/// Makes the POST.
///
/// # Errors
/// When no complete answer arrives in time over verified TLS.
pub async fn post(post: Post<'_>, trust: &Trust) -> Result<Answer, HttpsError> {
    let host = post.server_name.to_owned();
    timeout(TIMEOUT, exchange(post, trust)).await.unwrap_or(Err(HttpsError::Timeout(host)))
}

async fn exchange(post: Post<'_>, trust: &Trust) -> Result<Answer, HttpsError> {
    let failed = |error: hyper::Error| HttpsError::Http {
        host: post.server_name.to_owned(),
        message: error.to_string(),
    };
    let stream = post.peer().open(trust).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the sender; its error is the request's error too.
    tokio::spawn(connection);
    let response = sender.send_request(request(&post)?).await.map_err(failed)?;
    read(response, post.server_name).await
}

impl Peer<'_> {
    /// Connects, through the proxy where there is one, and verifies the peer.
    ///
    /// # Errors
    /// When there is no connection, or no verified TLS over it.
    pub async fn open(&self, trust: &Trust) -> Result<TlsStream<TcpStream>, HttpsError> {
        let name = ServerName::try_from(self.server_name.to_owned())
            .map_err(|_| HttpsError::ServerName(self.server_name.to_owned()))?;
        let config = tls::client_config(trust).await?;
        let stream = self.connect().await?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|source| HttpsError::Tls { host: self.server_name.to_owned(), source })
    }

    async fn connect(&self) -> Result<TcpStream, HttpsError> {
        let Some(proxy) = self.proxy.filter(|proxy| proxy.is_for(self.dial, self.port)) else {
            return Ok(dial::connect(self.dial, self.port).await?);
        };
        let failed = |message: String| HttpsError::Proxy { proxy: proxy.place(), message };
        let mut stream =
            dial::connect(&proxy.host, proxy.port).await.map_err(|error| failed(error.to_string()))?;
        let tunnel = proxy.tunnel(&mut stream, self.dial, self.port).await;
        tunnel.map_err(|error| failed(error.to_string()))?;
        Ok(stream)
    }

    /// A POST to the peer, without content yet.
    pub fn post(&self, path: &str, content_type: &str, bearer: Option<&Secret>) -> request::Builder {
        let host = match self.port {
            443 => self.server_name.to_owned(),
            port => format!("{}:{port}", self.server_name),
        };
        let builder = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("mailroute-sidecar/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, content_type);
        match bearer {
            Some(bearer) => builder.header(AUTHORIZATION, format!("Bearer {}", bearer.expose())),
            None => builder,
        }
    }
}

impl<'a> Post<'a> {
    const fn peer(&self) -> Peer<'a> {
        Peer { dial: self.dial, port: self.port, proxy: self.proxy, server_name: self.server_name }
    }
}

fn request(post: &Post<'_>) -> Result<Request<Full<Bytes>>, HttpsError> {
    let builder = post.peer().post(post.path, post.content_type, post.bearer);
    // The error's text would be about a header's name only, but the request must not be part of it.
    builder.body(Full::new(post.body.clone())).map_err(|_| HttpsError::Http {
        host: post.server_name.to_owned(),
        message: "the request has an invalid path or header".into(),
    })
}

/// How long an answer asks to be left alone.
pub fn retry_after<T>(response: &Response<T>) -> Option<Duration> {
    let asked = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    clock::retry_after(asked, clock::unix_seconds())
}

/// Reads an answer to its end, at most [`MAX_ANSWER`] of it.
///
/// # Errors
/// When it is longer, or breaks off.
pub async fn read(response: Response<Incoming>, host: &str) -> Result<Answer, HttpsError> {
    let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            HttpsError::TooLarge
        } else {
            HttpsError::Http { host: host.to_owned(), message: error.to_string() }
        }
    })?;
    Ok(Answer { status, retry_after, body: body.to_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plaintext_in_place_of_tls_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream
        });
        let request = Post {
            dial: "127.0.0.1",
            port,
            proxy: None,
            server_name: "localhost",
            path: "/",
            content_type: "text/plain",
            bearer: None,
            body: Bytes::new(),
        };
        let error = post(request, &Trust::PublicRoots).await.err().unwrap();
        assert!(matches!(error, HttpsError::Tls { .. }), "{error}");
        drop(server.await);
    }
}
