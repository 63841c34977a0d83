//! Certificates by which sidecars and gateways know each other; names as in [`mailroute_route::identity`].
//!
//! Owns what is taken of a request, which is the public key alone, and what is signed for it. Refuses to know who asks: names come
//! from the caller of this module, never from the request.

use std::time::Duration;

use jiff::Timestamp;
use mailroute_route::identity::{CERTIFICATE_SECONDS, Role, dns_name, uri};
use rcgen::{
    ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::authority::{Authority, Error};
use super::bundle::pem_block;

/// Length of serial numbers, octets: nobody can foresee them, and RFC 5280 §4.1.2.2 allows twenty.
const SERIAL: usize = 16;

/// Why a certificate signing request is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not PEM, or not of RFC 2986.
    #[error("it is not a PKCS #10 request in PEM")]
    Form,
    /// The caller does not prove that it has the private key, or its kind is another.
    #[error("it is not signed, with SHA-256, by the ECDSA P-256 key that it names")]
    Signature,
}

/// A public key, ECDSA P-256, whose private half the requester has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedKey {
    point: Vec<u8>,
}

impl RequestedKey {
    /// The key of a certificate signing request (RFC 2986), PEM. Everything else that the request asks for is ignored.
    ///
    /// # Errors
    /// When it cannot be read, or its signature is not by the key that it names.
    pub fn from_pem(pem: &str) -> Result<Self, RequestError> {
        let der =
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Form)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
        if !rest.is_empty() {
            return Err(RequestError::Form);
        }
        let info = &request.certification_request_info;
        let point = info.subject_pki.subject_public_key.data.as_ref();
        // A key of another curve is no point of this one, whatever the request calls it.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| RequestError::Signature)?;
        Ok(Self { point: point.to_vec() })
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What the pod does for its route.
    pub role: Role,
    /// Namespace of pod and route.
    pub namespace: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
}

impl Subject<'_> {
    fn names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let Self { role, namespace, route, pod } = *self;
        let (dns, uri) = (dns_name(role, namespace, route), uri(role, namespace, route, pod));
        Ok(vec![SanType::DnsName(dns.try_into()?), SanType::URI(uri.try_into()?)])
    }

    /// A gateway also connects to the others, when it is scaled away.
    fn usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self.role {
            Role::Sidecar => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Gateway => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

/// A certificate of a sidecar or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIdentity {
    /// The chain, leaf first, without the root, PEM.
    pub chain_pem: String,
    /// End of life.
    pub not_after: Timestamp,
}

impl Authority {
    /// Signs a certificate of a sidecar or gateway for its key, valid for [`CERTIFICATE_SECONDS`] from `now` on, but never longer than
    /// the authority itself.
    ///
    /// # Errors
    /// When a name is not one, or the random source fails.
    pub fn sign_identity(
        &self,
        key: &RequestedKey,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Result<SignedIdentity, Error> {
        let life = Duration::from_secs(CERTIFICATE_SECONDS);
        let (mut params, not_after) = self.leaf(&format!("mailroute {}", subject.role), now, life);
        params.subject_alt_names = subject.names()?;
        params.extended_key_usages = subject.usages();
        params.serial_number = Some(serial()?);
        let der = params.signed_by(key, &self.issuer()?)?.der().clone();
        Ok(SignedIdentity { chain_pem: pem_block("CERTIFICATE", &der), not_after })
    }
}

fn serial() -> Result<SerialNumber, Error> {
    let mut octets = [0; SERIAL];
    SystemRandom::new().fill(&mut octets).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(SerialNumber::from_slice(&octets))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };
    use rustls::pki_types::CertificateDer;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::X509Certificate;

    use super::*;

    const WEB: Subject<'_> = Subject { role: Role::Sidecar, namespace: "shop", route: "mail", pod: "web-0" };
    const DAY: Duration = Duration::from_secs(CERTIFICATE_SECONDS);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Asks for all that a request can ask for.
    fn greedy(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(vec!["mailroute.mail.svc".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "mailroute.mail.svc");
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn signed(
        authority: &Authority,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> (SignedIdentity, CertificateDer<'static>) {
        let key = RequestedKey::from_pem(&greedy(&KeyPair::generate().unwrap())).unwrap();
        let signed = authority.sign_identity(&key, subject, now).unwrap();
        let der = CertificateDer::from_pem_slice(signed.chain_pem.as_bytes()).unwrap();
        (signed, der)
    }

    #[test]
    fn of_a_request_only_the_key_is_taken() {
        let (authority, key) = (Authority::mint(at(1_000), 9 * DAY).unwrap(), KeyPair::generate().unwrap());
        let requested = RequestedKey::from_pem(&greedy(&key)).unwrap();
        let signed = authority.sign_identity(&requested, &WEB, at(1_000)).unwrap();
        let der = CertificateDer::from_pem_slice(signed.chain_pem.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert!(!leaf.is_ca() && leaf.subject().to_string() == "CN=mailroute sidecar", "{}", leaf.subject());
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(
            names[..],
            [
                GeneralName::DNSName("mail.shop.sidecar.mailroute.internal"),
                GeneralName::URI("mailroute://shop/mail/sidecar/web-0")
            ]
        );
    }

    #[test]
    fn only_a_gateway_is_a_server() {
        let authority = Authority::mint(at(1_000), 9 * DAY).unwrap();
        for (role, serves) in [(Role::Sidecar, false), (Role::Gateway, true)] {
            let (_, der) = signed(&authority, &Subject { role, ..WEB }, at(1_000));
            let (_, leaf) = X509Certificate::from_der(&der).unwrap();
            let usage = leaf.extensions().iter().find_map(|it| match it.parsed_extension() {
                ParsedExtension::ExtendedKeyUsage(usage) => Some(usage),
                _ => None,
            });
            let usage = usage.unwrap();
            assert!(usage.client_auth && usage.server_auth == serves && !usage.any, "{usage:?}");
        }
    }

    #[test]
    fn it_lives_for_a_day_and_never_longer_than_the_authority() {
        let authority = Authority::mint(at(1_000), 2 * DAY).unwrap();
        let ends = |now: Timestamp| signed(&authority, &WEB, now).0.not_after;
        assert_eq!(ends(at(1_000)), at(1_000) + DAY);
        assert_eq!(ends(at(1_000) + DAY + DAY / 2), at(1_000) + 2 * DAY);
    }

    #[test]
    fn no_two_have_one_serial_number() {
        let authority = Authority::mint(at(1_000), 2 * DAY).unwrap();
        let serial = || {
            let (_, der) = signed(&authority, &WEB, at(1_000));
            X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
        };
        let (one, two) = (serial(), serial());
        assert!(one != two && one.len() >= SERIAL - 1, "{one:?} {two:?}");
    }

    #[test]
    fn a_request_that_is_not_signed_by_its_own_p_256_key_is_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let other = greedy(&KeyPair::generate_for(algorithm).unwrap());
            assert_eq!(RequestedKey::from_pem(&other), Err(RequestError::Signature), "{algorithm:?}");
        }
        // The key of one request in that of another.
        let der = |pem: &str| CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let point = |key: &KeyPair| key.public_key_raw().to_vec();
        let (own, stolen) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut forged = der(&greedy(&own));
        let place = forged.windows(65).position(|octets| octets == point(&own)).unwrap();
        forged[place..place + 65].copy_from_slice(&point(&stolen));
        let forged = pem_block("CERTIFICATE REQUEST", &forged);
        assert_eq!(RequestedKey::from_pem(&forged), Err(RequestError::Signature));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let whole = greedy(&KeyPair::generate().unwrap());
        let mut der = CertificateSigningRequestDer::from_pem_slice(whole.as_bytes()).unwrap().to_vec();
        der.push(0);
        for text in [
            "",
            "nonsense",
            &whole.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            &pem_block("CERTIFICATE REQUEST", &der),
        ] {
            assert_eq!(RequestedKey::from_pem(text), Err(RequestError::Form), "{text}");
        }
    }
}
