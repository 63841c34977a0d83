//! Whom to trust, and what to present: a rustls client configuration from the public roots or from a PEM bundle.
//!
//! Verification of name and chain is rustls' own and is never weakened here. TLS 1.2 is the oldest version rustls speaks.

use std::path::PathBuf;
use std::sync::Arc;

use mailroute_route::file::Endpoint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

/// Largest CA bundle that is read, bytes.
const MAX_BUNDLE: usize = 1024 * 1024;

/// Where trust comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Mozilla's public roots, compiled in.
    PublicRoots,
    /// A PEM bundle in a file, read at each use: it may be mounted from a ConfigMap that changes.
    File(PathBuf),
    /// A PEM bundle.
    Pem(String),
}

impl Trust {
    /// What the certificate of a submission server has to chain to.
    pub fn of(endpoint: &Endpoint) -> Self {
        match &endpoint.ca_pem {
            Some(pem) => Self::Pem(pem.clone()),
            None => Self::from_file(endpoint.ca_file.as_ref()),
        }
    }

    /// The bundle in `file` when there is one, else the public roots.
    pub fn from_file(file: Option<&PathBuf>) -> Self {
        file.map_or(Self::PublicRoots, |path| Self::File(path.clone()))
    }
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle cannot be read.
    #[error("cannot read the CA bundle {path}: {source}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// The bundle holds no usable certificate.
    #[error("the CA bundle contains no usable certificate: {0}")]
    Bundle(String),
}

/// A client configuration that trusts what `trust` names.
///
/// # Errors
/// When the bundle cannot be read or holds no certificate.
pub async fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    client_config_with(trust, None).await
}

/// The same, presenting `own` with its whole chain to a server that asks for a certificate.
///
/// # Errors
/// As [`client_config`].
pub async fn client_config_with(
    trust: &Trust,
    own: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, TrustError> {
    let roots = match trust {
        Trust::PublicRoots => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Trust::Pem(pem) => roots_from_pem(pem.as_bytes())?,
        Trust::File(path) => {
            let read = tokio::fs::read(path).await;
            roots_from_pem(&read.map_err(|source| TrustError::Read { path: path.clone(), source })?)?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default protocol versions");
    let builder = builder.with_root_certificates(roots);
    Ok(Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    }))
}

/// The certificates of a PEM bundle, to trust.
///
/// # Errors
/// When it is too large, holds none, or one that is malformed.
pub fn roots_from_pem(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    if pem.len() > MAX_BUNDLE {
        return Err(TrustError::Bundle(format!("it is larger than {MAX_BUNDLE} bytes")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TrustError::Bundle(error.to_string()))?;
        roots.add(certificate).map_err(|error| TrustError::Bundle(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TrustError::Bundle("no CERTIFICATE block in it".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn public_roots_are_enough_for_a_configuration() {
        assert!(client_config(&Trust::PublicRoots).await.is_ok());
    }

    #[tokio::test]
    async fn a_missing_bundle_is_named() {
        let error = client_config(&Trust::File("/nonexistent/ca.crt".into())).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot read the CA bundle /nonexistent/ca.crt"), "{error}");
    }

    #[tokio::test]
    async fn a_bundle_without_certificates_is_refused() {
        assert!(matches!(client_config(&Trust::Pem("nothing".into())).await, Err(TrustError::Bundle(_))));
    }

    #[tokio::test]
    async fn a_bundle_may_hold_several_certificates() {
        let one = || rcgen::generate_simple_self_signed(["ca.example".into()]).unwrap().cert.pem();
        let both = format!("{}{}", one(), one());
        assert_eq!(roots_from_pem(both.as_bytes()).unwrap().len(), 2);
    }
}
