//! The built-in issuer for computers without a cluster: signs tokens that look like Kubernetes' projected ones.
//!
//! Its two RSA keys are **public test keys** that ship with the program: anybody can sign with them. It is trusted only
//! where a directory lists it.

use std::sync::LazyLock;

use jiff::Timestamp;
use ring::signature::RsaKeyPair;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Serialize;
use serde_json::json;

use crate::{
    directory::EXCHANGE_AUDIENCE,
    keys::jws::{self, Key, KeySet},
    random,
};

/// `iss` of its tokens.
pub use crate::keys::STAND_IN_ISSUER as ISSUER;

/// Key ids, in the order of use.
pub const KEY_IDS: [&str; 2] = ["public-test-key-1", "public-test-key-2"];

static KEYS: LazyLock<[RsaKeyPair; 2]> = LazyLock::new(|| {
    [include_bytes!("../keys/public-test-key-1.pem"), include_bytes!("../keys/public-test-key-2.pem")].map(
        |pem| {
            let der = PrivatePkcs8KeyDer::from_pem_slice(pem).expect("the shipped key is PEM");
            RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("the shipped key is an RSA key")
        },
    )
});

/// The issuer: which key signs, and which keys are published.
#[derive(Clone, Debug)]
pub struct StandIn {
    signing: usize,
    published: Vec<usize>,
}

impl Default for StandIn {
    fn default() -> Self {
        Self { signing: 0, published: vec![0] }
    }
}

impl StandIn {
    /// Signs with the other key from now on, and publishes it; the old one stays published when `keep_old`.
    pub fn rotate(&mut self, keep_old: bool) {
        let old = self.signing;
        self.signing = 1 - old;
        self.published = if keep_old { vec![old, self.signing] } else { vec![self.signing] };
    }

    /// The keys as its `jwks_uri` would serve them.
    #[must_use]
    pub fn published(&self) -> KeySet {
        KeySet { keys: self.published.iter().map(|&index| Key::of(&KEYS[index], KEY_IDS[index])).collect() }
    }

    /// Signs any claims.
    #[must_use]
    pub fn sign(&self, claims: &impl Serialize) -> String {
        jws::sign(claims, &KEYS[self.signing], KEY_IDS[self.signing]).expect("the shipped key can sign JSON")
    }

    /// A token like a projected service-account token for `subject`, valid from now for `seconds`, with the audience
    /// that Entra exchanges.
    #[must_use]
    pub fn assertion(&self, subject: &str, now: Timestamp, seconds: i64) -> String {
        self.token(ISSUER, subject, EXCHANGE_AUDIENCE, now.as_second(), seconds)
    }

    /// A token with every claim to choose, for tests of refusals.
    #[must_use]
    pub fn token(&self, issuer: &str, subject: &str, audience: &str, from: i64, seconds: i64) -> String {
        let mut parts = subject.rsplit(':');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        self.sign(&json!({
            "iss": issuer,
            "sub": subject,
            "aud": [audience],
            "iat": from,
            "nbf": from,
            "exp": from + seconds,
            "jti": random::guid(),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": random::guid()},
            },
        }))
    }
}
