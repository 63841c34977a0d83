//! Waiting for the cluster to reach a state: by watching, never by sleeping.
//!
//! A watch that breaks is taken up again; only time ends a wait. The error tells what was seen last, so that a failed
//! test explains itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be watched: every generated Kubernetes type and every custom resource.
pub trait Watched:
    Resource<DynamicType: Default> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static
{
}
impl<K> Watched for K where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static
{
}

/// Waits until the named object exists and meets a condition, and returns it as it was then.
///
/// # Errors
/// When that did not happen within the time; the error shows the object as it was seen last.
pub async fn wait_for<K: Watched>(
    api: Api<K>,
    name: &str,
    condition: impl Fn(&K) -> bool,
    within: Duration,
) -> Result<K> {
    let mut seen = None;
    let met = tokio::time::timeout(within, async {
        let states = watcher::watch_object(api, name).default_backoff();
        pin_mut!(states);
        while let Some(state) = states.next().await {
            // A broken watch is reported and taken up again by the stream itself.
            let Ok(state) = state else { continue };
            if let Some(object) = state.as_ref().filter(|object| condition(object)) {
                return Some(object.clone());
            }
            seen = state;
        }
        None
    })
    .await;
    met.ok().flatten().ok_or_else(|| {
        anyhow!("{} {name} did not get there within {within:?}; {}", kind::<K>(), describe(seen))
    })
}

/// Waits until the named object is gone.
///
/// # Errors
/// When it is still there after the time; the error shows it.
pub async fn wait_gone<K: Watched>(api: Api<K>, name: &str, within: Duration) -> Result<()> {
    let mut seen = None;
    let gone = tokio::time::timeout(within, async {
        let states = watcher::watch_object(api, name).default_backoff();
        pin_mut!(states);
        while let Some(state) = states.next().await {
            match state {
                Ok(None) => return,
                Ok(Some(object)) => seen = Some(object),
                Err(_) => {}
            }
        }
    })
    .await;
    gone.map_err(|_| anyhow!("{} {name} is still there after {within:?}; {}", kind::<K>(), describe(seen)))
}

/// Waits until the objects that a label selector picks meet a condition together, and returns them.
///
/// # Errors
/// When that did not happen within the time; the error names the objects that were seen last.
pub async fn wait_for_all<K: Watched>(
    api: Api<K>,
    selector: &str,
    condition: impl Fn(&[K]) -> bool,
    within: Duration,
) -> Result<Vec<K>> {
    let mut known = BTreeMap::new();
    let events = watcher(api, watcher::Config::default().labels(selector)).default_backoff();
    let met = tokio::time::timeout(within, until_all(events, &mut known, condition)).await;
    met.ok().flatten().with_context(|| {
        let names = known.keys().cloned().collect::<Vec<_>>().join(", ");
        format!("{}s with {selector} did not get there within {within:?}; seen last: [{names}]", kind::<K>())
    })
}

async fn until_all<K: Watched>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    known: &mut BTreeMap<String, K>,
    condition: impl Fn(&[K]) -> bool,
) -> Option<Vec<K>> {
    let events = events.into_stream();
    pin_mut!(events);
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                known.clear();
                complete = false;
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                known.insert(object.name_any(), object);
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&object.name_any());
            }
            Ok(watcher::Event::InitDone) => complete = true,
            Err(_) => {}
        }
        let all: Vec<K> = known.values().cloned().collect();
        if complete && condition(&all) {
            return Some(all);
        }
    }
    None
}

/// Whether every replica that a Deployment asks for is available and of its newest template.
pub fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation == deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
    })
}

/// Whether a Job has come to its end, either way.
pub fn has_ended(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

/// Whether a Job has completed.
pub fn is_complete(job: &Job) -> bool {
    has_condition(job, "Complete")
}

fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == kind && c.status == "True"))
}

fn kind<K: Watched>() -> String {
    K::kind(&K::DynamicType::default()).into_owned()
}

/// The part of an object that tells its state: its `status`, or all of it when it has none.
fn describe<K: Serialize>(seen: Option<K>) -> String {
    let Some(object) = seen else { return "it was never seen".to_owned() };
    let value = serde_json::to_value(&object).unwrap_or_default();
    format!("seen last: {:#}", value.get("status").unwrap_or(&value))
}
