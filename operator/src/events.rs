//! Kubernetes Events about a `MailRoute`: sent off the caller's path, bounded, and each fact once per half minute.
//!
//! Owns the queue, the limit and the publishing task; refuses to know what deserves an Event. An Event is a courtesy:
//! when the queue is full or the API server refuses, it is counted and left out, and nothing waits for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use mailroute_route::text::shortened;
use tokio::sync::mpsc;

use crate::api_error::ApiError;
use crate::metrics::Metrics;

/// Events that wait for the API server, at most.
const QUEUE: usize = 256;

/// The same reason for the same object is published once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Keys remembered at most; of older facts the Event may be repeated.
const REMEMBERED: usize = 4096;

/// Longest note that events.k8s.io takes, bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Declares the reasons, and the list of all of them.
macro_rules! own_reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Reasons of Events that are no reason of a condition, of a refused pod or of the webhook configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum OwnReason {
            $($(#[$doc])* $name,)*
        }

        impl OwnReason {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The constant, as an Event has it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

own_reasons! {
    /// What a MailRoute asks for could not be written.
    ReconcileFailed,
    /// A MailRoute is stored in a shape that cannot be read.
    Malformed,
    /// Messages were given up.
    DeadLetters,
    /// A pod ended with mail in its queue.
    MessagesLeft,
    /// A gateway's pod has mail on its volume claim, and its MailRoute was deleted.
    MessagesOnClaim,
    /// A pod with an outdated sidecar was evicted.
    PodEvicted,
    /// Somebody had changed the `caBundle`.
    CaBundleRepaired,
}

/// Where Events are handed in. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Item>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Item {
    regarding: ObjectReference,
    related: Option<ObjectReference>,
    kind: EventType,
    reason: &'static str,
    action: &'static str,
    note: String,
}

impl Events {
    /// Starts the publishing task, which ends when every clone of the handle is gone. `instance` is the pod's name.
    pub fn start(client: Client, instance: &str, metrics: Metrics) -> Self {
        let reporter =
            Reporter { controller: "mailroute-operator".into(), instance: Some(instance.to_owned()) };
        let (queue, items) = mpsc::channel(QUEUE);
        tokio::spawn(publish(Recorder::new(client, reporter), items, metrics.clone()));
        Self { queue, metrics }
    }

    /// Warns that something is wrong. `reason` and `action` are CamelCase constants; `note` is for a person.
    pub fn warn(&self, regarding: ObjectReference, reason: &'static str, action: &'static str, note: String) {
        self.send(Item { regarding, related: None, kind: EventType::Warning, reason, action, note });
    }

    /// The same, with another object that it is about: for each of these it is an Event of its own.
    pub fn warn_of(
        &self,
        regarding: ObjectReference,
        related: ObjectReference,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        self.send(Item { regarding, related: Some(related), kind: EventType::Warning, reason, action, note });
    }

    /// Notes that something is as it should be.
    pub fn note(&self, regarding: ObjectReference, reason: &'static str, action: &'static str, note: String) {
        self.send(Item { regarding, related: None, kind: EventType::Normal, reason, action, note });
    }

    fn send(&self, item: Item) {
        if self.queue.try_send(item).is_err() {
            self.metrics.event("dropped");
        }
    }
}

async fn publish(recorder: Recorder, mut items: mpsc::Receiver<Item>, metrics: Metrics) {
    let mut told = Told::default();
    while let Some(item) = items.recv().await {
        if !told.is_news(&item, Instant::now()) {
            metrics.event("dropped");
            continue;
        }
        let event = Event {
            type_: item.kind,
            reason: item.reason.to_owned(),
            note: Some(shortened(&item.note, MAX_NOTE_BYTES).into_owned()),
            action: item.action.to_owned(),
            secondary: item.related,
        };
        match recorder.publish(&event, &item.regarding).await {
            Ok(()) => metrics.event("published"),
            Err(error) => {
                metrics.event("failed");
                let error = ApiError::from(error);
                tracing::warn!(reason = item.reason, %error, "cannot publish an Event");
            }
        }
    }
}

/// What was published, and when last.
#[derive(Debug, Default)]
struct Told(HashMap<Fact, Instant>);

/// What an Event is about: the uid of the object, that of the related one, the reason and the action.
type Fact = (Option<String>, Option<String>, &'static str, &'static str);

impl Told {
    fn is_news(&mut self, item: &Item, now: Instant) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let related = item.related.as_ref().and_then(|related| related.uid.clone());
        let key = (item.regarding.uid.clone(), related, item.reason, item.action);
        if self.0.get(&key).is_some_and(|at| now.duration_since(*at) < REPEAT_AFTER) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(uid: &str, reason: &'static str) -> Item {
        Item {
            regarding: ObjectReference { uid: Some(uid.into()), ..Default::default() },
            related: None,
            kind: EventType::Warning,
            reason,
            action: "Inject",
            note: String::new(),
        }
    }

    #[test]
    fn a_fact_is_told_once_in_half_a_minute() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_news(&item("a", "UnknownRoute"), start));
        assert!(!told.is_news(&item("a", "UnknownRoute"), start + Duration::from_secs(29)));
        assert!(told.is_news(&item("a", "UnknownRoute"), start + Duration::from_secs(31)));
    }

    #[test]
    fn another_reason_or_object_is_news() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_news(&item("a", "UnknownRoute"), start));
        assert!(told.is_news(&item("a", "HostNetwork"), start));
        assert!(told.is_news(&item("b", "UnknownRoute"), start));
        for pod in ["pod-1", "pod-2"] {
            let related = Some(ObjectReference { uid: Some(pod.into()), ..Default::default() });
            assert!(told.is_news(&Item { related, ..item("a", "MessagesLeft") }, start), "{pod}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut told, start) = (Told::default(), Instant::now());
        for uid in 0..3 * REMEMBERED {
            told.is_news(&item(&uid.to_string(), "UnknownRoute"), start);
            assert!(told.0.len() <= REMEMBERED);
        }
    }
}
