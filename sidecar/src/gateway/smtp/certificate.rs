//! The certificate that SMTP clients see: read, put to use, and replaced when its files change.
//!
//! While there is none, nobody can log in. One that was good stays in use when what replaces it is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroute_route::condition::Reason;
use mailroute_route::file::CertificateFiles;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;

use crate::clock;
use crate::listener::Observer;
use crate::net::certificate::{self, Certificate};

/// Reads the certificate.
pub(super) struct CertificateLoader {
    files: CertificateFiles,
    publish: watch::Sender<Option<Arc<ServerConfig>>>,
    observer: Arc<dyn Observer>,
}

impl CertificateLoader {
    pub(super) fn new(
        directory: &Path,
        publish: watch::Sender<Option<Arc<ServerConfig>>>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (certificate_file, key_file) = super::certificate_files(directory);
        Self { files: CertificateFiles { certificate_file, key_file }, publish, observer }
    }

    /// What is read.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        vec![self.files.certificate_file.clone(), self.files.key_file.clone()]
    }

    /// Reads it, and uses it from the next handshake on.
    pub(super) async fn load(&self) {
        let loaded = match certificate::read(&self.files).await {
            Ok(certificate) => {
                server(&certificate).map(|config| (certificate, config)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok((certificate, config)) => {
                self.observer.tls_certificate(certificate.leaf.not_after);
                match certificate.leaf.standing(clock::unix_seconds()) {
                    Reason::CertificateValid => {
                        tracing::info!(certificate = %certificate.leaf, "SMTP clients are shown this certificate");
                    }
                    reason => tracing::warn!(
                        certificate = %certificate.leaf, reason = reason.as_str(),
                        "SMTP clients are shown this certificate, which has to be renewed"
                    ),
                }
                self.publish.send_replace(Some(config));
            }
            Err(error) if self.publish.borrow().is_some() => {
                tracing::error!(
                    error,
                    "the new certificate for SMTP clients cannot be used; the old one stays in use"
                );
            }
            Err(error) => {
                self.observer.tls_certificate(0);
                tracing::error!(
                    error,
                    "no certificate for SMTP clients: STARTTLS is not offered, and nobody can log in"
                );
            }
        }
    }
}

/// TLS 1.2 and 1.3 with this certificate. Every connection begins anew: nothing of one is kept for the next.
fn server(certificate: &Certificate) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.signer))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
