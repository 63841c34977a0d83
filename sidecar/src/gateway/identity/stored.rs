//! A certificate and its key in a file on the spool's volume: a container that is restarted, or a gateway that is moved to another node,
//! need not wait for the operator.
//!
//! Owns the file: whole or not at all, for the own user only. Blocking.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Name of the file in the spool directory.
pub const IDENTITY_FILE: &str = "identity.pem";

/// Most octets that are read.
const MAX_BYTES: u64 = 64 * 1024;

/// Writes a chain and its key, PEM, in place of those before.
pub(super) fn write(path: &Path, pem: &str) -> io::Result<()> {
    let new = path.with_extension("pem.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Reads them; nothing where there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<CertifiedKey>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut pem = String::new();
    file.take(MAX_BYTES).read_to_string(&mut pem)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    // What was wrong with it could show a part of the key.
    let key = key.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no private key in it"))?;
    let certified = certified(&pem, key);
    certified.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A chain, PEM, with its key.
pub(super) fn certified(chain_pem: &str, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, rustls::Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pem(name: &str) -> (String, Vec<u8>) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (format!("{}{}", cert.pem(), signing_key.serialize_pem()), cert.der().to_vec())
    }

    #[test]
    fn what_is_written_is_read_the_same_by_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        assert!(read(&path).unwrap().is_none());
        for name in ["one.example", "two.example"] {
            let (pem, der) = pem(name);
            // As a program that was killed leaves it.
            fs::write(path.with_extension("pem.new"), "half").unwrap();
            write(&path, &pem).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().cert[0].as_ref(), der);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_something_else_is_an_error_that_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(IDENTITY_FILE);
        let ((one, _), (other, _)) = (pem("one.example"), pem("two.example"));
        let other_key = &other[other.find("-----BEGIN PRIVATE").unwrap()..];
        let certificate = &one[..one.find("-----BEGIN PRIVATE").unwrap()];
        let cut_off = &one[..one.len() - 40];
        for text in ["", "nonsense", certificate, other_key, cut_off, &format!("{certificate}{other_key}")] {
            write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.len() < 100 && !error.contains("MI"), "{error}");
        }
    }
}
