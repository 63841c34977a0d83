//! The programs that are measured: how each is started on a folder of its own, and where it takes mail.

mod authority;
mod control;
mod gateway;
mod postfix;
mod sidecar;

pub use authority::Authority;
use control::Control;
pub use gateway::Gateway;
pub use postfix::Postfix;
pub use sidecar::{Sidecar, relay_to};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mailroute_route::file::Chunking;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where mail is to go.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Port on localhost.
    pub port: u16,
    /// What to trust, PEM.
    pub certificate: PathBuf,
    /// Whether the sidecar uses BDAT.
    pub chunking: Chunking,
}

impl Upstream {
    /// For connections that trust it.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate)?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Connections to the upstream that each program may have: what Postfix has by default.
pub const CONNECTIONS: u32 = 20;

/// Waits until somebody listens.
async fn listening(port: u16) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if began.elapsed() > Duration::from_secs(30) {
            bail!("nothing listens on port {port} after 30 seconds");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
