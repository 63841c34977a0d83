//! What a token says of itself (RFC 7519). Nothing here is verified: whoever trusts a token has the API server review it, or Entra.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest token that is looked at, bytes. A projected token has one or two thousand.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Whether a text has the form of a signed JWT (RFC 7515 §7.1) of at most [`MAX_TOKEN_BYTES`].
pub fn is_jwt(text: &str) -> bool {
    let mut parts = text.split('.');
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= MAX_TOKEN_BYTES && parts.clone().count() == 3 && parts.all(is_part)
}

/// The payload of a token; nothing when it cannot be read as a `T`.
pub fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

/// Whom a token is for: the claim `aud`, which is one name or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Audiences(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Audiences {
    fn from(audiences: OneOrMany) -> Self {
        match audiences {
            OneOrMany::One(audience) => Self(vec![audience]),
            OneOrMany::Many(audiences) => Self(audiences),
        }
    }
}

/// The claims of a ServiceAccount's token, as Kubernetes writes them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Whom it is for.
    #[serde(rename = "aud")]
    pub audiences: Audiences,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// The namespace of a ServiceAccount, and the pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Bound {
    /// The namespace.
    pub namespace: String,
    /// The pod; none for a token that `kubectl create token` made.
    pub pod: Option<BoundPod>,
}

/// A pod, as a token names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Claims {
    /// Reads them; nothing when the text is no token of a ServiceAccount.
    pub fn of(token: &str) -> Option<Self> {
        is_jwt(token).then(|| payload(token))?
    }

    /// Whether the token is for one of these audiences.
    pub fn are_for(&self, audiences: &[impl AsRef<str>]) -> bool {
        audiences.iter().any(|audience| self.audiences.0.iter().any(|own| own == audience.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn bound(pod: Option<(&str, &str)>) -> Value {
        match pod {
            Some((name, uid)) => json!({"namespace": "shop", "pod": {"name": name, "uid": uid}}),
            None => json!({"namespace": "shop", "serviceaccount": {"name": "default", "uid": "7"}}),
        }
    }

    #[test]
    fn claims_that_were_written_are_read_again() {
        for (audiences, pod) in [
            (json!("mailroute.dev"), Some(("web-0", "uid-1"))),
            (json!(["mailroute.dev"]), None),
            (json!(["other", "mailroute.dev"]), Some(("web-0", "uid-1"))),
        ] {
            let claims = Claims::of(&token(&json!({"aud": audiences, "kubernetes.io": bound(pod)}))).unwrap();
            assert_eq!(claims.bound.namespace, "shop");
            let found = claims.bound.pod.as_ref().map(|pod| (pod.name.as_str(), pod.uid.as_str()));
            assert_eq!(found, pod);
            assert!(claims.are_for(&["x", "mailroute.dev"]) && !claims.are_for(&["mailroute"]));
        }
    }

    #[test]
    fn what_is_no_token_of_a_service_account_has_no_claims() {
        let good = token(&json!({"aud": ["mailroute.dev"], "kubernetes.io": bound(None)}));
        assert!(Claims::of(&good).is_some());
        for other in [
            String::new(),
            "no dots".into(),
            "e30.e30.e30".into(),
            "e30.!.c2ln".into(),
            "7".into(),
            token(&json!({"aud": ["mailroute.dev"]})),
            token(&json!({"aud": 7, "kubernetes.io": bound(None)})),
            token(&json!({"aud": "a", "kubernetes.io": {"namespace": "shop", "pod": {"name": "web-0"}}})),
            format!("{good}\n"),
            format!("{good}.{good}"),
            format!("{good}{}", "c".repeat(MAX_TOKEN_BYTES)),
        ] {
            assert_eq!(Claims::of(&other), None, "{other}");
        }
    }

    #[test]
    fn a_password_is_no_jwt() {
        assert!(is_jwt("e30.e30.c2ln") && is_jwt("eyJ.a-_.b"));
        for password in [
            "",
            "hunter2",
            "a.b",
            "a..c",
            "a.b.c.d",
            "a.b.c d",
            &format!("a.b.{}", "c".repeat(MAX_TOKEN_BYTES)),
        ] {
            assert!(!is_jwt(password), "{password}");
        }
    }
}
