//! Public keys: where an issuer's come from, and when they are fetched again; signatures with them; an application's own
//! certificate.
//!
//! Pure: descriptions and the decision. The fetching is in [`crate::token_endpoint`].

pub mod client_certificate;
pub mod jws;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use jws::KeySet;

/// `iss` of the tokens of the built-in issuer, whose keys are [`KeySource::StandIn`].
pub const STAND_IN_ISSUER: &str = "https://stand-in-issuer.invalid/";

/// Where signing keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeySource {
    /// The built-in issuer with public test keys.
    StandIn,
    /// The JWKS itself.
    Inline(KeySet),
    /// A file with a JWKS.
    File(PathBuf),
    /// An HTTPS address that serves a JWKS.
    Url(Remote),
    /// An HTTPS address that serves an OpenID Connect discovery document; it names the issuer and the address of the
    /// JWKS. In a cluster: `https://kubernetes.default.svc/.well-known/openid-configuration`.
    Discovery(Remote),
}

/// An HTTPS address and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remote {
    /// The address.
    pub url: String,
    /// For a discovery document: an address for the JWKS that takes the place of its `jwks_uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_url: Option<String>,
    /// CA bundle (PEM) that its certificate must chain to; absent means the public web's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token, read anew for each fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
}

/// Keys as they were fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The `iss` of the issuer's tokens.
    pub issuer: String,
    /// Its keys.
    pub keys: KeySet,
    /// When they were asked for.
    pub at: Timestamp,
}

impl KeySource {
    /// Whether fetching the keys also tells the issuer's identifier.
    #[must_use]
    pub fn names_its_issuer(&self) -> bool {
        matches!(self, Self::Discovery(_) | Self::StandIn)
    }
}

impl Fetched {
    /// Whether to fetch again because a token names a key that is not among these. At most once per `interval` seconds,
    /// so that a stream of forged tokens does not become a stream of requests.
    #[must_use]
    pub fn is_stale_for(&self, kid: Option<&str>, now: Timestamp, interval: u64) -> bool {
        let interval = SignedDuration::from_secs(i64::try_from(interval).unwrap_or(i64::MAX / 1_000));
        !self.keys.has(kid) && now.duration_since(self.at) >= interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{KEY_IDS, StandIn};

    fn fetched() -> Fetched {
        Fetched {
            issuer: "i".into(),
            keys: StandIn::default().published(),
            at: Timestamp::from_second(1_000).unwrap(),
        }
    }

    #[test]
    fn a_known_key_is_never_fetched_again() {
        let later = Timestamp::from_second(1_000_000).unwrap();
        assert!(!fetched().is_stale_for(Some(KEY_IDS[0]), later, 10));
    }

    #[test]
    fn an_unknown_key_is_fetched_once_per_interval() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!fetched().is_stale_for(Some(KEY_IDS[1]), at(1_009), 10));
        assert!(fetched().is_stale_for(Some(KEY_IDS[1]), at(1_010), 10));
    }
}
