//! The CA of a route's pods, in the operator's place: sidecars and gateways know each other by its certificates.

use std::sync::Arc;

use anyhow::{Context, Result};
use mailroute_route::identity::{Role, dns_name, uri};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::sidecar::{NAMESPACE, ROUTE};

/// The CA.
pub struct Authority {
    /// Its certificate, PEM.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// The key that a signing request names.
struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When there is no key.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = common_name("bench CA");
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// A certificate with a new key.
    ///
    /// # Errors
    /// When there is no key.
    pub fn issue(&self, role: Role) -> Result<Issued> {
        let key = KeyPair::generate()?;
        Ok(Issued { certificate: self.sign(role, &key)?, key: key.serialize_pem() })
    }

    /// A certificate for the key of a signing request, which is believed. Both are PEM.
    ///
    /// # Errors
    /// When it is no such request.
    pub fn answer(&self, role: Role, request: &str) -> Result<String> {
        let der = CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
            .ok()
            .context("no PEM of a signing request")?;
        let (_, request) = X509CertificationRequest::from_der(&der).ok().context("no signing request")?;
        let point = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
        self.sign(role, &RequestedKey(point))
    }

    /// For connections of a sidecar to a gateway, and what the gateway's certificate has to be for.
    ///
    /// # Errors
    /// When there is no key.
    pub fn connector(&self) -> Result<(TlsConnector, ServerName<'static>)> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes())?)?;
        let Issued { certificate, key } = self.issue(Role::Sidecar)?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let config =
            ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        let name = ServerName::try_from(dns_name(Role::Gateway, NAMESPACE, ROUTE))?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    fn sign(&self, role: Role, key: &impl PublicKeyData) -> Result<String> {
        let mut params = CertificateParams::new(vec![dns_name(role, NAMESPACE, ROUTE)])?;
        let uri = uri(role, NAMESPACE, ROUTE, "bench-0");
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        params.distinguished_name = common_name("bench pod");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

impl Issued {
    /// As TLS uses them.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = rustls::crypto::ring::default_provider();
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
    }
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
