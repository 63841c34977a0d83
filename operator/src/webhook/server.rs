//! The service: reads a review, answers it with what the pure parts decide, and reports refusals.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use futures::StreamExt;
use jiff::Timestamp;
use mailroute_operator_core::inject::selection::Selection;
use mailroute_operator_core::inject::view::PodView;
use mailroute_operator_core::inject::{self, Refusal, SidecarSettings, workload};
use mailroute_operator_core::kubernetes_version::NativeSidecars;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::refusals::{self, Pace, Refusals};
use super::review::{DecodeError, Review};
use super::routes::{AwaitedRoutes, NotSynced};
use super::weight::weight;
use crate::cache::route::OpenRoute;
use crate::lock;
use crate::metrics::Metrics;
use crate::server::Peer;

/// Path that the webhook configuration names for pods with a label of their own.
pub const PATH: &str = "/inject";

/// Path that the webhook configuration names for the other pods of namespaces whose label names a route.
pub const NAMESPACE_PATH: &str = "/inject/namespace";

/// Path that the webhook configuration names for workloads.
pub const WARN_PATH: &str = "/warn";

/// The whole answer, body included; the API server waits five seconds.
const DEADLINE: Duration = Duration::from_secs(4);
/// Wait for a route that was applied a moment before its pod.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait for a route that was applied a moment before its workload. Two seconds are all that the API server waits.
const WARN_PATIENCE: Duration = Duration::from_millis(500);
/// Largest body, bytes. An API server takes objects of up to 3 MiB, and a review holds one and little else.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Most memory that what is read from one body may take, bytes, see [`weight`]. A pod of 1 000 environment variables in 20
/// containers, with the owners of its fields, takes 5 MiB.
const HEAVIEST: usize = 8 * 1024 * 1024;
/// Memory that the bodies of all reviews under way may take, bytes: the shares of four addresses, see [`Peer::bodies`].
const BODIES: usize = 48 * 1024 * 1024;
/// Memory that what is read from these bodies may take, bytes: the shares of four addresses, see [`Peer::values`].
const VALUES: usize = 48 * 1024 * 1024;
/// Most memory of a review that may wait for its route, bytes. As many as may wait at a time hold half the share of one address
/// at most, and all reviews that an API server sends come from one.
const LIGHT: usize = 256 * 1024;

/// A label where it has no effect.
const MISPLACED: &str = "the label mailroute.dev/route is on the workload itself, where it has no effect. Put it into \
                         spec.template.metadata.labels, and its pods get the sidecar.";

/// Follows the refusal of a pod that got its route from its namespace.
const BY_NAMESPACE: &str = "The pod got this route from the label mailroute.dev/route of its namespace; if it sends no mail, \
                            label it mailroute.dev/inject: \"false\".";

/// Whose label says which route a pod uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOwner {
    /// The pod's.
    Pod,
    /// That of its namespace, unless it has one of its own.
    Namespace,
}

/// What the webhook needs.
#[derive(Debug)]
pub struct Webhook {
    routes: AwaitedRoutes,
    platform: SidecarSettings,
    kubernetes: watch::Receiver<NativeSidecars>,
    metrics: Metrics,
    refusals: Refusals,
    pace: Mutex<Pace>,
    bodies: Arc<Semaphore>,
    values: Arc<Semaphore>,
    large: Semaphore,
}

/// The memory that a review is given until it is answered.
#[derive(Default)]
struct ReviewMemory {
    bytes: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

/// The HTTP service.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new()
        .route(PATH, post(inject))
        .route(NAMESPACE_PATH, post(inject_by_namespace))
        .route(WARN_PATH, post(warn))
        .with_state(webhook)
}

async fn warn(
    State(webhook): State<Arc<Webhook>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    webhook.handle_workload(&peer, request.into_body()).await
}

async fn inject(
    State(webhook): State<Arc<Webhook>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    webhook.handle(&peer, request.into_body(), LabelOwner::Pod).await
}

async fn inject_by_namespace(
    State(webhook): State<Arc<Webhook>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    webhook.handle(&peer, request.into_body(), LabelOwner::Namespace).await
}

/// What became of a review.
enum ReviewOutcome {
    /// The sidecar was added.
    Injected(Review, json_patch::Patch),
    /// The pod has everything already.
    Complete(Review),
    /// Not a pod of ours.
    Skipped(Review),
    /// The pod cannot have a sidecar.
    Refused(Review, RefusedReview),
    /// Not now.
    Deferred(Review, NotSynced),
}

/// A pod that cannot have a sidecar.
struct RefusedReview {
    refusal: Refusal,
    /// Its route, if there is one.
    route: Option<Box<OpenRoute>>,
    /// What the pod is called.
    pod: String,
    owner: LabelOwner,
}

/// Why there is no answer to the review itself.
#[derive(Debug, thiserror::Error)]
enum ReviewFailure {
    #[error("the body is larger than {MAX_BODY} bytes, or incomplete")]
    Body,
    #[error(
        "the object has too many fields and list items: they would take {0} bytes of memory, and {HEAVIEST} are allowed"
    )]
    Heavy(usize),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the pod or its patch cannot be represented")]
    Represent(#[from] serde_json::Error),
    #[error("the operator is busy; try again")]
    Slow,
}

impl Webhook {
    /// A webhook that adds the sidecar of `platform` to the pods of an API server that has this standing.
    pub fn new(
        routes: AwaitedRoutes,
        platform: SidecarSettings,
        kubernetes: watch::Receiver<NativeSidecars>,
        metrics: Metrics,
        refusals: Refusals,
    ) -> Self {
        let [bodies, values] = [BODIES, VALUES].map(|bytes| Arc::new(Semaphore::new(bytes)));
        let (pace, large) = (Mutex::default(), Semaphore::new(1));
        Self { routes, platform, kubernetes, metrics, refusals, pace, bodies, values, large }
    }

    /// Answers one request of `peer` about a pod whose route is on the label of `owner`.
    pub async fn handle(&self, peer: &Peer, body: Body, owner: LabelOwner) -> Response {
        let began = Instant::now();
        let outcome =
            timeout(DEADLINE, self.decide(peer, body, owner)).await.unwrap_or(Err(ReviewFailure::Slow));
        let answer = outcome.and_then(|outcome| {
            let labels = outcome.labels();
            self.tell(&outcome);
            Ok((labels, outcome.into_review()?))
        });
        let (outcome, reason) =
            answer.as_ref().map_or_else(|failure| ("failed", failure.reason()), |(l, _)| *l);
        self.metrics.admission(outcome, reason, began.elapsed());
        match answer {
            Ok((_, review)) => Json(review).into_response(),
            Err(failure) => {
                if lock(&self.pace).allows_failure(Instant::now()) {
                    tracing::warn!(failure = failure.to_string(), "an admission review was not answered");
                }
                (failure.status(), format!("MailRoute: {failure}\n")).into_response()
            }
        }
    }

    /// Answers one request about a workload: it is always let through, and whoever applies it is warned when its pods would be
    /// refused.
    pub async fn handle_workload(&self, peer: &Peer, body: Body) -> Response {
        let answer = timeout(DEADLINE, self.judge(peer, body)).await.unwrap_or(Err(ReviewFailure::Slow));
        match answer {
            Ok(review) => Json(review).into_response(),
            Err(failure) => (failure.status(), format!("MailRoute: {failure}\n")).into_response(),
        }
    }

    async fn judge(&self, peer: &Peer, body: Body) -> Result<Value, ReviewFailure> {
        let (mut review, memory) = self.read(peer, body).await?;
        let object = review.take_object()?.unwrap_or_default();
        let patience = memory.patience(WARN_PATIENCE);
        Ok(match self.warning(review.namespace(), &object, patience).await {
            Some(warning) => review.warn(&format!("MailRoute: {warning}"))?,
            None => review.allow()?,
        })
    }

    async fn warning(&self, namespace: &str, object: &Value, patience: Duration) -> Option<String> {
        let template = object.pointer(workload::pod_pointer(object)?)?;
        // A template without metadata asks for nothing.
        let selected = PodView::new(template).map(|view| Selection::of(&view));
        let Ok(Selection::Route(name)) = selected else {
            let is_misplaced = workload::is_labelled(object) && !matches!(selected, Ok(Selection::Excused));
            return is_misplaced.then(|| MISPLACED.to_owned());
        };
        let refusal = match self.routes.find(namespace, name, patience).await.ok()? {
            Ok(route) => self.injection(&workload::with_claims(object, template), &route).err()?,
            Err(refusal) => refusal,
        };
        // The chart's policy warns of annotations, also while no operator runs.
        let is_of_the_policy =
            matches!(refusal, Refusal::UnknownAnnotation { .. } | Refusal::InvalidAnnotation { .. });
        (!is_of_the_policy).then(|| format!("its pods will be refused. {refusal} {}", refusal.remedy()))
    }

    async fn decide(
        &self,
        peer: &Peer,
        body: Body,
        owner: LabelOwner,
    ) -> Result<ReviewOutcome, ReviewFailure> {
        let (mut review, memory) = self.read(peer, body).await?;
        let Some(pod) = review.take_created_pod()? else { return Ok(ReviewOutcome::Skipped(review)) };
        let refused = |review, refusal, route, pod| {
            ReviewOutcome::Refused(review, RefusedReview { refusal, route, pod, owner })
        };
        let view = match PodView::new(&pod) {
            Ok(view) => view,
            Err(refusal) => return Ok(refused(review, refusal, None, String::new())),
        };
        let default = match owner {
            LabelOwner::Pod => None,
            LabelOwner::Namespace => {
                match self.routes.of_namespace(review.namespace(), memory.patience(PATIENCE)).await {
                    Ok(default) => Some(default),
                    Err(not_synced) => return Ok(ReviewOutcome::Deferred(review, not_synced)),
                }
            }
        };
        let selection = match &default {
            Some(default) => Selection::in_namespace(&view, default),
            None => Selection::of(&view),
        };
        let Selection::Route(name) = selection else { return Ok(ReviewOutcome::Skipped(review)) };
        let called = view.display_name();
        let route = match self.routes.find(review.namespace(), name, memory.patience(PATIENCE)).await {
            Ok(Ok(route)) => route,
            Ok(Err(refusal)) => return Ok(refused(review, refusal, None, called)),
            Err(not_synced) => return Ok(ReviewOutcome::Deferred(review, not_synced)),
        };
        let kubernetes = *self.kubernetes.borrow();
        let _turn = peer.turn().await;
        let injection = inject::check_kubernetes(kubernetes).and_then(|()| self.injection(&pod, &route));
        Ok(match injection.map(|patch| inject::labelling(patch, &view, name)) {
            Ok(None) => ReviewOutcome::Complete(review),
            Ok(Some(patch)) => ReviewOutcome::Injected(review, patch),
            Err(refusal) => refused(review, refusal, Some(Box::new(route)), called),
        })
    }

    /// The review, and the memory that it is given until it is answered.
    ///
    /// Memory is given out in the order in which it is asked for. What a body takes is asked for at once, and its values are
    /// held apart, so that no two reviews ever wait for what the other holds.
    async fn read(&self, peer: &Peer, body: Body) -> Result<(Review, ReviewMemory), ReviewFailure> {
        let size = body.size_hint().exact().map_or(Ok(MAX_BODY), usize::try_from);
        let size = size.ok().filter(|size| *size <= MAX_BODY).ok_or(ReviewFailure::Body)?;
        let (mut octets, mut memory) = (Vec::new(), ReviewMemory::default());
        memory.hold(size, [peer.bodies(), &self.bodies]).await?;
        let mut body = body.into_data_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| ReviewFailure::Body)?;
            if octets.len() + chunk.len() > size {
                return Err(ReviewFailure::Body);
            }
            octets.extend_from_slice(&chunk);
        }
        let weight = weight(&octets);
        if weight > HEAVIEST {
            return Err(ReviewFailure::Heavy(weight));
        }
        memory.hold(weight, [peer.values(), &self.values]).await?;
        let _turn = peer.turn().await;
        // What is said of a body that cannot be read quotes it, and takes several times its size for a moment.
        let _only_one = if octets.len() > LIGHT { self.large.acquire().await.ok() } else { None };
        Ok((Review::decode(&octets)?, memory))
    }

    /// The patch that the pod needs; `None` when it has everything.
    fn injection(&self, pod: &Value, route: &OpenRoute) -> Result<Option<json_patch::Patch>, Refusal> {
        let route = inject::injectable(route, route.resolution())?;
        let plan = inject::plan(pod, route, &self.platform)?;
        if plan.is_empty() { Ok(None) } else { inject::patch(&plan, pod).map(Some) }
    }

    /// Logs, and has it noted on the route, unless it is a dry run: a few times a minute for each namespace. Nothing is waited for.
    fn tell(&self, outcome: &ReviewOutcome) {
        let ReviewOutcome::Refused(review, RefusedReview { refusal, route, pod, .. }) = outcome else {
            return;
        };
        let (namespace, reason) = (review.namespace(), refusal.reason());
        if !lock(&self.pace).allows(namespace, refusal, Instant::now()) {
            return;
        }
        // As a string, of which no line ends reach a log in text.
        let (refused, dry_run) = (refusal.to_string(), review.is_dry_run());
        tracing::info!(namespace, pod, reason, refusal = refused, dry_run, "a pod was refused");
        let Some(route) = route.as_ref().filter(|_| !review.is_dry_run()) else { return };
        // Told once, and not by each replica.
        if let Some(refused) = refusals::news(route, pod, refusal, Timestamp::now()) {
            self.refusals.note(route, reason, refused);
        }
    }
}

impl ReviewMemory {
    /// Waits for so many bytes of each of the two shares.
    async fn hold(&mut self, bytes: usize, shares: [&Arc<Semaphore>; 2]) -> Result<(), ReviewFailure> {
        let permits = u32::try_from(bytes).map_err(|_| ReviewFailure::Body)?;
        for share in shares {
            let held = Arc::clone(share).acquire_many_owned(permits).await;
            self.permits.push(held.map_err(|_| ReviewFailure::Slow)?);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// How long a review that holds this may wait for its route.
    const fn patience(&self, most: Duration) -> Duration {
        if self.bytes <= LIGHT { most } else { Duration::ZERO }
    }
}

impl ReviewOutcome {
    /// Outcome and reason for the metric, both from closed sets. Nothing comes of a dry run, so it counts as that alone.
    const fn labels(&self) -> (&'static str, &'static str) {
        let (outcome, reason) = self.answer();
        if self.review().is_dry_run() { ("dry_run", reason) } else { (outcome, reason) }
    }

    const fn review(&self) -> &Review {
        match self {
            Self::Injected(review, _)
            | Self::Complete(review)
            | Self::Skipped(review)
            | Self::Refused(review, ..)
            | Self::Deferred(review, _) => review,
        }
    }

    const fn answer(&self) -> (&'static str, &'static str) {
        match self {
            Self::Injected(..) => ("injected", ""),
            Self::Complete(_) => ("complete", ""),
            Self::Skipped(_) => ("skipped", ""),
            Self::Refused(_, refused) => ("refused", refused.refusal.reason()),
            Self::Deferred(..) => ("deferred", "NotSynced"),
        }
    }

    fn into_review(self) -> Result<Value, ReviewFailure> {
        Ok(match self {
            Self::Injected(review, patch) => review.allow_with(&patch)?,
            Self::Complete(review) | Self::Skipped(review) => review.allow()?,
            Self::Refused(review, RefusedReview { refusal, owner, .. }) => {
                review.refuse(&refusal, if owner == LabelOwner::Namespace { BY_NAMESPACE } else { "" })?
            }
            Self::Deferred(review, not_synced) => review.defer(&not_synced.to_string())?,
        })
    }
}

impl ReviewFailure {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Body => "Body",
            Self::Heavy(_) => "Heavy",
            Self::Decode(_) => "NotAReview",
            Self::Represent(_) => "Represent",
            Self::Slow => "Slow",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Body | Self::Heavy(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Decode(_) => StatusCode::BAD_REQUEST,
            Self::Represent(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Slow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
