//! What the API server says of a ServiceAccount's token, and what the token claims before it is asked.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use mailroute_operator_core::reports::ReportingPod;
use mailroute_route::paths::CONTROL_AUDIENCE;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api_error::ApiError;

/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest token that is looked at, bytes. A projected token has about one thousand.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

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

    /// Whose token it is; nobody's when it is not accepted for us, or not bound to a pod.
    pub(super) async fn ask(&self, token: &str) -> Result<Option<BoundTo>, ReviewError> {
        let _permit = self.at_once.try_acquire().map_err(|_| ReviewError::Busy)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![CONTROL_AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..Default::default()
        };
        let parameters = PostParams::default();
        let answer = timeout(PATIENCE, self.api.create(&parameters, &review));
        let answer = answer.await.map_err(|_| ReviewError::Late)?;
        Ok(answer.map_err(|error| ReviewError::Api(error.into()))?.status.as_ref().and_then(bound_to))
    }
}

/// The pod that an authenticated token is bound to.
fn bound_to(status: &TokenReviewStatus) -> Option<BoundTo> {
    let for_us = status.audiences.iter().flatten().any(|audience| audience == CONTROL_AUDIENCE);
    if status.authenticated != Some(true) || !for_us {
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

/// The pod that a token claims to be bound to, when it is for us. Not to be trusted until the API server has checked the token.
pub(super) fn claimed(token: &str) -> Option<ReportingPod> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    Claims::of(token).and_then(Claims::pod)
}

/// The claims of a token (RFC 7519), as Kubernetes writes them.
#[derive(Deserialize)]
struct Claims {
    aud: Audiences,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Bound {
    namespace: String,
    pod: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: String,
}

impl Claims {
    fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn pod(self) -> Option<ReportingPod> {
        let is_for_us = match &self.aud {
            Audiences::One(audience) => audience == CONTROL_AUDIENCE,
            Audiences::Many(audiences) => audiences.iter().any(|audience| audience == CONTROL_AUDIENCE),
        };
        let Bound { namespace, pod: Named { name, uid } } = self.kubernetes;
        is_for_us.then_some(ReportingPod { namespace, pod: name, uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use std::collections::BTreeMap;

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
        assert_eq!(bound_to(&status), Some(bound));
    }

    #[test]
    fn any_other_token_names_nobody() {
        let account = "system:serviceaccount:shop:default";
        for status in [
            status(false, CONTROL_AUDIENCE, account, Some("web-1")),
            status(true, "https://kubernetes.default.svc", account, Some("web-1")),
            status(true, CONTROL_AUDIENCE, "admin", Some("web-1")),
            status(true, CONTROL_AUDIENCE, account, None),
            TokenReviewStatus::default(),
        ] {
            assert_eq!(bound_to(&status), None, "{status:?}");
        }
    }

    fn claim(claims: &str) -> Option<ReportingPod> {
        claimed(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
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
            r#"{"aud":["mailroute.dev"],"kubernetes.io":{"namespace":"shop"}}"#.to_owned(),
            "{}".to_owned(),
            "nonsense".to_owned(),
        ] {
            assert_eq!(claim(&other), None, "{other}");
        }
        assert!(claimed("no dots").is_none() && claimed("e30.!.c2ln").is_none() && claimed("").is_none());
    }
}
