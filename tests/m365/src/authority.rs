//! Our certificate authority: it signs what the faces serve, and certificates for clients of SMTP relay.
//!
//! ECDSA P-256. The authority's key lives in memory, or in a state directory so that a CA bundle given to clients
//! outlives a restart. Clients' certificates come from an intermediate, as public authorities do it, so that a client
//! that does not send its chain is found out.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use thiserror::Error;

use crate::random;

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// How far back certificates begin, so that clocks may differ, seconds.
const BACKDATED: i64 = 3600;

/// The last second of the year 9999, the latest that a certificate can name.
const LAST_SECOND: i64 = 253_402_300_799;

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

/// The authority.
pub struct Authority {
    /// Its certificate, PEM.
    pub pem: String,
    root: Issuer<'static, KeyPair>,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_pem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: KeyPair,
}

/// A certificate for a client of SMTP relay.
#[derive(Clone)]
pub struct ClientIdentity {
    /// Leaf and intermediate, PEM: what a client must send.
    pub chain_pem: String,
    /// The leaf alone, PEM: what a client sends that is not set up well.
    pub leaf_pem: String,
    /// The key of the leaf, PKCS #8 in PEM.
    pub key_pem: String,
}

impl Authority {
    /// The authority in `state`, or a new one.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(state: Option<&Path>) -> Result<Self, TlsError> {
        let (pem, key) = match state {
            Some(directory) => stored(directory)?,
            None => create()?,
        };
        let root = Issuer::new(ca_params("Microsoft 365 simulator CA"), key);
        let key = KeyPair::generate()?;
        let params = ca_params("Microsoft 365 simulator client CA");
        let intermediate_pem = params.signed_by(&key, &root)?.pem();
        Ok(Self { pem, root, intermediate: Issuer::new(params, key), intermediate_pem })
    }

    /// A certificate for a server of these names.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an address.
    pub fn server(&self, names: &[String]) -> Result<Leaf, TlsError> {
        let mut params = leaf_params(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        Ok(Leaf { certificate: params.signed_by(&key, &self.root)?, key })
    }

    /// A certificate for a client of SMTP relay with these names, which ends `seconds` from `now`, or so many before.
    /// Like those of public authorities it is for servers only.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an address.
    pub fn client(&self, names: &[String], now: Timestamp, seconds: i64) -> Result<ClientIdentity, TlsError> {
        let mut params = leaf_params(names)?;
        if let Some(name) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = now.as_second();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |second: i64| epoch + Duration::from_secs(second.clamp(0, LAST_SECOND).unsigned_abs());
        params.not_after = at(now.saturating_add(seconds));
        params.not_before = at(now.saturating_add(seconds.min(0)) - BACKDATED);
        let key = KeyPair::generate()?;
        let leaf_pem = params.signed_by(&key, &self.intermediate)?.pem();
        let chain_pem = format!("{leaf_pem}{}", self.intermediate_pem);
        Ok(ClientIdentity { chain_pem, leaf_pem, key_pem: key.serialize_pem() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority")
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientIdentity").field("leaf_pem", &self.leaf_pem).finish_non_exhaustive()
    }
}

/// The same subject each time, so that a certificate made after a restart chains to the stored one.
fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
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
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn create() -> Result<(String, KeyPair), TlsError> {
    let key = KeyPair::generate()?;
    Ok((ca_params("Microsoft 365 simulator CA").self_signed(&key)?.pem(), key))
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
    use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};

    use super::*;
    use crate::{relay::PresentedCertificate, tls::trusted_roots};

    #[test]
    fn the_authority_outlives_a_restart_in_its_state_directory() {
        let state = tempfile::tempdir().unwrap();
        let first = Authority::new(Some(state.path())).unwrap();
        let second = Authority::new(Some(state.path())).unwrap();
        assert_eq!(first.pem, second.pem);
        assert_ne!(first.pem, Authority::new(None).unwrap().pem);
    }

    fn presented(authority: &Authority, pem: &str) -> PresentedCertificate {
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
        PresentedCertificate::read(&chain, &trusted_roots(&authority.pem, &[]), UnixTime::now()).unwrap()
    }

    #[test]
    fn a_client_is_trusted_with_its_chain_only_and_while_in_force() {
        let authority = Authority::new(None).unwrap();
        let names = ["mail.contoso.com".to_owned(), "smtp.contoso.com".to_owned()];
        let now = Timestamp::now();
        let client = authority.client(&names, now, 3600).unwrap();
        let whole = presented(&authority, &client.chain_pem);
        assert_eq!((whole.distrusted, whole.sent), (None, 2));
        assert!(names.iter().all(|name| whole.names.contains(name)), "{:?}", whole.names);
        assert!(presented(&authority, &client.leaf_pem).distrusted.is_some());
        let expired = authority.client(&names, now, -60).unwrap();
        assert!(presented(&authority, &expired.chain_pem).distrusted.is_some());
        let other = Authority::new(None).unwrap();
        assert!(presented(&other, &client.chain_pem).distrusted.is_some());
    }

    #[test]
    fn a_certificate_that_signs_itself_is_not_trusted() {
        let authority = Authority::new(None).unwrap();
        let key = KeyPair::generate().unwrap();
        let pem =
            CertificateParams::new(["mail.contoso.com".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        assert!(presented(&authority, &pem).distrusted.is_some());
    }
}
