//! Access tokens: opaque to clients, verifiable by the submission face.
//!
//! They look like Microsoft's (a JWT of one to two kilobytes) but are signed with a key that lives as long as the
//! process. Pure apart from that key; time is passed in. A token's text appears in no `Debug`, log or error.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Credential;
use crate::{mailbox::TokenClaims, random};

/// Signs and verifies access tokens.
pub struct AccessTokenKey(hmac::Key);

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The resource it is for.
    pub aud: String,
    /// Tenant id.
    pub tid: String,
    /// Client id of the application.
    pub appid: String,
    /// Object id of the service principal.
    pub oid: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Expires, seconds since 1970.
    pub exp: i64,
    /// Issuer of the exchanged assertion.
    pub assertion_iss: String,
    /// Subject of the exchanged assertion.
    pub assertion_sub: String,
    /// What it was issued for.
    #[serde(default)]
    pub credential: Credential,
    /// Application permissions at the resource, such as `Mail.Send`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Makes the token as long as a real one.
    pub uti: String,
}

/// Why a token is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not made by this simulator since its start.
    #[error("the access token was not issued here")]
    Foreign,
    /// For another resource.
    #[error("the access token is for another resource")]
    Audience,
    /// Its time is over.
    #[error("the access token expired {seconds} seconds ago")]
    Expired {
        /// How long ago.
        seconds: i64,
    },
}

impl AccessTokenKey {
    /// A new key; tokens of earlier ones are foreign to it.
    #[must_use]
    pub fn generate() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()))
    }

    /// Issues a token.
    #[must_use]
    pub fn issue(&self, claims: &AccessClaims) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256"}"#);
        let claims = serde_json::to_vec(claims).expect("strings and numbers are JSON");
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Checks a token for use at `resource` now.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str, resource: &str, now: Timestamp) -> Result<AccessClaims, TokenError> {
        let claims = self.authentic(token).ok_or(TokenError::Foreign)?;
        if claims.aud != resource {
            return Err(TokenError::Audience);
        }
        if claims.exp <= now.as_second() {
            return Err(TokenError::Expired { seconds: now.as_second() - claims.exp });
        }
        Ok(claims)
    }

    fn authentic(&self, token: &str) -> Option<AccessClaims> {
        let (signed, tag) = token.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &tag).ok()?;
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

impl fmt::Debug for AccessTokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AccessTokenKey")
    }
}

impl From<AccessClaims> for TokenClaims {
    fn from(claims: AccessClaims) -> Self {
        Self {
            tenant: claims.tid,
            client_id: claims.appid,
            credential: Some(claims.credential),
            assertion_issuer: claims.assertion_iss,
            assertion_subject: claims.assertion_sub,
            issued_at: claims.iat,
            expires_at: claims.exp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "https://outlook.office365.com";

    fn claims() -> AccessClaims {
        AccessClaims {
            aud: RESOURCE.into(),
            tid: "t".into(),
            appid: "a".into(),
            oid: "o".into(),
            iat: 1_000,
            exp: 2_000,
            assertion_iss: "i".into(),
            assertion_sub: "s".into(),
            credential: Credential::Federated,
            roles: Vec::new(),
            uti: "u".into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_good_until_its_last_second() {
        let key = AccessTokenKey::generate();
        let token = key.issue(&claims());
        assert_eq!(key.verify(&token, RESOURCE, at(1_999)), Ok(claims()));
        assert_eq!(key.verify(&token, RESOURCE, at(2_000)), Err(TokenError::Expired { seconds: 0 }));
    }

    #[test]
    fn another_resource_or_key_is_refused() {
        let key = AccessTokenKey::generate();
        let token = key.issue(&claims());
        assert_eq!(key.verify(&token, "https://graph.microsoft.com", at(1_500)), Err(TokenError::Audience));
        assert_eq!(AccessTokenKey::generate().verify(&token, RESOURCE, at(1_500)), Err(TokenError::Foreign));
    }

    #[test]
    fn garbage_is_foreign() {
        let key = AccessTokenKey::generate();
        for garbage in ["", ".", "..", "a.b.c", "\u{e9}"] {
            assert_eq!(key.verify(garbage, RESOURCE, at(0)), Err(TokenError::Foreign), "{garbage:?}");
        }
    }
}
