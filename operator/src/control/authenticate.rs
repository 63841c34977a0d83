//! From a bearer token to the pod it was issued for.
//!
//! The API server checks the token (TokenReview, audience `mailroute.dev`) and names the pod it is bound to. Answers are
//! kept for a minute under the token's hash, refusals too, so that a loud or wrong caller does not become load on the API
//! server. The token itself is neither kept nor printed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use mailroute_route::paths::CONTROL_AUDIENCE;
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::lock;
use super::reports::Caller;
use crate::api_error::ApiError;
use crate::crd::ROUTE_LABEL;

/// How long an answer of the API server is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Answers kept at most.
const KEPT: usize = 16_384;

/// Reviews under way at a time; more callers are told to come back.
const AT_ONCE: usize = 32;

/// A caller does not wait longer for the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest token that is looked at, bytes. A projected token has about one thousand.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Prefix of the user name of a service account, before namespace and name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Where TokenReview names the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is not one of a pod for this service.
    #[error("the token is not a valid token of a pod with the audience {CONTROL_AUDIENCE}")]
    Rejected,
    /// Too many reviews under way.
    #[error("too many tokens are being checked")]
    Busy,
    /// The API server did not answer in time.
    #[error("the API server does not answer in time")]
    Late,
    /// The API server cannot be asked.
    #[error("cannot ask the API server to check the token")]
    Api(#[source] ApiError),
}

/// Checks tokens.
pub struct Authenticator {
    api: Api<TokenReview>,
    at_once: Semaphore,
    answers: Mutex<Answers>,
}

impl Authenticator {
    /// Checks tokens with this client's API server.
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client), at_once: Semaphore::new(AT_ONCE), answers: Mutex::default() }
    }

    /// The pod that a token was issued for.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a token that is not of a pod; the others when it could not be checked.
    pub async fn caller(&self, token: &str) -> Result<Caller, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(Error::Rejected);
        }
        let hash = hash(token);
        if let Some(answer) = self.kept(&hash) {
            return answer.ok_or(Error::Rejected);
        }
        let answer = self.review(token).await?;
        self.keep(hash, answer.clone());
        answer.ok_or(Error::Rejected)
    }

    async fn review(&self, token: &str) -> Result<Option<Caller>, Error> {
        let _permit = self.at_once.try_acquire().map_err(|_| Error::Busy)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![CONTROL_AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..Default::default()
        };
        let parameters = PostParams::default();
        let answer =
            timeout(PATIENCE, self.api.create(&parameters, &review)).await.map_err(|_| Error::Late)?;
        Ok(answer.map_err(|error| Error::Api(error.into()))?.status.as_ref().and_then(pod_of))
    }

    fn kept(&self, hash: &Hash) -> Option<Option<Caller>> {
        lock(&self.answers).find(hash, Instant::now())
    }

    fn keep(&self, hash: Hash, answer: Option<Caller>) {
        lock(&self.answers).keep(hash, answer, Instant::now());
    }
}

/// Whether a caller is a pod that there is, with the label of the route that it names: what is a pod's own goes to no other pod.
pub fn is_pod_of(caller: &Caller, pods: &Store<Pod>, route: &str) -> bool {
    let pod = pods.get(&ObjectRef::new(&caller.pod).within(&caller.namespace));
    pod.is_some_and(|pod| {
        pod.uid().as_deref() == Some(&caller.uid)
            && pod.labels().get(ROUTE_LABEL).map(String::as_str) == Some(route)
    })
}

type Hash = [u8; 32];

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The pod that an authenticated token is bound to.
fn pod_of(status: &TokenReviewStatus) -> Option<Caller> {
    let for_us = status.audiences.iter().flatten().any(|audience| audience == CONTROL_AUDIENCE);
    if status.authenticated != Some(true) || !for_us {
        return None;
    }
    let user = status.user.as_ref()?;
    let (namespace, _) = user.username.as_deref()?.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let extra = |key| user.extra.as_ref()?.get(key)?.first().cloned();
    Some(Caller { namespace: namespace.to_owned(), pod: extra(POD_NAME)?, uid: extra(POD_UID)? })
}

/// What the API server said of tokens, for a while.
#[derive(Default)]
struct Answers(HashMap<Hash, (Instant, Option<Caller>)>);

impl Answers {
    fn find(&self, hash: &Hash, now: Instant) -> Option<Option<Caller>> {
        let (at, answer) = self.0.get(hash)?;
        (now.duration_since(*at) < KEEP).then(|| answer.clone())
    }

    fn keep(&mut self, hash: Hash, answer: Option<Caller>, now: Instant) {
        if self.0.len() >= KEPT {
            self.0.retain(|_, (at, _)| now.duration_since(*at) < KEEP);
        }
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(hash, (now, answer));
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
        let caller = Caller { namespace: "shop".into(), pod: "web-1".into(), uid: "web-1-uid".into() };
        assert_eq!(pod_of(&status), Some(caller));
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
            assert_eq!(pod_of(&status), None, "{status:?}");
        }
    }

    #[test]
    fn an_answer_is_kept_for_a_minute_and_the_number_is_bounded() {
        let (mut answers, start) = (Answers::default(), Instant::now());
        answers.keep(hash("token"), None, start);
        assert_eq!(answers.find(&hash("token"), start + Duration::from_secs(59)), Some(None));
        assert_eq!(answers.find(&hash("token"), start + Duration::from_secs(60)), None);
        for token in 0..2 * KEPT {
            answers.keep(hash(&token.to_string()), None, start);
            assert!(answers.0.len() <= KEPT);
        }
    }
}
