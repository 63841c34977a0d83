//! The assertion that an application signs with its own certificate: a JWT with `PS256` and `x5t#S256`.
//!
//! Pure: time and chance are passed in. Owns header, claims and signature; refuses to know whether the authority knows
//! the certificate. Entra takes RSA keys only.
//!
//! Source: Microsoft identity platform, "Application authentication certificate credentials"; RFC 7518 §3.5 (PS256: salt
//! as long as the hash, which is what TLS 1.3's `rsa_pss_rsae_sha256` is, too); RFC 7515 §4.1.8 (`x5t#S256`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::SignatureScheme;
use serde_json::json;

use crate::net::certificate::Certificate;
use crate::secret::Secret;

/// How far the assertion reaches back, seconds: a clock of ours that is ahead by no more does no harm.
const BACKWARD: i64 = 120;

/// How far it reaches forward, seconds. Ten minutes are the most from end to end.
const FORWARD: i64 = 480;

/// Who says what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The token endpoint.
    pub audience: &'a str,
    /// Application, issuer and subject at once.
    pub client_id: &'a str,
    /// Now, seconds since the epoch.
    pub now: i64,
    /// Chance, so that no two assertions are the same.
    pub nonce: [u8; 16],
}

/// Whether the key is of the kind that Entra takes.
pub fn can_sign(certificate: &Certificate) -> bool {
    certificate.signer.key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]).is_some()
}

/// Signs `statement`; none when the key cannot.
pub fn sign(certificate: &Certificate, statement: &Statement<'_>) -> Option<Secret> {
    let signer = certificate.signer.key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])?;
    let leaf = certificate.signer.cert.first()?;
    let header = json!({
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf)),
    });
    let claims = json!({
        "aud": statement.audience,
        "iss": statement.client_id,
        "sub": statement.client_id,
        "jti": guid(statement.nonce),
        "iat": statement.now,
        "nbf": statement.now - BACKWARD,
        "exp": statement.now + FORWARD,
    });
    let text = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let mut assertion = format!("{}.{}", text(header), text(claims));
    let signature = signer.sign(assertion.as_bytes()).ok()?;
    assertion.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut assertion);
    Some(Secret::new(assertion))
}

/// The thumbprint by which Entra's portal and `az ad app credential list --cert` show a certificate: SHA-1, in hex. For
/// people to compare; nothing rests on it.
pub fn thumbprint(certificate: &Certificate) -> String {
    let leaf = certificate.signer.cert.first();
    leaf.map_or_else(String::new, |leaf| {
        hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, leaf).as_ref()).to_ascii_uppercase()
    })
}

/// A random GUID (RFC 9562 §5.4), which is what Entra asks for as `jti`.
fn guid(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let digits = hex(&random);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    groups.join("-")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::net::certificate::tests::{files, issue, pair};
    use crate::net::certificate::{self, Certificate};

    const STATEMENT: Statement<'_> = Statement {
        audience: "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token",
        client_id: "1b2c3d4e",
        now: 1_790_000_000,
        nonce: [0xab; 16],
    };

    /// A certificate whose key is RSA, as `openssl req -newkey rsa:2048` makes them.
    pub(in crate::token) fn rsa() -> (String, String) {
        issue(&["app.example"], rcgen::KeyPair::from_pem(include_str!("testdata/rsa.key")).unwrap())
    }

    fn certificate((chain, key): (String, String)) -> Certificate {
        certificate::parse(&files(Path::new("/c")), chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn header_and_claims_are_what_entra_asks_for() {
        let certificate = certificate(rsa());
        let assertion = sign(&certificate, &STATEMENT).unwrap();
        let parts: Vec<_> = assertion.expose().split('.').collect();
        let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
        assert_eq!((&header["alg"], &header["typ"]), (&"PS256".into(), &"JWT".into()));
        let thumbprint = URL_SAFE_NO_PAD.decode(header["x5t#S256"].as_str().unwrap()).unwrap();
        assert_eq!(thumbprint, digest(&SHA256, &certificate.signer.cert[0]).as_ref());
        assert_eq!(claims["aud"], STATEMENT.audience);
        assert_eq!((&claims["iss"], &claims["sub"]), (&"1b2c3d4e".into(), &"1b2c3d4e".into()));
        assert_eq!(claims["jti"], "abababab-abab-4bab-abab-abababababab");
        let (start, end) = (claims["nbf"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        assert!(start < STATEMENT.now && STATEMENT.now < end && end - start <= 600);
    }

    #[test]
    fn the_signature_is_rsa_pss_with_a_salt_as_long_as_the_hash() {
        let certificate = certificate(rsa());
        let assertion = sign(&certificate, &STATEMENT).unwrap();
        let (signed, signature) = assertion.expose().rsplit_once('.').unwrap();
        let (_, parsed) = X509Certificate::from_der(&certificate.signer.cert[0]).unwrap();
        let key =
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &*parsed.public_key().subject_public_key.data);
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn an_elliptic_curve_key_signs_nothing() {
        let certificate = certificate(pair(&["a.example"]));
        assert!(!can_sign(&certificate));
        assert_eq!(sign(&certificate, &STATEMENT), None);
    }

    #[test]
    fn the_thumbprint_is_what_the_portal_shows() {
        let shown = thumbprint(&certificate(rsa()));
        assert_eq!(shown.len(), 40);
        assert!(shown.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()), "{shown}");
    }
}
