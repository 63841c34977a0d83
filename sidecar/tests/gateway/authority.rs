//! The CA that signs the certificates of pods, in the operator's place.

use std::path::Path;
use std::sync::Arc;

use mailroute_route::identity::{Role, dns_name, uri};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key for a pod of a route in namespace `shop`, PEM.
    pub fn signed(&self, role: Role, route: &str, pod: &str) -> String {
        let mut params = CertificateParams::new(vec![dns_name(role, "shop", route)]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri(role, "shop", route, pod).try_into().unwrap()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        format!("{}{}", params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A certificate and its key, as TLS uses them.
pub fn certified(pem: &str) -> Arc<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    Arc::new(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).unwrap())
}

/// The same from a file.
pub fn certified_in(path: &Path) -> Arc<CertifiedKey> {
    certified(&std::fs::read_to_string(path).unwrap())
}
