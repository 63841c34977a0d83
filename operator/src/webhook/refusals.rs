//! Notes on a route which of its pods was refused last, in `status.refused`, so that its owner and the leader learn of it
//! whichever replica was asked.
//!
//! Owns one field of the status, by its own field manager; the leader owns the others. Off the webhook's path and bounded: a note
//! is a courtesy.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::crd::status::RefusedPod;
use mailroute_operator_core::inject::Refusal;
use serde_json::json;
use tokio::sync::mpsc;

use crate::api_error::ApiError;

/// Field manager of the note.
const FIELD_MANAGER: &str = "mailroute-webhook";

/// Notes that wait for the API server, at most.
const QUEUE: usize = 64;

/// The same is noted again after so long, which shows that it lasts.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Where notes are handed in. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Refusals(mpsc::Sender<Note>);

#[derive(Debug)]
struct Note {
    namespace: String,
    route: String,
    uid: Option<String>,
    refused: RefusedPod,
}

impl Refusals {
    /// Starts the writing task, which ends when every clone of the handle is gone.
    pub fn start(client: Client) -> Self {
        let (sender, mut notes) = mpsc::channel::<Note>(QUEUE);
        tokio::spawn(async move {
            while let Some(note) = notes.recv().await {
                if let Err(error) = write(client.clone(), &note).await {
                    let error = ApiError::from(error);
                    tracing::warn!(namespace = note.namespace, route = note.route, %error, "cannot record a refused pod in the status");
                }
            }
        });
        Self(sender)
    }

    /// Notes that a pod of the route was refused.
    pub fn note(&self, route: &MailRoute, refused: RefusedPod) {
        let note = Note {
            namespace: route.namespace().unwrap_or_default(),
            route: route.name_any(),
            uid: route.uid(),
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
    let message = format!("{refusal} {}", refusal.remedy());
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
