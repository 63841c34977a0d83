//! The certificate that a route presents, to Entra or to a connector: read, matched with its key, described.
//!
//! Owns reading the two files that the kubelet keeps, each time the certificate is needed, and what can be said of the
//! leaf: whom it names and how long it is in force. Refuses to know what is done with it, and never shows the key.
//!
//! Invariant: a [`Certificate`] belongs to its key. Whether it is in force is asked with a time, since it outlives that.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::file::CertificateFiles;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::secret;

/// A certificate that ends sooner than this asks to be renewed: three weeks are enough for a person to do it between
/// other work, and too few for one that renews itself a month ahead to be warned about.
pub const EXPIRING: Duration = Duration::from_secs(21 * 24 * 3600);

/// Most names of a certificate that are shown.
const SHOWN_NAMES: usize = 5;

/// A chain and the key of its leaf.
#[derive(Clone)]
pub struct Certificate {
    /// Leaf first, as it is presented, with the key that signs. For TLS and for assertions alike.
    pub signer: Arc<CertifiedKey>,
    /// What the leaf says.
    pub leaf: Leaf,
}

/// What a leaf says of itself. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Distinguished name, as `openssl` would print it.
    pub subject: String,
    /// DNS names: the alternative ones, then common names that are not among them.
    pub names: Vec<String>,
    /// Start of its validity, seconds since the epoch.
    pub not_before: i64,
    /// End of its validity, seconds since the epoch.
    pub not_after: i64,
    /// Whether it names itself as its issuer, which no connector takes.
    pub self_issued: bool,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is not there or not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The first file has no certificate.
    #[error("{0}: it contains no certificate in PEM")]
    NoCertificate(PathBuf),
    /// The second file has no key.
    #[error("{0}: it contains no unencrypted private key in PEM")]
    NoKey(PathBuf),
    /// A certificate that is not one, or a key of a kind nobody here can use.
    #[error("{path}: {what}")]
    Unusable {
        /// In which file.
        path: PathBuf,
        /// What is wrong, without content.
        what: String,
    },
    /// The key is that of another certificate.
    #[error("{key} is not the key of the first certificate in {certificate}")]
    Mismatch {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

impl CertificateError {
    /// The reason that a person is told.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } => Reason::CertificateMissing,
            Self::NoCertificate(_) | Self::NoKey(_) | Self::Unusable { .. } | Self::Mismatch { .. } => {
                Reason::CertificateInvalid
            }
        }
    }
}

/// Told of each certificate that is read, for the metric of its end.
pub trait CertificateObserver: Send + Sync {
    /// The certificate in use ends at `not_after`, seconds since the epoch.
    fn certificate(&self, not_after: i64);
}

/// Reads the pair. One that does not belong together is read again, as the kubelet may have replaced the files between
/// the one and the other.
///
/// # Errors
/// When a file is missing or its content of no use.
pub async fn read(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    match read_once(files).await {
        Err(CertificateError::Mismatch { .. }) => read_once(files).await,
        outcome => outcome,
    }
}

async fn read_once(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    let text = async |path: &Path| {
        let failed = |source| CertificateError::Read { path: path.to_owned(), source };
        secret::read_file(path).await.map_err(failed)
    };
    let (chain, key) = (text(&files.certificate_file).await?, text(&files.key_file).await?);
    parse(files, chain.expose().as_bytes(), key.expose().as_bytes())
}

/// Makes a certificate of the contents of `files`.
///
/// # Errors
/// When they are of no use.
pub fn parse(files: &CertificateFiles, chain: &[u8], key: &[u8]) -> Result<Certificate, CertificateError> {
    let unusable = |path: &Path, what: String| CertificateError::Unusable { path: path.to_owned(), what };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(&files.certificate_file, "its PEM is broken".into()))?;
    let Some(first) = chain.first() else {
        return Err(CertificateError::NoCertificate(files.certificate_file.clone()));
    };
    let leaf = Leaf::of(first).map_err(|what| unusable(&files.certificate_file, what))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey(files.key_file.clone()))?;
    // The text of the error names kinds of keys, never their content.
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|_| unusable(&files.key_file, "its kind of key is not supported, or it is broken".into()))?;
    let signer = CertifiedKey::new(chain, key);
    match signer.keys_match() {
        Ok(()) => Ok(Certificate { signer: Arc::new(signer), leaf }),
        Err(_) => Err(CertificateError::Mismatch {
            certificate: files.certificate_file.clone(),
            key: files.key_file.clone(),
        }),
    }
}

impl Leaf {
    fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let broken = |_| "the first certificate is not X.509".to_owned();
        let (_, parsed) = X509Certificate::from_der(der).map_err(broken)?;
        let mut names = alternative_names(&parsed);
        for name in parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name.to_owned());
            }
        }
        Ok(Self {
            subject: parsed.subject().to_string(),
            names,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            self_issued: parsed.subject() == parsed.issuer(),
        })
    }

    /// The reason of the condition `CertificateValid` at `now`, seconds since the epoch.
    pub const fn standing(&self, now: i64) -> Reason {
        if now < self.not_before || now >= self.not_after {
            return Reason::CertificateExpired;
        }
        // Three weeks of seconds fit.
        if self.not_after - now < EXPIRING.as_secs() as i64 {
            return Reason::CertificateExpiring;
        }
        Reason::CertificateValid
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(dns).collect()
}

/// Whom it names and when it is in force, for people.
impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate of {}", if self.subject.is_empty() { "nobody" } else { &self.subject })?;
        if !self.names.is_empty() {
            let shown = self.names.iter().take(SHOWN_NAMES).map(String::as_str).collect::<Vec<_>>();
            write!(f, " for {}", shown.join(", "))?;
            if self.names.len() > SHOWN_NAMES {
                write!(f, " and {} more", self.names.len() - SHOWN_NAMES)?;
            }
        }
        write!(f, ", in force from {} to {}", day(self.not_before), day(self.not_after))
    }
}

fn day(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds);
    at.map_or_else(|_| seconds.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.leaf, f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate and its key, PEM.
    pub(crate) fn pair(names: &[&str]) -> (String, String) {
        issue(names, KeyPair::generate().unwrap())
    }

    pub(crate) fn issue(names: &[&str], key: KeyPair) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "mail.contoso.com");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn files(directory: &Path) -> CertificateFiles {
        CertificateFiles { certificate_file: directory.join("tls.crt"), key_file: directory.join("tls.key") }
    }

    fn parsed(chain: &str, key: &str) -> Result<Certificate, CertificateError> {
        parse(&files(Path::new("/c")), chain.as_bytes(), key.as_bytes())
    }

    #[test]
    fn a_leaf_tells_whom_it_names_and_when_it_is_in_force() {
        let (chain, key) = pair(&["relay.contoso.com", "contoso.com"]);
        let leaf = parsed(&chain, &key).unwrap().leaf;
        assert_eq!(leaf.names, ["relay.contoso.com", "contoso.com", "mail.contoso.com"]);
        assert!(leaf.self_issued);
        assert_eq!(
            leaf.to_string(),
            "certificate of CN=mail.contoso.com for relay.contoso.com, contoso.com, mail.contoso.com, in force from \
             2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z"
        );
    }

    #[test]
    fn it_is_in_force_from_its_start_to_its_end_and_asks_for_renewal_before() {
        let leaf = Leaf {
            subject: String::new(),
            names: vec![],
            not_before: 1_000,
            not_after: 100_000_000,
            self_issued: false,
        };
        let warned = 100_000_000 - 21 * 24 * 3600;
        assert_eq!(leaf.standing(999), Reason::CertificateExpired);
        assert_eq!(leaf.standing(1_000), Reason::CertificateValid);
        assert_eq!(leaf.standing(warned), Reason::CertificateValid);
        assert_eq!(leaf.standing(warned + 1), Reason::CertificateExpiring);
        assert_eq!(leaf.standing(100_000_000), Reason::CertificateExpired);
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let ((chain, _), (_, key)) = (pair(&["a.example"]), pair(&["b.example"]));
        let error = parsed(&chain, &key).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
        assert_eq!(error.reason(), Reason::CertificateInvalid);
    }

    #[test]
    fn both_may_be_in_one_file_with_the_chain_behind() {
        let ((leaf, key), (issuer, _)) = (pair(&["a.example"]), pair(&["ca.example"]));
        let both = format!("{key}{leaf}{issuer}");
        assert_eq!(parsed(&both, &both).unwrap().signer.cert.len(), 2);
    }

    #[test]
    fn what_is_not_pem_is_said_without_its_content() {
        let (chain, key) = pair(&["a.example"]);
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let broken = chain.replacen('M', "!", 1);
        for (chain, key, part) in [
            ("nothing", key.as_str(), "no certificate in PEM"),
            (chain.as_str(), "nothing", "no unencrypted private key"),
            (chain.as_str(), encrypted.as_str(), "no unencrypted private key"),
            (broken.as_str(), key.as_str(), "its PEM is broken"),
        ] {
            let error = parsed(chain, key).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.reason(), Reason::CertificateInvalid);
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let (chain, key) = pair(&["a.example"]);
        let shown = format!("{:?}", parsed(&chain, &key).unwrap());
        assert!(shown.starts_with("certificate of CN="), "{shown}");
    }

    #[tokio::test]
    async fn a_missing_file_is_missing_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = pair(&["a.example"]);
        std::fs::write(directory.path().join("tls.key"), key).unwrap();
        let error = read(&files(directory.path())).await.unwrap_err();
        assert_eq!(error.reason(), Reason::CertificateMissing);
        assert!(error.to_string().contains("tls.crt"), "{error}");
        std::fs::write(directory.path().join("tls.crt"), chain).unwrap();
        assert!(read(&files(directory.path())).await.is_ok());
    }
}
