//! What the API server says of a ServiceAccount's token, and what the token claims before it is asked. For which audiences, the caller
//! says.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use mailroute_operator_core::reports::ReportingPod;
use mailroute_route::jwt::{Bound, Claims};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api_error::ApiError;

/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prefix of the user name of a service account, before namespace and name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Where TokenReview names the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What names a token without being one.
pub(super) type TokenHash = [u8; 32];

pub(super) fn hash(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The ServiceAccount and the pod of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BoundTo {
    pub(super) service_account: String,
    pub(super) pod: ReportingPod,
}

/// Why a token is not reviewed.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Too many reviews under way.
    #[error("too many tokens are being checked")]
    Busy,
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    Late,
    /// The API server cannot be asked.
    #[error("the API server cannot check the token")]
    Api(#[source] ApiError),
}

/// Has the API server check tokens, so many at a time.
pub(super) struct TokenReviews {
    api: Api<TokenReview>,
    at_once: Semaphore,
}

impl TokenReviews {
    pub(super) fn new(client: Client, at_once: usize) -> Self {
        Self { api: Api::all(client), at_once: Semaphore::new(at_once) }
    }

    /// Whose token it is; nobody's when it is accepted for none of these audiences, or not bound to a pod.
    pub(super) async fn ask(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<BoundTo>, ReviewError> {
        let _permit = self.at_once.try_acquire().map_err(|_| ReviewError::Busy)?;
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(audiences.to_vec()), token: Some(token.to_owned()) },
            ..Default::default()
        };
        let parameters = PostParams::default();
        let answer = timeout(PATIENCE, self.api.create(&parameters, &review));
        let answer = answer.await.map_err(|_| ReviewError::Late)?;
        let status = answer.map_err(|error| ReviewError::Api(error.into()))?.status;
        Ok(status.as_ref().and_then(|status| bound_to(status, audiences)))
    }
}

/// The pod that an authenticated token is bound to.
fn bound_to(status: &TokenReviewStatus, audiences: &[String]) -> Option<BoundTo> {
    let is_for_us = status.audiences.iter().flatten().any(|audience| audiences.contains(audience));
    if status.authenticated != Some(true) || !is_for_us {
        return None;
    }
    let user = status.user.as_ref()?;
    let (namespace, account) = user.username.as_deref()?.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let extra = |key| user.extra.as_ref()?.get(key)?.first().cloned();
    Some(BoundTo {
        service_account: account.to_owned(),
        pod: ReportingPod { namespace: namespace.to_owned(), pod: extra(POD_NAME)?, uid: extra(POD_UID)? },
    })
}

/// The pod that a token claims to be bound to, when it is for one of the audiences that its namespace has to be for. Not to be trusted
/// until the API server has checked the token.
pub(super) fn claimed(token: &str, audiences: impl FnOnce(&str) -> Vec<String>) -> Option<Claimed> {
    let claims = Claims::of(token)?;
    let audiences = audiences(&claims.bound.namespace);
    let is_for_us = claims.are_for(&audiences);
    let Bound { namespace, pod } = claims.bound;
    let pod = pod?;
    is_for_us.then_some(Claimed { pod: ReportingPod { namespace, pod: pod.name, uid: pod.uid }, audiences })
}

/// What a token claims.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The pod that it is bound to.
    pub(super) pod: ReportingPod,
    /// The audiences of which it has to have one.
    pub(super) audiences: Vec<String>,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use mailroute_route::paths::{CONTROL_AUDIENCE, login_audiences};
    use std::collections::BTreeMap;

    use super::*;

    fn for_us() -> Vec<String> {
        vec![CONTROL_AUDIENCE.to_owned()]
    }

    fn status(authenticated: bool, audience: &str, user: &str, pod: Option<&str>) -> TokenReviewStatus {
        let extra = pod.map(|pod| {
            BTreeMap::from([
                (POD_NAME.to_owned(), vec![pod.to_owned()]),
                (POD_UID.to_owned(), vec![format!("{pod}-uid")]),
            ])
        });
        TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo { username: Some(user.to_owned()), extra, ..Default::default() }),
            error: None,
        }
    }

    #[test]
    fn a_token_bound_to_a_pod_names_it() {
        let status = status(true, CONTROL_AUDIENCE, "system:serviceaccount:shop:default", Some("web-1"));
        let pod = ReportingPod { namespace: "shop".into(), pod: "web-1".into(), uid: "web-1-uid".into() };
        let bound = BoundTo { service_account: "default".into(), pod };
        assert_eq!(bound_to(&status, &for_us()), Some(bound));
    }

    #[test]
    fn any_other_token_names_nobody() {
        let account = "system:serviceaccount:shop:default";
        for status in [
            status(false, CONTROL_AUDIENCE, account, Some("web-1")),
            status(true, "https://kubernetes.default.svc", account, Some("web-1")),
            status(true, "mailroute.dev/gateway/shop/mail", account, Some("web-1")),
            status(true, CONTROL_AUDIENCE, "admin", Some("web-1")),
            status(true, CONTROL_AUDIENCE, account, None),
            TokenReviewStatus::default(),
        ] {
            assert_eq!(bound_to(&status, &for_us()), None, "{status:?}");
        }
    }

    fn claim(claims: &str) -> Option<ReportingPod> {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        claimed(&token, |_| for_us()).map(|claimed| claimed.pod)
    }

    #[test]
    fn claims_name_a_pod_when_the_token_is_for_us() {
        let bound = r#""kubernetes.io":{"namespace":"shop","pod":{"name":"web-1","uid":"web-1-uid"}}"#;
        let expected =
            ReportingPod { namespace: "shop".into(), pod: "web-1".into(), uid: "web-1-uid".into() };
        for audience in [r#""mailroute.dev""#, r#"["mailroute.dev"]"#] {
            assert_eq!(claim(&format!(r#"{{"aud":{audience},{bound}}}"#)), Some(expected.clone()));
        }
        for other in [
            format!(r#"{{"aud":["https://kubernetes.default.svc"],{bound}}}"#),
            format!(r#"{{"aud":["mailroute.dev/gateway/shop/mail"],{bound}}}"#),
            r#"{"aud":["mailroute.dev"],"kubernetes.io":{"namespace":"shop"}}"#.to_owned(),
            "nonsense".to_owned(),
        ] {
            assert_eq!(claim(&other), None, "{other}");
        }
    }

    #[test]
    fn which_audience_it_takes_depends_on_the_namespace_that_the_token_claims() {
        let claim = |namespace: &str, audience: &str| {
            let bound = format!(r#"{{"namespace":"{namespace}","pod":{{"name":"web-1","uid":"1"}}}}"#);
            let claims = format!(r#"{{"aud":["{audience}"],"kubernetes.io":{bound}}}"#);
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
            claimed(&token, |client| login_audiences("shop", "mail", client)).is_some()
        };
        let named = "mailroute.dev/gateway/shop/mail";
        assert!(claim("shop", CONTROL_AUDIENCE) && claim("shop", named) && claim("legacy", named));
        assert!(!claim("legacy", CONTROL_AUDIENCE) && !claim("legacy", "mailroute.dev/gateway/legacy/mail"));
    }
}
