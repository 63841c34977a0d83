//! The operator's control service, as far as a gateway needs it: it signs the certificate that is asked for, and takes reports.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mailroute_route::control::{CERTIFICATE_PATH, CertificateReply, CertificateRequest, ReportReply};
use mailroute_route::file::ControlService;
use mailroute_route::identity::{CERTIFICATE_SECONDS, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Authority;
use crate::sink;

/// Largest request that is read, octets.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// A service that runs until it is dropped.
pub struct Control {
    /// As the route file names it.
    pub service: ControlService,
    _serving: JoinSet<()>,
}

impl Control {
    /// Starts it, with its files in `folder`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(folder: &Path, authority: Arc<Authority>) -> Result<Self> {
        let (certificate, token_file) = (folder.join("control.crt"), folder.join("control.token"));
        let acceptor = TlsAcceptor::from(Arc::new(sink::identity(&certificate)?));
        std::fs::write(&token_file, "bench")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let service = ControlService {
            address: format!("localhost:{}", listener.local_addr()?.port()),
            ca_pem: std::fs::read_to_string(&certificate)?,
            token_file,
            leases: false,
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever gets no answer asks again.
                let _ = answer(stream, &acceptor, &authority).await;
            }
        });
        Ok(Self { service, _serving: serving })
    }
}

async fn answer(stream: TcpStream, acceptor: &TlsAcceptor, authority: &Authority) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let (head, body) = request(&mut stream).await?;
    let reply = if head.contains(CERTIFICATE_PATH) {
        let CertificateRequest { csr_pem, .. } = serde_json::from_str(&body)?;
        let chain_pem = authority.answer(Role::Gateway, &csr_pem)?;
        serde_json::to_string(&CertificateReply { chain_pem, expires_in: CERTIFICATE_SECONDS })?
    } else {
        serde_json::to_string(&ReportReply {
            next_seconds: 3600,
            allotment: None,
            allotments: vec![],
            route_deleted: false,
        })?
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
        reply.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// Head and body of a request with a content length.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Result<(String, String)> {
    let mut request = Vec::new();
    loop {
        let read = stream.read_buf(&mut request).await?;
        ensure!(read > 0 && request.len() <= MAX_REQUEST_BYTES, "half a request");
        let text = std::str::from_utf8(&request).context("a request that is no text")?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if length.is_some_and(|length| body.len() >= length) {
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}
