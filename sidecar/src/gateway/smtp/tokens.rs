//! ServiceAccount tokens as passwords: pods log in with a projected token, whatever the user name. Its audience is `mailroute.dev` in
//! the gateway's own namespace, and names the gateway everywhere else.
//!
//! Owns what looks like such a token, and which namespaces' are taken. Whether it is one, the operator has the API server say. Nothing is
//! asked about a token that says itself that it is for somebody else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::control::ReviewReply;
use mailroute_route::jwt::{Claims, is_jwt};
use mailroute_route::paths::login_audiences;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::config::Config;
use crate::secret::Secret;

/// Most reviews at once.
const MAX_REVIEWS: usize = 4;

/// Longest time for a review, waiting for its turn included.
const REVIEW_TIME: Duration = Duration::from_secs(15);

/// Why a token is refused that is for somebody else.
const OTHER_AUDIENCE: &str = "a token of another audience";
const GATEWAY_NOT_NAMED: &str = "a token of another namespace whose audience does not name this gateway";

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
    /// With the route, whose gateway this is.
    config: watch::Receiver<Config>,
    review: Option<Arc<dyn ReviewTokens>>,
    turns: Semaphore,
}

impl Tokens {
    pub(super) fn new(
        namespaces: Vec<String>,
        config: watch::Receiver<Config>,
        review: Option<Arc<dyn ReviewTokens>>,
    ) -> Self {
        Self { namespaces, config, review, turns: Semaphore::new(MAX_REVIEWS) }
    }

    /// Whether a password is to be taken for a token: it has the form of a signed JWT whose header is an object.
    pub(super) fn may_be(&self, password: &Secret) -> bool {
        let text = password.expose();
        !self.namespaces.is_empty() && text.starts_with("eyJ") && is_jwt(text)
    }

    /// The ServiceAccount whose token it is, as `NAMESPACE/NAME`.
    pub(super) async fn verify(&self, token: &Secret) -> Result<Arc<str>, TokenError> {
        let claims = Claims::of(token.expose()).ok_or(TokenError::Refused("no token of a ServiceAccount"))?;
        let client = &claims.bound.namespace;
        self.admit(client)?;
        let unavailable = |what: &str| TokenError::Unavailable(what.to_owned());
        let route =
            self.config.borrow().route.clone().ok_or_else(|| unavailable("there is no valid route"))?;
        if !claims.are_for(&login_audiences(&route.namespace, &route.name, client)) {
            let is_own = *client == route.namespace;
            return Err(TokenError::Refused(if is_own { OTHER_AUDIENCE } else { GATEWAY_NOT_NAMED }));
        }
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

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::config;

    /// The gateway of the route `notifications` in the namespace `shop`.
    pub(crate) fn gateway() -> watch::Receiver<Config> {
        let route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        watch::channel(Config { route: Some(Arc::new(route)), ..Config::default() }).1
    }

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
        Tokens::new(vec!["shop".into(), "legacy".into()], gateway(), Some(Arc::clone(reviewer) as _))
    }

    const NAMED: &str = "mailroute.dev/gateway/shop/notifications";

    #[tokio::test]
    async fn the_token_of_a_namespace_that_is_listed_is_taken() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let tokens = tokens(&reviewer);
        for audience in ["mailroute.dev", NAMED] {
            let token = token(audience, "shop");
            assert!(tokens.may_be(&token));
            assert_eq!(tokens.verify(&token).await.as_deref(), Ok("shop/web"));
        }
    }

    #[tokio::test]
    async fn a_token_of_another_namespace_has_to_name_the_gateway() {
        let reviewer = Reviewer::new(Ok(Some(("legacy", "web"))));
        let tokens = tokens(&reviewer);
        assert_eq!(tokens.verify(&token(NAMED, "legacy")).await.as_deref(), Ok("legacy/web"));
        for other in
            ["mailroute.dev", "mailroute.dev/gateway/legacy/notifications", "mailroute.dev/gateway/shop/mail"]
        {
            let refused = tokens.verify(&token(other, "legacy")).await;
            assert_eq!(refused, Err(TokenError::Refused(GATEWAY_NOT_NAMED)), "{other}");
        }
        assert_eq!(*reviewer.asked.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn nobody_is_asked_about_a_token_for_somebody_else() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let tokens = tokens(&reviewer);
        for (token, why) in [
            (token("https://kubernetes.default.svc", "shop"), OTHER_AUDIENCE),
            (token("mailroute.dev/gateway/shop/mail", "shop"), OTHER_AUDIENCE),
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
        assert!(!Tokens::new(vec![], gateway(), None).may_be(&token("mailroute.dev", "shop")));
    }
}
