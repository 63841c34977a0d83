//! JSON Web Signatures with RSA, RS256 and PS256: taking a compact token apart, checking and making one (RFC 7515,
//! RFC 7518 sections 3.3 and 3.5).
//!
//! Pure. It refuses to know what the claims mean.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{rand::SystemRandom, signature};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Why a token cannot be used. None of them quotes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwsError {
    /// Not three parts of base64url with JSON in the first two.
    #[error("the token is not a compact JSON Web Signature")]
    Malformed,
    /// Signed with another algorithm.
    #[error("the token is not signed with RS256 or PS256")]
    Algorithm,
    /// No key of that id.
    #[error("no key has the token's key id")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the signature does not fit")]
    Signature,
}

/// A token taken apart, its signature not yet checked.
#[derive(Clone, Debug)]
pub struct Compact<Claims> {
    /// The header.
    pub header: Header,
    /// The claims.
    pub claims: Claims,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// How a token is signed, and with which key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Algorithm.
    pub alg: Algorithm,
    /// Key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `JWT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// SHA-1 thumbprint of the certificate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
    /// SHA-256 thumbprint of the certificate, base64url.
    #[serde(default, rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub x5t_sha256: Option<String>,
}

/// The algorithms that Entra takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

/// A set of public keys, as a `jwks_uri` serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The keys. Those that are not RSA are passed over.
    pub keys: Vec<Key>,
}

/// One public key (RFC 7517). Fields for other kinds of key are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Kind; `RSA` is used.
    pub kty: String,
    /// Key id.
    #[serde(default)]
    pub kid: Option<String>,
    /// What it is for; `sig` or absent.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Algorithm; `RS256` or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// Modulus, base64url.
    #[serde(default)]
    pub n: String,
    /// Exponent, base64url.
    #[serde(default)]
    pub e: String,
}

impl<Claims: DeserializeOwned> Compact<Claims> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] or [`JwsError::Algorithm`].
    pub fn parse(token: &str) -> Result<Self, JwsError> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Malformed);
        };
        let signed = format!("{header}.{claims}").into_bytes();
        let header: serde_json::Value = decode_json(header)?;
        if !["RS256", "PS256"].iter().any(|known| header["alg"] == *known) {
            return Err(JwsError::Algorithm);
        }
        let header = serde_json::from_value(header).map_err(|_| JwsError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwsError::Malformed)?;
        Ok(Self { header, claims: decode_json(claims)?, signed, signature })
    }
}

impl<Claims> Compact<Claims> {
    /// Checks the RS256 signature against the set: the key of the same id, or any key when the token names none.
    ///
    /// # Errors
    /// [`JwsError::Algorithm`], [`JwsError::UnknownKey`] or [`JwsError::Signature`].
    pub fn verify(&self, keys: &KeySet) -> Result<(), JwsError> {
        if self.header.alg != Algorithm::Rs256 {
            return Err(JwsError::Algorithm);
        }
        let mut candidates = keys.rsa(self.header.kid.as_deref()).peekable();
        if candidates.peek().is_none() {
            return Err(JwsError::UnknownKey);
        }
        candidates.find_map(|key| key.verify(&self.signed, &self.signature).ok()).ok_or(JwsError::Signature)
    }

    /// Checks the signature against a public key (`RSAPublicKey`, DER) by the algorithm that the header names.
    ///
    /// # Errors
    /// [`JwsError::Signature`].
    pub fn verify_with(&self, public_key: &[u8]) -> Result<(), JwsError> {
        let parameters = match self.header.alg {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        };
        signature::UnparsedPublicKey::new(parameters, public_key)
            .verify(&self.signed, &self.signature)
            .map_err(|_| JwsError::Signature)
    }
}

impl KeySet {
    /// Whether a token with this key id could be checked.
    #[must_use]
    pub fn has(&self, kid: Option<&str>) -> bool {
        self.rsa(kid).next().is_some()
    }

    fn rsa<'a>(&'a self, kid: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.keys
            .iter()
            .filter(|key| key.kty == "RSA" && key.usage.as_deref().is_none_or(|usage| usage == "sig"))
            .filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
    }
}

impl Key {
    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), JwsError> {
        let n = URL_SAFE_NO_PAD.decode(&self.n).map_err(|_| JwsError::Signature)?;
        let e = URL_SAFE_NO_PAD.decode(&self.e).map_err(|_| JwsError::Signature)?;
        signature::RsaPublicKeyComponents { n, e }
            .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
            .map_err(|_| JwsError::Signature)
    }

    /// The public half of `pair` under the name `kid`.
    #[must_use]
    pub fn of(pair: &signature::RsaKeyPair, kid: &str) -> Self {
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
        Self {
            kty: "RSA".into(),
            kid: Some(kid.into()),
            usage: Some("sig".into()),
            alg: Some("RS256".into()),
            n: URL_SAFE_NO_PAD.encode(public.n),
            e: URL_SAFE_NO_PAD.encode(public.e),
        }
    }
}

/// Signs `claims` with `pair` under the key id `kid`.
///
/// # Errors
/// The claims are not JSON, or the key is too small for the signature.
pub fn sign(claims: &impl Serialize, pair: &signature::RsaKeyPair, kid: &str) -> Result<String, JwsError> {
    sign_with(claims, pair, &Header { kid: Some(kid.into()), typ: Some("JWT".into()), ..Header::default() })
}

/// Signs `claims` with `pair` as `header` says.
///
/// # Errors
/// The claims are not JSON, or the key is too small for the signature.
pub fn sign_with(
    claims: &impl Serialize,
    pair: &signature::RsaKeyPair,
    header: &Header,
) -> Result<String, JwsError> {
    let signed = format!("{}.{}", encode_json(header)?, encode_json(claims)?);
    let encoding: &dyn signature::RsaEncoding = match header.alg {
        Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
        Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
    };
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| JwsError::Signature)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encode_json(value: &impl Serialize) -> Result<String, JwsError> {
    serde_json::to_vec(value).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| JwsError::Malformed)
}

fn decode_json<T: DeserializeOwned>(part: &str) -> Result<T, JwsError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| JwsError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    type Any = Compact<serde_json::Value>;

    fn signed() -> (String, KeySet) {
        let issuer = StandIn::default();
        (issuer.sign(&serde_json::json!({"sub": "x"})), issuer.published())
    }

    #[test]
    fn what_was_signed_verifies() {
        let (token, keys) = signed();
        let compact = Any::parse(&token).unwrap();
        assert_eq!(compact.claims["sub"], "x");
        assert_eq!(compact.verify(&keys), Ok(()));
    }

    #[test]
    fn changed_claims_do_not_verify() {
        let (token, keys) = signed();
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"y"}"#);
        parts[1] = &forged;
        assert_eq!(Any::parse(&parts.join(".")).unwrap().verify(&keys), Err(JwsError::Signature));
    }

    #[test]
    fn algorithm_none_and_hmac_are_refused() {
        for alg in ["none", "HS256", "rs256", "ES256", "RS512"] {
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
            let token = format!("{header}.{}.", URL_SAFE_NO_PAD.encode("{}"));
            assert_eq!(Any::parse(&token).unwrap_err(), JwsError::Algorithm, "{alg}");
        }
    }

    #[test]
    fn garbage_is_malformed() {
        for garbage in ["", "a", "a.b", "a.b.c", "a.b.c.d", "....", "\u{e9}.x.y"] {
            assert_eq!(Any::parse(garbage).unwrap_err(), JwsError::Malformed, "{garbage:?}");
        }
    }

    #[test]
    fn an_unknown_key_id_is_told_from_a_bad_signature() {
        let (token, mut keys) = signed();
        keys.keys[0].kid = Some("other".into());
        assert_eq!(Any::parse(&token).unwrap().verify(&keys), Err(JwsError::UnknownKey));
    }
}
