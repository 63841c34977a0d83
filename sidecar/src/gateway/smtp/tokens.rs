//! ServiceAccount tokens as passwords: pods log in with the projected token of audience `mailroute.dev`, whatever the user name.
//!
//! Owns what looks like such a token, and which namespaces' are taken. Whether it is one, the operator has the API server say. Nothing is
//! asked about a token that says itself that it is for somebody else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailroute_route::control::ReviewReply;
use mailroute_route::paths::CONTROL_AUDIENCE;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::secret::Secret;

/// Longest token, bytes. A projected token has one or two thousand.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most reviews at once.
const MAX_REVIEWS: usize = 4;

/// Longest time for a review, waiting for its turn included.
const REVIEW_TIME: Duration = Duration::from_secs(15);

/// Has tokens reviewed.
#[async_trait]
pub trait ReviewTokens: Send + Sync {
    /// Whose token it is; nobody's when the API server refuses it.
    ///
    /// # Errors
    /// When that cannot be checked now; says why, free of secrets.
    async fn review(&self, token: &Secret) -> Result<Option<ReviewReply>, String>;
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// It is refused; says why.
    Refused(&'static str),
    /// It cannot be checked now; says why.
    Unavailable(String),
}

/// Which tokens are taken.
pub(super) struct Tokens {
    namespaces: Vec<String>,
    review: Option<Arc<dyn ReviewTokens>>,
    turns: Semaphore,
}

impl Tokens {
    pub(super) fn new(namespaces: Vec<String>, review: Option<Arc<dyn ReviewTokens>>) -> Self {
        Self { namespaces, review, turns: Semaphore::new(MAX_REVIEWS) }
    }

    /// Whether a password is to be taken for a token.
    pub(super) fn may_be(&self, password: &Secret) -> bool {
        !self.namespaces.is_empty() && is_token(password.expose())
    }

    /// The ServiceAccount whose token it is, as `NAMESPACE/NAME`.
    pub(super) async fn verify(&self, token: &Secret) -> Result<Arc<str>, TokenError> {
        let claims = Claims::of(token.expose()).ok_or(TokenError::Refused("no token of a ServiceAccount"))?;
        if !claims.audiences().any(|audience| audience == CONTROL_AUDIENCE) {
            return Err(TokenError::Refused("a token of another audience"));
        }
        self.admit(&claims.kubernetes.namespace)?;
        let unavailable = |what: &str| TokenError::Unavailable(what.to_owned());
        let review = self.review.as_ref().ok_or_else(|| unavailable("the route has no control service"))?;
        let reviewed = async {
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            review.review(token).await
        };
        let reviewed = timeout(REVIEW_TIME, reviewed).await.map_err(|_| unavailable("no answer in time"))?;
        match reviewed {
            Ok(Some(reply)) => {
                self.admit(&reply.namespace)?;
                Ok(format!("{}/{}", reply.namespace, reply.service_account).into())
            }
            Ok(None) => Err(TokenError::Refused("a token that the API server refuses")),
            Err(error) => Err(TokenError::Unavailable(error)),
        }
    }

    fn admit(&self, namespace: &str) -> Result<(), TokenError> {
        let is_ours = self.namespaces.iter().any(|ours| ours == namespace);
        is_ours.then_some(()).ok_or(TokenError::Refused("a token of another namespace"))
    }
}

/// Whether a password has the form of a ServiceAccount's token: a signed JWT whose header is an object.
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && is_jwt(text)
}

/// Whether it has the form of a signed JWT (RFC 7515 §7.1) of at most 8 KiB.
pub(in crate::gateway) fn is_jwt(text: &str) -> bool {
    let mut parts = text.split('.');
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= MAX_TOKEN_BYTES && parts.clone().count() == 3 && parts.all(is_part)
}

/// What a token says of itself.
#[derive(Debug, Deserialize)]
pub struct Claims {
    aud: Audience,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
}

impl Claims {
    /// Reads them; nothing of it is verified.
    pub fn of(token: &str) -> Option<Self> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    fn audiences(&self) -> impl Iterator<Item = &str> {
        match &self.aud {
            Audience::One(audience) => std::slice::from_ref(audience),
            Audience::Several(audiences) => audiences.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A token that says this of itself; nobody has signed it.
    pub(crate) fn token(audience: &str, namespace: &str) -> Secret {
        let claims = serde_json::json!({ "aud": [audience], "kubernetes.io": { "namespace": namespace } });
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        Secret::new(format!("{}.{}.c2lnbmVk", part(r#"{"alg":"RS256"}"#), part(&claims.to_string())))
    }

    /// Says the same of every token, and counts them.
    pub(crate) struct Reviewer {
        pub(crate) reply: Result<Option<ReviewReply>, String>,
        pub(crate) asked: Mutex<usize>,
    }

    impl Reviewer {
        pub(crate) fn new(reply: Result<Option<(&str, &str)>, &str>) -> Arc<Self> {
            let reply = reply.map_err(str::to_owned).map(|whose| {
                whose.map(|(namespace, service_account)| ReviewReply {
                    namespace: namespace.into(),
                    service_account: service_account.into(),
                    pod: "pod-0".into(),
                })
            });
            Arc::new(Self { reply, asked: Mutex::default() })
        }
    }

    #[async_trait]
    impl ReviewTokens for Reviewer {
        async fn review(&self, _: &Secret) -> Result<Option<ReviewReply>, String> {
            *self.asked.lock().unwrap() += 1;
            self.reply.clone()
        }
    }

    fn tokens(reviewer: &Arc<Reviewer>) -> Tokens {
        Tokens::new(vec!["shop".into()], Some(Arc::clone(reviewer) as _))
    }

    #[tokio::test]
    async fn the_token_of_a_namespace_that_is_listed_is_taken() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let (tokens, token) = (tokens(&reviewer), token("mailroute.dev", "shop"));
        assert!(tokens.may_be(&token));
        assert_eq!(tokens.verify(&token).await.as_deref(), Ok("shop/web"));
    }

    #[tokio::test]
    async fn nobody_is_asked_about_a_token_for_somebody_else() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let tokens = tokens(&reviewer);
        for (token, why) in [
            (token("https://kubernetes.default.svc", "shop"), "a token of another audience"),
            (token("mailroute.dev", "other"), "a token of another namespace"),
            (Secret::new("eyJ.e30.x".into()), "no token of a ServiceAccount"),
        ] {
            assert_eq!(tokens.verify(&token).await, Err(TokenError::Refused(why)));
        }
        assert_eq!(*reviewer.asked.lock().unwrap(), 0);
    }

    #[tokio::test]
    async fn what_the_api_server_says_counts_and_not_what_the_token_says() {
        let token = token("mailroute.dev", "shop");
        for (reply, expected) in [
            (Ok(Some(("other", "web"))), TokenError::Refused("a token of another namespace")),
            (Ok(None), TokenError::Refused("a token that the API server refuses")),
            (Err("away"), TokenError::Unavailable("away".into())),
        ] {
            assert_eq!(tokens(&Reviewer::new(reply)).verify(&token).await, Err(expected));
        }
    }

    #[test]
    fn a_password_is_no_token_and_where_none_are_taken_a_token_is_a_password() {
        let reviewer = Reviewer::new(Ok(None));
        for password in ["secret", "eyJ.a", "eyJ.a.b.c", "eyJ..b", "eyJ.a b.c", ""] {
            assert!(!tokens(&reviewer).may_be(&Secret::new(password.into())), "{password}");
        }
        assert!(!Tokens::new(vec![], None).may_be(&token("mailroute.dev", "shop")));
    }
}
