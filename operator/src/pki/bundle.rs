//! A set of CA certificates that are trusted together, in a stable order, as the PEM text of a `caBundle`.
//!
//! During a rotation both the old and the new authority are in it. Refuses to know why a certificate is in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authority::{CaCertificate, Error};

/// Certificates trusted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle(Vec<CaCertificate>);

impl Bundle {
    /// Reads the certificates of a PEM text, in their order. An empty text is an empty bundle.
    ///
    /// # Errors
    /// When a block is not a CA certificate.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(|block| CaCertificate::from_der(block.map_err(|e| Error::Pem(e.to_string()))?))
            .collect()
    }

    /// Whether the very certificate is in the bundle.
    pub fn contains(&self, certificate: &CaCertificate) -> bool {
        self.0.contains(certificate)
    }

    /// Whether nothing is trusted.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The certificates.
    pub fn iter(&self) -> impl Iterator<Item = &CaCertificate> {
        self.0.iter()
    }

    /// The PEM text, one block per certificate, each ending in a newline.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| pem_block("CERTIFICATE", certificate.der())).collect()
    }
}

impl FromIterator<CaCertificate> for Bundle {
    /// Keeps the order and leaves repetitions out.
    fn from_iter<I: IntoIterator<Item = CaCertificate>>(certificates: I) -> Self {
        let mut bundle = Vec::new();
        for certificate in certificates {
            if !bundle.contains(&certificate) {
                bundle.push(certificate);
            }
        }
        Self(bundle)
    }
}

/// RFC 7468: base64 in lines of 64 characters between the two labels.
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::authority::Authority;
    use super::*;

    fn certificate() -> CaCertificate {
        Authority::mint(Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap().certificate().clone()
    }

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let bundle = Bundle::from_iter([certificate(), certificate()]);
        assert_eq!(Bundle::from_pem(&bundle.to_pem()).unwrap(), bundle);
    }

    #[test]
    fn a_certificate_is_in_it_once() {
        let one = certificate();
        assert_eq!(Bundle::from_iter([one.clone(), one]).iter().count(), 1);
    }

    #[test]
    fn no_text_is_no_trust() {
        assert!(Bundle::from_pem("").unwrap().is_empty());
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Bundle::from_pem(damaged).is_err());
    }
}
