//! Our certificate authority and the certificate that it gives the two TLS faces.
//!
//! ECDSA P-256, TLS 1.2 and 1.3. The authority's key lives in memory, or in a state directory so that a CA bundle given
//! to clients outlives a restart. It refuses to know who connects.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use thiserror::Error;

use crate::random;

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The state directory cannot be used.
    #[error("cannot use {path}: {source}")]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name is neither a DNS name nor an address, or a key file is damaged.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate cannot be served.
    #[error("cannot serve the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// What the faces serve and clients must trust.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate of the authority, PEM.
    pub ca_pem: String,
    /// The faces' TLS settings.
    pub server: Arc<ServerConfig>,
}

impl Identity {
    /// A certificate for `names` from the authority in `state`, or from a new one.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(names: &[String], state: Option<&Path>) -> Result<Self, TlsError> {
        let (ca_pem, ca_key) = match state {
            Some(directory) => stored(directory)?,
            None => create()?,
        };
        let issuer = Issuer::new(ca_params(), ca_key);
        let key = KeyPair::generate()?;
        let certificate = leaf_params(names)?.signed_by(&key, &issuer)?;
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { ca_pem, server: Arc::new(server) })
    }
}

/// The same subject each time, so that a certificate made after a restart chains to the stored one.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Microsoft 365 simulator CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Microsoft 365 simulator");
    params.serial_number = Some(SerialNumber::from_slice(&random::bytes::<16>()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn create() -> Result<(String, KeyPair), TlsError> {
    let key = KeyPair::generate()?;
    Ok((ca_params().self_signed(&key)?.pem(), key))
}

fn stored(directory: &Path) -> Result<(String, KeyPair), TlsError> {
    let (certificate, key) = (directory.join(CA_CERTIFICATE), directory.join(CA_KEY));
    match (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
        (Ok(pem), Ok(key)) => Ok((pem, KeyPair::from_pem(&key)?)),
        _ => {
            let (pem, pair) = create()?;
            fs::create_dir_all(directory)
                .map_err(|source| TlsError::State { path: directory.into(), source })?;
            write_private(&key, &pair.serialize_pem())?;
            fs::write(&certificate, &pem).map_err(|source| TlsError::State { path: certificate, source })?;
            Ok((pem, pair))
        }
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| TlsError::State { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_outlives_a_restart_in_its_state_directory() {
        let state = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let first = Identity::new(&names, Some(state.path())).unwrap();
        let second = Identity::new(&names, Some(state.path())).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_ne!(first.ca_pem, Identity::new(&names, None).unwrap().ca_pem);
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        assert!(Identity::new(&["caf\u{e9}".to_owned()], None).is_err());
    }
}
