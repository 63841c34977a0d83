//! Reports refused pods: in the log, and on their route, in `status.refused` and as an Event, so that its owner and the leader
//! learn of it whichever replica was asked.
//!
//! Owns one field of the status, by its own field manager; the leader owns the others. Off the webhook's path and bounded: a note
//! is a courtesy. Anybody can have a pod refused that nobody creates, so of each namespace only a few refusals a minute are told.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::crd::status::{LONGEST_REFUSAL, RefusedPod};
use mailroute_operator_core::inject::Refusal;
use mailroute_route::text::shortened;
use serde_json::json;
use tokio::sync::mpsc;

use crate::api_error::ApiError;
use crate::events::Events;
use crate::rate_limit::RateLimit;

/// Field manager of the note.
const FIELD_MANAGER: &str = "mailroute-webhook";

/// Notes that wait for the API server, at most.
const QUEUE: usize = 64;

/// The same is noted again after so long, which shows that it lasts.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Refusals of one namespace that are told at once.
const AT_ONCE: u32 = 5;

/// Time after which one more is told.
const ONE_MORE: Duration = Duration::from_secs(15);

/// Stands for a namespace where a review could not be answered; none has that name.
const FAILURES: &str = "(failures)";

/// How many refusals are told, by namespace; time is passed in.
#[derive(Debug)]
pub struct Pace(RateLimit);

impl Default for Pace {
    fn default() -> Self {
        Self(RateLimit::new(AT_ONCE, ONE_MORE))
    }
}

impl Pace {
    /// Whether one more refusal in this namespace is told. All namespaces without a route count as one, as anybody can make names
    /// up, and every name would take memory.
    pub fn allows(&mut self, namespace: &str, refusal: &Refusal, now: Instant) -> bool {
        let is_known = match refusal {
            Refusal::UnknownRoute { known, .. } => !known.is_empty(),
            Refusal::Malformed { .. } => false,
            _ => true,
        };
        self.0.allows(if is_known { namespace } else { "" }, now)
    }

    /// Whether one more review is told of that could not be answered, whoever sent it.
    pub fn allows_failure(&mut self, now: Instant) -> bool {
        self.0.allows(FAILURES, now)
    }
}

/// Where notes are handed in. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Refusals(mpsc::Sender<Note>);

#[derive(Debug)]
struct Note {
    namespace: String,
    route: String,
    uid: Option<String>,
    object: ObjectReference,
    reason: &'static str,
    refused: RefusedPod,
}

impl Refusals {
    /// Starts the writing task, which ends when every clone of the handle is gone.
    ///
    /// The Event of a note goes to `events` when the note is written, so that no number of notes fills the queue of all Events.
    pub fn start(client: Client, events: Events) -> Self {
        let (sender, mut notes) = mpsc::channel::<Note>(QUEUE);
        tokio::spawn(async move {
            while let Some(note) = notes.recv().await {
                if let Err(error) = write(client.clone(), &note).await {
                    let error = ApiError::from(error);
                    tracing::warn!(namespace = note.namespace, route = note.route, %error, "cannot record a refused pod in the status");
                }
                let text = format!("Pod {} is refused. {}", note.refused.pod, note.refused.message);
                events.warn(note.object, note.reason, "InjectSidecar", text);
            }
        });
        Self(sender)
    }

    /// Notes that a pod of the route was refused, for this reason.
    pub fn note(&self, route: &MailRoute, reason: &'static str, refused: RefusedPod) {
        let note = Note {
            namespace: route.namespace().unwrap_or_default(),
            route: route.name_any(),
            uid: route.uid(),
            object: route.object_ref(&()),
            reason,
            refused,
        };
        // Full: there are others to be seen first.
        let _ = self.0.try_send(note);
    }
}

async fn write(client: Client, note: &Note) -> kube::Result<()> {
    let patch = json!({
        "apiVersion": MailRoute::api_version(&()),
        "kind": MailRoute::kind(&()),
        "metadata": {"name": note.route, "uid": note.uid},
        "status": {"refused": note.refused},
    });
    let api = Api::<MailRoute>::namespaced(client, &note.namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&note.route, &params, &Patch::Apply(patch)).await.map(drop)
}

/// The note on a pod that is refused at `now`; none when the route has the same from a few minutes ago, whoever wrote it.
pub fn news(route: &MailRoute, pod: &str, refusal: &Refusal, now: Timestamp) -> Option<RefusedPod> {
    let (reason, observed_generation) = (refusal.reason(), route.meta().generation);
    let message = shortened(&format!("{refusal} {}", refusal.remedy()), LONGEST_REFUSAL).into_owned();
    let known = route.status.as_ref().and_then(|status| status.refused.as_ref());
    let is_known = known.is_some_and(|known| {
        known.reason == reason
            && known.message == message
            && known.observed_generation == observed_generation
            && now.duration_since(known.at.0) < AGAIN_AFTER
    });
    let refused = RefusedPod {
        pod: pod.to_owned(),
        reason: reason.to_owned(),
        message,
        at: Time(now),
        observed_generation,
    };
    (!is_known).then_some(refused)
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::crd::MailRouteStatus;
    use mailroute_operator_core::samples;

    use super::*;

    #[test]
    fn a_few_refusals_a_minute_are_told_of_each_namespace_and_made_up_names_take_no_memory() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let mut told = |namespace: &str, refusal: &Refusal, now| pace.allows(namespace, refusal, now);
        let flood = (0..10_000).filter(|_| told("victim", &Refusal::Windows, now)).count();
        assert_eq!(flood, AT_ONCE as usize);
        assert!(told("shop", &Refusal::Windows, now), "another namespace has its own");
        assert!(told("victim", &Refusal::Windows, now + ONE_MORE));
        let unknown = |known: &[&str]| Refusal::UnknownRoute {
            route: "invoices".into(),
            namespace: String::new(),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        };
        let made_up = (0..10_000).filter(|number| told(&format!("made-up-{number}"), &unknown(&[]), now));
        assert_eq!(made_up.count(), AT_ONCE as usize);
        assert!(told("office", &unknown(&["notifications"]), now));
    }

    #[test]
    fn a_note_is_short_whatever_the_pod_says() {
        let refusal =
            Refusal::UnknownAnnotation { key: format!("mailroute.dev/{}", "\u{7f}".repeat(66_000)) };
        let refused = news(&samples::route(), "web-1", &refusal, Timestamp::UNIX_EPOCH).unwrap();
        assert!(refused.message.len() <= LONGEST_REFUSAL, "{} bytes", refused.message.len());
        assert!(refused.message.starts_with("The pod has the annotation \"mailroute.dev/"));
    }

    #[test]
    fn the_same_refusal_is_news_once_in_five_minutes_whichever_replica_met_it() {
        let (mut route, start) = (samples::route(), Timestamp::UNIX_EPOCH);
        let refused = news(&route, "web-1", &Refusal::HostNetwork, start).unwrap();
        route.status = Some(MailRouteStatus { refused: Some(refused), ..Default::default() });
        let after = |seconds| start + SignedDuration::from_secs(seconds);
        assert_eq!(news(&route, "web-2", &Refusal::HostNetwork, after(299)), None);
        assert!(news(&route, "web-2", &Refusal::HostNetwork, after(300)).is_some());
        assert!(news(&route, "web-2", &Refusal::Windows, after(1)).is_some(), "another reason");
        route.metadata.generation = Some(4);
        assert!(news(&route, "web-2", &Refusal::HostNetwork, after(1)).is_some(), "another spec");
    }
}
