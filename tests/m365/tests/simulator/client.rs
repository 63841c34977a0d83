//! A small HTTP client for the token endpoint and the control API, over real sockets.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mailroute_m365::{
    ClientIdentity, Simulator,
    directory::{SAMPLE_CLIENT_ID, SAMPLE_SUBJECT, SAMPLE_TENANT},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The AADSTS code of a refusal.
    pub fn code(&self) -> u64 {
        self.json()["error_codes"][0].as_u64().unwrap()
    }
}

/// The fields of a request, federated unless it has a secret.
#[derive(Clone, Debug)]
pub struct Form {
    pub tenant: String,
    pub client_id: String,
    pub scope: String,
    pub assertion: String,
    pub secret: Option<String>,
}

impl Form {
    pub fn sample(simulator: &Simulator) -> Self {
        Self::assertion(simulator.assertion(SAMPLE_SUBJECT))
    }

    /// With a client secret, which is escaped here.
    pub fn secret(secret: &str) -> Self {
        let escaped: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Self { secret: Some(escaped), ..Self::without_credential() }
    }

    /// With any assertion.
    pub fn assertion(assertion: String) -> Self {
        Self { assertion, ..Self::without_credential() }
    }

    fn without_credential() -> Self {
        Self {
            tenant: SAMPLE_TENANT.into(),
            client_id: SAMPLE_CLIENT_ID.into(),
            scope: "https%3A%2F%2Foutlook.office365.com%2F.default".into(),
            assertion: String::new(),
            secret: None,
        }
    }

    fn body(&self) -> String {
        if let Some(secret) = &self.secret {
            return format!(
                "client_id={}&client_secret={secret}&grant_type=client_credentials&scope={}",
                self.client_id, self.scope
            );
        }
        format!(
            "client_assertion={}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A\
             jwt-bearer&client_id={}&grant_type=client_credentials&scope={}",
            self.assertion, self.client_id, self.scope
        )
    }
}

/// Asks for a token; an error when the connection is cut.
pub async fn token(simulator: &Simulator, form: &Form) -> Result<Answer, hyper::Error> {
    let request = Request::post(format!("/{}/oauth2/v2.0/token", form.tenant))
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(form.body()))
        .unwrap();
    send(tls(simulator, simulator.login_address().port(), "localhost").await, request).await
}

/// Asks the token endpoint's host for a page.
pub async fn login_page(simulator: &Simulator, path: &str) -> Answer {
    let request = Request::get(path).header("host", "localhost").body(Full::default()).unwrap();
    send(tls(simulator, simulator.login_address().port(), "localhost").await, request).await.unwrap()
}

/// Calls the control API.
pub async fn control(simulator: &Simulator, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let stream = TcpStream::connect(simulator.control_address()).await.unwrap();
    send(stream, request).await.unwrap()
}

/// A TLS connection to one of the simulator's ports under a name.
pub async fn tls(simulator: &Simulator, port: u16, name: &str) -> TlsStream<TcpStream> {
    tls_over(simulator, TcpStream::connect(("127.0.0.1", port)).await.unwrap(), name).await
}

/// TLS over a connection, under a name.
pub async fn tls_over(simulator: &Simulator, stream: TcpStream, name: &str) -> TlsStream<TcpStream> {
    try_tls_over(simulator, stream, name, None).await.unwrap()
}

/// TLS over a connection, under a name, perhaps with a certificate.
pub async fn try_tls_over(
    simulator: &Simulator,
    stream: TcpStream,
    name: &str,
    identity: Option<&ClientIdentity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let config = client_config(simulator.ca_pem(), identity);
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn client_config(ca_pem: &str, identity: Option<&ClientIdentity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let Some(identity) = identity else { return builder.with_no_client_auth() };
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    builder.with_client_auth_cert(chain, key).unwrap()
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
}
