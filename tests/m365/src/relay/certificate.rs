//! The certificate that a client presents on port 25: its names, and whether its chain is complete.
//!
//! Pure; roots and time are passed in. It refuses to know connectors. Any usage will do: whether Exchange Online demands
//! the usage "client authentication" is not known, and public authorities stop giving it.

use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use serde::{Deserialize, Serialize};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// What a client showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresentedCertificate {
    /// Subject of the leaf.
    pub subject: String,
    /// Common name and DNS names of the leaf.
    pub names: Vec<String>,
    /// Certificates that were sent, leaf included.
    pub sent: usize,
    /// Last second of the leaf's validity, since 1970.
    pub expires_at: i64,
    /// Why no connector can match it; absent when it chains to a trusted root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrusted: Option<String>,
}

impl PresentedCertificate {
    /// Reads what was sent, leaf first. `None` when nothing was.
    #[must_use]
    pub fn read(chain: &[CertificateDer<'_>], roots: &RootCertStore, now: UnixTime) -> Option<Self> {
        let (leaf, intermediates) = chain.split_first()?;
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            let distrusted = Some("the certificate cannot be read".to_owned());
            return Some(Self { sent: chain.len(), distrusted, ..Self::default() });
        };
        Some(Self {
            subject: parsed.subject().to_string(),
            names: names(&parsed),
            sent: chain.len(),
            expires_at: parsed.validity().not_after.timestamp(),
            distrusted: distrust(leaf, intermediates, roots, now),
        })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name
                && !names.iter().any(|known| known == name)
            {
                names.push((*name).to_owned());
            }
        }
    }
    names
}

/// Why the chain does not reach a trusted root, first as a server's and then as a client's certificate.
fn distrust(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Option<String> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let as_server = ParsedCertificate::try_from(leaf).and_then(|parsed| {
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
    });
    let Err(error) = as_server else { return None };
    let verifier = WebPkiClientVerifier::builder_with_provider(
        std::sync::Arc::new(roots.clone()),
        std::sync::Arc::new(ring::default_provider()),
    );
    let as_client =
        verifier.build().ok().map(|verifier| verifier.verify_client_cert(leaf, intermediates, now));
    match as_client {
        Some(Ok(_)) => None,
        _ => Some(error.to_string()),
    }
}
