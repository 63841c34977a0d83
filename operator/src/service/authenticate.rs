//! From a bearer token to the pod it was issued for.
//!
//! What a token claims is read first, without trust in it: it has to name a pod that is watched, and the request has to come
//! from an address of that pod. Then the API server checks the token (TokenReview, audience `mailroute.dev`) and names the
//! pod it is bound to. Of each pod one accepted and one refused token are remembered for a minute, by their hash. So a caller
//! that is no pod of ours costs the API server nothing, and a pod can use up its own reviews only. The token itself is
//! neither kept nor printed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use kube::Client;
use mailroute_operator_core::crd::ROUTE_LABEL;
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::reports::ReportingPod;
use mailroute_quota::server::limits::SidecarId;
use mailroute_route::identity::Role;
use mailroute_route::paths::CONTROL_AUDIENCE;
use tokio::time::sleep;

use super::ids::sidecar_id;
use super::token_review::{Claimed, ReviewError, TokenHash, TokenReviews, claimed, hash};
use crate::cache::pods::PodStore;
use crate::lock;
use crate::rate_limit::RateLimit;

/// How long an answer of the API server is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Reviews for one pod that may come at once. Its token needs one a minute.
const BURST: u32 = 10;

/// Time after which one more review is allowed.
const REFILL: Duration = Duration::from_secs(10);

/// A sidecar that has just started waits this long for the kubelet to publish the address of its pod.
const ADDRESSED_WITHIN: Duration = Duration::from_secs(3);

/// How often the watched pod is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Reviews under way at a time; more callers are told to come back.
const AT_ONCE: usize = 32;

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is not one of a pod for this service.
    #[error("the token is not a valid token of a pod with the audience {CONTROL_AUDIENCE}")]
    Rejected,
    /// The token claims to be of a pod that is not watched.
    #[error("there is no pod with the name and uid of the token and the label {ROUTE_LABEL}")]
    Unknown,
    /// The token claims to be of a pod, and does not come from it.
    #[error("the request comes from {0}, which is not an address of the pod in the token")]
    Elsewhere(IpAddr),
    /// The pod is watched and has no address yet.
    #[error("the pod has no address yet")]
    Unaddressed,
    /// Pods are still being listed.
    #[error("the operator has just started and does not know all pods yet")]
    NotSynced,
    /// The token could not be reviewed, or too many of this pod's are.
    #[error(transparent)]
    Review(#[from] ReviewError),
}

impl Error {
    /// What became of the request, a closed set for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Rejected => "unauthenticated",
            Self::Unknown | Self::Elsewhere(_) => "forbidden",
            Self::Unaddressed | Self::NotSynced | Self::Review(_) => "unavailable",
        }
    }

    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Rejected => StatusCode::UNAUTHORIZED,
            Self::Unknown | Self::Elsewhere(_) => StatusCode::FORBIDDEN,
            Self::Unaddressed | Self::NotSynced | Self::Review(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Checks tokens.
pub struct Authenticator {
    reviews: TokenReviews,
    pods: PodStore,
    /// Whether a request has to come from an address of the pod.
    checks_address: bool,
    reviewed: Mutex<Reviewed>,
}

impl Authenticator {
    /// Checks the tokens of these pods with this client's API server. `checks_address` is off in clusters that translate
    /// the addresses of pods on the way to other pods.
    pub fn new(client: Client, pods: PodStore, checks_address: bool) -> Self {
        let reviews = TokenReviews::new(client, AT_ONCE);
        Self { reviews, pods, checks_address, reviewed: Mutex::default() }
    }

    /// The pod that a token was issued for, which is the one that sends it, `from` its address.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Unknown`] and [`Error::Elsewhere`] for a token that is not the sender's own; the others
    /// when it could not be checked.
    pub async fn caller(&self, token: &str, from: IpAddr) -> Result<ReportingPod, Error> {
        // A token that is good at a gateway is for other ears than ours.
        let claimed = claimed(token, |_| vec![CONTROL_AUDIENCE.to_owned()]);
        let Claimed { pod: claimed, audiences } = claimed.ok_or(Error::Rejected)?;
        self.is_from(&claimed, from).await?;
        let hash = hash(token);
        if let Some(is_accepted) = lock(&self.reviewed).find(&claimed.uid, &hash, Instant::now()) {
            return if is_accepted { Ok(claimed) } else { Err(Error::Rejected) };
        }
        if !lock(&self.reviewed).allows(&claimed.uid, Instant::now()) {
            return Err(ReviewError::Busy.into());
        }
        let bound = self.reviews.ask(token, &audiences).await?;
        let is_accepted = bound.is_some_and(|bound| bound.pod == claimed);
        lock(&self.reviewed).keep(&claimed.uid, hash, is_accepted, Instant::now());
        if is_accepted { Ok(claimed) } else { Err(Error::Rejected) }
    }

    /// Whether the pod that a token claims to be of is watched and is at this address. Asks nobody.
    async fn is_from(&self, claimed: &ReportingPod, from: IpAddr) -> Result<(), Error> {
        if !self.pods.filled().await {
            return Err(Error::NotSynced);
        }
        let began = Instant::now();
        loop {
            let pod = find(claimed, &self.pods).ok_or(Error::Unknown)?;
            let mut known = pod.addresses().peekable();
            if !self.checks_address {
                return Ok(());
            }
            if known.peek().is_some() {
                return if known.any(|address| address == from) {
                    Ok(())
                } else {
                    Err(Error::Elsewhere(from))
                };
            }
            drop(known);
            if began.elapsed() >= ADDRESSED_WITHIN {
                return Err(Error::Unaddressed);
            }
            sleep(LOOK).await;
        }
    }
}

fn find(caller: &ReportingPod, pods: &PodStore) -> Option<std::sync::Arc<WatchedPod>> {
    let pod = pods.get(&caller.namespace, &caller.pod)?;
    (pod.uid() == caller.uid).then_some(pod)
}

/// The role of a caller for the route that it names, when it is a pod that there is, with the label of that route and its container:
/// what is a pod's own goes to no other pod, and what is a sidecar's or gateway's to none that never had one.
pub fn role_in(caller: &ReportingPod, pods: &PodStore, route: &str) -> Option<Role> {
    let pod = find(caller, pods)?;
    pod.role().filter(|_| pod.route() == Some(route))
}

/// What the API server said of tokens, for a while. Only pods that are watched come here, so their number bounds it.
struct Reviewed {
    accepted: Answers,
    refused: Answers,
    rate: RateLimit,
    swept: Option<Instant>,
}

/// The last token of each pod that was answered so, and when.
type Answers = HashMap<SidecarId, (TokenHash, Instant)>;

impl Default for Reviewed {
    fn default() -> Self {
        let rate = RateLimit::new(BURST, REFILL);
        Self { accepted: Answers::new(), refused: Answers::new(), rate, swept: None }
    }
}

impl Reviewed {
    fn find(&self, uid: &str, hash: &TokenHash, now: Instant) -> Option<bool> {
        let is_in = |answers: &Answers| {
            let answer = answers.get(&sidecar_id(uid));
            answer.is_some_and(|(of, at)| of == hash && now.duration_since(*at) < KEEP)
        };
        if is_in(&self.accepted) { Some(true) } else { is_in(&self.refused).then_some(false) }
    }

    /// Whether one more token of this pod may be reviewed.
    fn allows(&mut self, uid: &str, now: Instant) -> bool {
        self.rate.allows(uid, now)
    }

    fn keep(&mut self, uid: &str, hash: TokenHash, is_accepted: bool, now: Instant) {
        self.sweep(now);
        let answers = if is_accepted { &mut self.accepted } else { &mut self.refused };
        answers.insert(sidecar_id(uid), (hash, now));
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.duration_since(at) < KEEP) {
            return;
        }
        self.swept = Some(now);
        for answers in [&mut self.accepted, &mut self.refused] {
            answers.retain(|_, (_, at)| now.duration_since(*at) < KEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::token_review::hash;

    #[test]
    fn an_answer_is_kept_for_a_minute() {
        let (mut reviewed, start) = (Reviewed::default(), Instant::now());
        reviewed.keep("uid", hash("good"), true, start);
        reviewed.keep("uid", hash("bad"), false, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let found = |token, at| reviewed.find("uid", &hash(token), at);
        assert_eq!((found("good", after(59)), found("bad", after(59))), (Some(true), Some(false)));
        assert_eq!((found("good", after(60)), found("bad", after(60))), (None, None));
        assert_eq!(reviewed.find("another", &hash("good"), start), None);
    }

    #[test]
    fn unknown_tokens_never_displace_an_accepted_one_and_take_no_memory() {
        let (mut reviewed, start) = (Reviewed::default(), Instant::now());
        reviewed.keep("uid", hash("good"), true, start);
        for token in 0..100_000 {
            reviewed.keep("uid", hash(&token.to_string()), false, start);
        }
        assert_eq!(
            (reviewed.find("uid", &hash("good"), start), reviewed.accepted.len(), reviewed.refused.len()),
            (Some(true), 1, 1)
        );
    }

    #[test]
    fn pods_that_went_quiet_are_forgotten() {
        let (mut reviewed, start) = (Reviewed::default(), Instant::now());
        for pod in 0..1000 {
            reviewed.keep(&pod.to_string(), hash("token"), true, start + Duration::from_secs(pod));
        }
        assert!(reviewed.accepted.len() <= 121, "{}", reviewed.accepted.len());
    }
}
