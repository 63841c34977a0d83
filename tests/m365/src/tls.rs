//! The certificates of the TLS faces, and how each face does its handshake.
//!
//! TLS 1.2 and 1.3. Port 25 asks for a client's certificate and takes any, or none: whether it is worth anything is
//! decided later, as at Exchange Online. It refuses to know who connects.

use std::{path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::authority::{Authority, TlsError};

/// Names that a certificate of the MX endpoint carries beside those that were asked for.
pub const MX_NAMES: [&str; 3] =
    ["mail.protection.outlook.com", "*.mail.protection.outlook.com", "*.o-v1.mx.microsoft"];

/// A name that no client asks for; a fault serves a certificate for it.
pub const OTHER_NAME: &str = "other-host.invalid";

/// What the faces serve and clients must trust.
#[derive(Debug)]
pub struct Identity {
    /// Who signed everything.
    pub authority: Authority,
    /// The token endpoint and client submission.
    pub submission: Arc<ServerConfig>,
    /// The MX endpoint.
    pub relay: Arc<ServerConfig>,
    /// Any SMTP face while a fault gives it a certificate of another name.
    pub other_name: Arc<ServerConfig>,
}

impl Identity {
    /// Certificates for `names` from the authority in `state`, or from a new one.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(names: &[String], state: Option<&Path>) -> Result<Self, TlsError> {
        let authority = Authority::new(state)?;
        let mx: Vec<String> = names.iter().cloned().chain(MX_NAMES.map(str::to_owned)).collect();
        Ok(Self {
            submission: Arc::new(server(&authority, names, false)?),
            relay: Arc::new(server(&authority, &mx, true)?),
            other_name: Arc::new(server(&authority, &[OTHER_NAME.to_owned()], true)?),
            authority,
        })
    }
}

fn server(authority: &Authority, names: &[String], asks_client: bool) -> Result<ServerConfig, TlsError> {
    let leaf = authority.server(names)?;
    let key =
        PrivateKeyDer::try_from(leaf.key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = if asks_client {
        builder.with_client_cert_verifier(Arc::new(TakesAny(algorithms)))
    } else {
        builder.with_no_client_auth()
    };
    Ok(builder.with_single_cert(vec![leaf.certificate.der().clone()], key)?)
}

/// The roots that connectors trust: our own authority and those that the configuration adds. Texts that are no
/// certificate are passed over; the configuration is checked when it is set.
#[must_use]
pub fn trusted_roots(ca_pem: &str, added: &[String]) -> RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for pem in std::iter::once(ca_pem).chain(added.iter().map(String::as_str)) {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).flatten());
    }
    roots
}

/// Takes any certificate whose key the client holds, and asks for one without insisting.
#[derive(Debug)]
struct TakesAny(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for TakesAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        assert!(Identity::new(&["caf\u{e9}".to_owned()], None).is_err());
    }

    #[test]
    fn roots_are_ours_and_the_added_ones() {
        let (ours, other) = (Authority::new(None).unwrap(), Authority::new(None).unwrap());
        assert_eq!(trusted_roots(&ours.pem, &[]).len(), 1);
        assert_eq!(trusted_roots(&ours.pem, &[other.pem.clone(), "nothing".into()]).len(), 2);
    }
}
