//! What the operator watches, kept in memory on every replica: MailRoutes, and the pods that carry the route label.
//!
//! The webhook answers from these stores and the controller reconciles from them, so neither asks the API server for what
//! is already known. A stored MailRoute that this version cannot read is set aside and reported; the others continue.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use mailroute_operator_core::crd::{MailRoute, ROUTE_LABEL};
use mailroute_operator_core::pods::watched::WatchedPod;
use mailroute_operator_core::resolve::PlatformSettings;
use tokio::sync::watch as channel;
use tokio::time::timeout;

use super::pods::PodWriter;
use super::route_bounds::{self, RoutesByNamespace};
use super::scope::{self, WatchScope};
use super::triggers::Triggers;
use crate::api_error::ApiError;
use crate::cache::route::{CachedRoute, RouteRef, RouteStore};
use crate::lock;

/// Objects in one answer to a list. A page is in memory as text and as objects, whole, before it is pruned, and an object may
/// have 1.5 MiB, of which 256 KiB are annotations that any author may fill: 20 such pods are 30 MiB of text, and a list of
/// 5 000 pods is 250 requests.
const PODS_PAGE: u32 = 20;
/// As for pods: 5 of the largest routes are 7.5 MiB of text, and a list of 1 000 is 200 requests. Each is read into a JSON value
/// first.
const ROUTES_PAGE: u32 = 5;

/// Unreadable routes of one namespace that are remembered with what is wrong with them.
const MOST_UNREADABLE: usize = 64;

/// Unreadable routes of one namespace that are remembered at all. Beyond that any name may be one.
const MOST_NAMES: usize = 1024;

/// How often a task that waits for a store looks again, as it may not be woken.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Stored MailRoutes that cannot be read, and why.
#[derive(Clone, Debug, Default)]
pub struct UnreadableRoutes(Arc<Mutex<UnreadableLists>>);

#[derive(Debug, Default)]
struct UnreadableLists {
    known: UnreadableNames,
    /// What is read while everything is listed anew. What is known counts until that is done.
    listed: Option<UnreadableNames>,
}

#[derive(Debug, Default)]
struct UnreadableNames {
    /// By namespace and name; of those that are too many the name alone.
    routes: BTreeMap<(String, String), Option<UnreadableRoute>>,
    /// Namespaces that have more than are remembered.
    full: BTreeSet<String>,
}

impl UnreadableNames {
    fn put(&mut self, key: (String, String), unreadable: UnreadableRoute) {
        let of_namespace = self.routes.range((key.0.clone(), String::new())..);
        let of_namespace = of_namespace.take_while(|((namespace, _), _)| *namespace == key.0);
        let (names, whole) = of_namespace
            .filter(|(other, _)| **other != key)
            .fold((0, 0), |(names, whole), (_, known)| (names + 1, whole + usize::from(known.is_some())));
        if names < MOST_NAMES {
            self.routes.insert(key, (whole < MOST_UNREADABLE).then_some(unreadable));
        } else if !self.routes.contains_key(&key) {
            self.full.insert(key.0);
        }
    }
}

/// A stored MailRoute that cannot be read.
#[derive(Clone, Debug)]
pub struct UnreadableRoute {
    /// Which object, for an Event.
    pub reference: ObjectReference,
    /// What is wrong with it.
    pub error: String,
}

impl UnreadableRoutes {
    /// All of them, at most 64 of each namespace.
    pub fn all(&self) -> Vec<UnreadableRoute> {
        self.lock().known.routes.values().flatten().cloned().collect()
    }

    /// Why one route cannot be read, if so.
    pub fn why(&self, namespace: &str, name: &str) -> Option<String> {
        let lists = self.lock();
        match lists.known.routes.get(&(namespace.to_owned(), name.to_owned())) {
            Some(Some(unreadable)) => Some(unreadable.error.clone()),
            Some(None) => Some(format!("like {MOST_UNREADABLE} others of its namespace")),
            None => None,
        }
    }

    /// Whether a route that nobody could read may be stored under this name.
    pub fn may_have(&self, namespace: &str, name: &str) -> bool {
        let lists = self.lock();
        lists.known.full.contains(namespace)
            || lists.known.routes.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// A stored object cannot be read.
    pub fn put(&self, object: &InvalidObject) {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let key = (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
        let reference = ObjectReference {
            api_version: Some(MailRoute::api_version(&()).into_owned()),
            kind: Some(MailRoute::kind(&()).into_owned()),
            namespace,
            name,
            uid: object.metadata.uid.clone(),
            ..Default::default()
        };
        tracing::error!(
            namespace = key.0,
            route = key.1,
            error = object.error,
            "cannot read a stored MailRoute"
        );
        let unreadable = UnreadableRoute { reference, error: object.error.clone() };
        let mut lists = self.lock();
        if let Some(listed) = &mut lists.listed {
            listed.put(key.clone(), unreadable.clone());
        }
        lists.known.put(key, unreadable);
    }

    fn remove(&self, metadata: &ObjectMeta) {
        let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
        let key = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let mut lists = self.lock();
        if let Some(listed) = &mut lists.listed {
            listed.routes.remove(&key);
        }
        lists.known.routes.remove(&key);
    }

    /// Everything is listed anew.
    fn begin_list(&self) {
        self.lock().listed = Some(UnreadableNames::default());
    }

    /// Everything is listed: what was not there is gone.
    fn end_list(&self) {
        let mut lists = self.lock();
        if let Some(listed) = lists.listed.take() {
            lists.known = listed;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, UnreadableLists> {
        lock(&self.0)
    }
}

/// The watch of MailRoutes, and where what it sees goes.
pub struct RouteWatch {
    /// The store.
    pub writer: Writer<CachedRoute>,
    /// What routes are resolved with.
    pub settings: Arc<PlatformSettings>,
    /// Those that cannot be read.
    pub malformed: UnreadableRoutes,
    /// A route that comes or changes is added.
    pub triggers: Triggers,
    /// Changes after every change of the store but those of a status.
    pub changes: channel::Sender<u64>,
}

impl RouteWatch {
    /// Follows MailRoutes for ever; `found` is called for each route that cannot be read.
    pub async fn run(mut self, client: Client, scope: WatchScope, found: impl Fn(&UnreadableRoute)) {
        let store = self.writer.as_reader();
        let config = watcher::Config::default().page_size(ROUTES_PAGE);
        let mut events = scope::events(&client, &scope, &config, route_bounds::prune, absent);
        let mut kept = RoutesByNamespace::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let event = kept.bounded(event);
                    let event = readable(event, &store, &self.malformed, &self.settings, &found);
                    let Some(event) = event else { continue };
                    let is_status = is_status_alone(&event, &store);
                    self.writer.apply_watcher_event(&event);
                    if !is_status {
                        self.changes.send_modify(|count| *count = count.wrapping_add(1));
                    }
                    trigger(&event, is_status, &store, &self.triggers);
                }
                Err(error) => interrupted("MailRoutes", &error),
            }
        }
    }
}

/// Stands for a route that is gone: its name is all that is needed, whether it could be read or not.
fn absent(namespace: &str, name: &str) -> Option<DeserializeGuard<MailRoute>> {
    let metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    Some(DeserializeGuard(Err(InvalidObject { error: String::new(), metadata })))
}

/// The event without what cannot be read, and with every route resolved. An object that became unreadable counts as deleted.
fn readable(
    event: Event<DeserializeGuard<MailRoute>>,
    store: &RouteStore,
    malformed: &UnreadableRoutes,
    settings: &Arc<PlatformSettings>,
    found: &impl Fn(&UnreadableRoute),
) -> Option<Event<CachedRoute>> {
    let cached = |route| CachedRoute::new(route, settings);
    let set_aside = |object: &InvalidObject| {
        malformed.put(object);
        malformed.all().iter().filter(|it| it.reference.uid == object.metadata.uid).for_each(found);
    };
    match event {
        Event::Init => {
            malformed.begin_list();
            Some(Event::Init)
        }
        Event::InitDone => {
            malformed.end_list();
            Some(Event::InitDone)
        }
        Event::InitApply(DeserializeGuard(Ok(route))) => Some(Event::InitApply(cached(route))),
        Event::InitApply(DeserializeGuard(Err(object))) => {
            set_aside(&object);
            None
        }
        Event::Apply(DeserializeGuard(Ok(route))) => {
            malformed.remove(&route.metadata);
            Some(Event::Apply(cached(route)))
        }
        Event::Apply(DeserializeGuard(Err(object))) => {
            set_aside(&object);
            known(store, &object).map(Event::Delete)
        }
        Event::Delete(DeserializeGuard(Ok(route))) => {
            malformed.remove(&route.metadata);
            Some(Event::Delete(cached(route)))
        }
        Event::Delete(DeserializeGuard(Err(object))) => {
            malformed.remove(&object.metadata);
            known(store, &object).map(Event::Delete)
        }
    }
}

fn known(store: &RouteStore, object: &InvalidObject) -> Option<CachedRoute> {
    let name = object.metadata.name.as_deref()?;
    let reference = ObjectRef::new(name).within(object.metadata.namespace.as_deref()?);
    store.get(&reference).map(|route| CachedRoute::clone(&route))
}

/// Whether the event changes only the status of a route. Others cause such changes: the operator itself, pods that report, and
/// whoever has a pod refused. `store` has the route as it was.
fn is_status_alone(event: &Event<CachedRoute>, store: &RouteStore) -> bool {
    let Event::Apply(route) = event else { return false };
    let same = |metadata: &ObjectMeta| {
        let ObjectMeta { uid, generation, deletion_timestamp, .. } = route.meta();
        (&metadata.uid, &metadata.generation, &metadata.deletion_timestamp)
            == (uid, generation, deletion_timestamp)
    };
    store.get(&ObjectRef::from_obj(route)).is_some_and(|before| same(before.meta()))
}

fn trigger(event: &Event<CachedRoute>, is_status: bool, store: &RouteStore, triggers: &Triggers) {
    match event {
        Event::Apply(route) if is_status => triggers.add_reported(ObjectRef::from_obj(route)),
        Event::Apply(route) => triggers.add(ObjectRef::from_obj(route)),
        Event::InitDone => store.state().iter().for_each(|route| triggers.add(ObjectRef::from_obj(&**route))),
        Event::Init | Event::InitApply(_) | Event::Delete(_) => {}
    }
}

/// Follows the pods that carry the route label for ever, into the store behind `writer`. Any change of a pod triggers a look at its
/// route.
pub async fn pods(client: Client, scope: WatchScope, mut writer: PodWriter, triggers: Triggers) {
    let config = watcher::Config::default().labels(ROUTE_LABEL).page_size(PODS_PAGE);
    let store = writer.as_reader();
    let gone = move |namespace: &str, name: &str| store.get(namespace, name).map(|pod| (*pod).clone());
    let mut events = scope::events(&client, &scope, &config, WatchedPod::of, gone);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                pod_changed(&event, &triggers);
            }
            Err(error) => interrupted("pods", &error),
        }
    }
}

/// Triggers a look, as rarely as for reports: whoever may change pods may change them all the time.
fn pod_changed(event: &Event<WatchedPod>, triggers: &Triggers) {
    if let Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) = event
        && let Some(route) = route_of(pod)
    {
        triggers.add_reported(route);
    }
}

/// Waits until a store has been filled for the first time. False when nothing fills it any more, as the process ends.
///
/// The store itself wakes only the one who asked last. Several ask, the readiness probe among them, so each of them asks
/// again after a moment.
pub async fn filled<K>(store: &Store<K>) -> bool
where
    K: reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    loop {
        if let Ok(outcome) = timeout(ASK_AGAIN, store.wait_until_ready()).await {
            return outcome.is_ok();
        }
    }
}

pub(super) fn interrupted(what: &str, error: &watcher::Error) {
    let error = ApiError::from(error);
    tracing::warn!(what, %error, "the watch was interrupted; it is being resumed");
}

/// The route that a pod's label names.
pub fn route_of(pod: &WatchedPod) -> Option<RouteRef> {
    Some(ObjectRef::new(pod.route()?).within(pod.namespace()))
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::runtime::reflector::store;
    use mailroute_operator_core::samples;
    use serde_json::json;

    use super::*;

    fn guarded(object: serde_json::Value) -> DeserializeGuard<MailRoute> {
        serde_json::from_value(object).unwrap()
    }

    fn good() -> DeserializeGuard<MailRoute> {
        guarded(serde_json::to_value(samples::route()).unwrap())
    }

    fn bad() -> DeserializeGuard<MailRoute> {
        guarded(json!({
            "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid"},
            "spec": {"method": "Pigeon"},
        }))
    }

    fn names(store: &RouteStore) -> Vec<String> {
        store.state().iter().map(|route| route.name_any()).collect()
    }

    #[test]
    fn an_object_that_becomes_unreadable_leaves_the_store_and_shows() {
        let (reader, mut writer) = store::<CachedRoute>();
        let malformed = UnreadableRoutes::default();
        let found = std::cell::RefCell::new(Vec::new());
        let mut feed = |event| {
            let tell = |it: &UnreadableRoute| found.borrow_mut().push(it.error.clone());
            if let Some(event) = readable(event, &reader, &malformed, &Arc::default(), &tell) {
                writer.apply_watcher_event(&event);
            }
        };
        feed(Event::Apply(good()));
        assert_eq!(names(&reader), ["notifications"]);
        feed(Event::Apply(bad()));
        assert_eq!(names(&reader), Vec::<String>::new());
        assert!(malformed.why("shop", "notifications").unwrap().contains("Pigeon"));
        assert_eq!(found.borrow().len(), 1);
        feed(Event::Apply(good()));
        assert_eq!(names(&reader), ["notifications"]);
        assert_eq!(malformed.why("shop", "notifications"), None);
    }

    #[test]
    fn one_unreadable_object_does_not_hide_the_others() {
        let (reader, mut writer) = store::<CachedRoute>();
        let malformed = UnreadableRoutes::default();
        let mut other = samples::route();
        other.metadata.name = Some("other".into());
        let other = guarded(serde_json::to_value(other).unwrap());
        for event in [Event::Init, Event::InitApply(bad()), Event::InitApply(other), Event::InitDone] {
            if let Some(event) = readable(event, &reader, &malformed, &Arc::default(), &|_| {}) {
                writer.apply_watcher_event(&event);
            }
        }
        assert_eq!(names(&reader), ["other"]);
        assert_eq!(malformed.all().len(), 1);
    }

    #[test]
    fn an_unreadable_object_is_known_while_everything_is_listed_anew() {
        let (reader, _writer) = store::<CachedRoute>();
        let malformed = UnreadableRoutes::default();
        let feed = |event| drop(readable(event, &reader, &malformed, &Arc::default(), &|_| {}));
        feed(Event::Apply(bad()));
        feed(Event::Init);
        assert!(malformed.may_have("shop", "notifications"));
        feed(Event::InitApply(bad()));
        feed(Event::InitDone);
        assert!(malformed.why("shop", "notifications").is_some_and(|error| error.contains("Pigeon")));
        [Event::Init, Event::InitDone].into_iter().for_each(feed);
        assert!(!malformed.may_have("shop", "notifications"), "it was not there any more");
    }

    #[test]
    fn of_many_unreadable_objects_the_names_are_known_and_no_more() {
        let malformed = UnreadableRoutes::default();
        let put = |number: usize| {
            let DeserializeGuard(read) = bad();
            let mut object = read.unwrap_err();
            object.metadata.name = Some(format!("route-{number}"));
            malformed.put(&object);
        };
        (0..MOST_NAMES).for_each(put);
        assert_eq!(malformed.all().len(), MOST_UNREADABLE);
        assert!(malformed.may_have("shop", "route-1000") && malformed.why("shop", "route-1000").is_some());
        assert!(!malformed.may_have("shop", "other"));
        (MOST_NAMES..MOST_NAMES + 9).for_each(put);
        assert_eq!(malformed.lock().known.routes.len(), MOST_NAMES);
        assert!(malformed.may_have("shop", "other") && !malformed.may_have("elsewhere", "other"));
    }

    /// How often the route is looked at in ten seconds in which this happens a hundred times.
    async fn looks(happens: impl Fn(&Triggers)) -> usize {
        let triggers = Triggers::default();
        let (mut stream, mut looks) = (Box::pin(triggers.stream()), 0);
        let counted = async {
            while stream.next().await.is_some() {
                looks += 1;
            }
        };
        let happening = async {
            for _ in 0..100 {
                happens(&triggers);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! { () = counted => {}, () = happening => {} }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_or_pods_that_change_all_the_time_have_a_route_looked_at_every_two_seconds() {
        let (reader, mut writer) = store::<CachedRoute>();
        let route = CachedRoute::new(samples::route(), &Arc::default());
        writer.apply_watcher_event(&Event::Apply(route.clone()));
        let mut respecified = samples::route();
        respecified.metadata.generation = Some(4);
        let respecified = Event::Apply(CachedRoute::new(respecified, &Arc::default()));
        let status = Event::Apply(route);
        let of = |event: &Event<CachedRoute>, triggers: &Triggers| {
            trigger(event, is_status_alone(event, &reader), &reader, triggers);
        };
        let pod = Event::Apply(WatchedPod::of(samples::pod("web-1", "image")));
        for paced in [looks(|it| of(&status, it)).await, looks(|it| pod_changed(&pod, it)).await] {
            assert!((4..=6).contains(&paced), "{paced} looks");
        }
        let unpaced = looks(|it| of(&respecified, it)).await;
        assert!(unpaced > 20, "a new spec is looked at at once: {unpaced} looks");
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_who_waits_learns_that_a_store_is_filled() {
        let (reader, mut writer) = store::<CachedRoute>();
        let (one, other) = (reader.clone(), reader.clone());
        let one = tokio::spawn(async move { filled(&one).await });
        let other = tokio::spawn(async move { filled(&other).await });
        tokio::task::yield_now().await;
        // A probe asks, and does not wait.
        assert!(futures::poll!(Box::pin(reader.wait_until_ready())).is_pending());
        [Event::Init, Event::InitDone].iter().for_each(|event| writer.apply_watcher_event(event));
        let both = async { tokio::try_join!(one, other) };
        assert_eq!(timeout(Duration::from_secs(1), both).await.unwrap().unwrap(), (true, true));
    }

    #[test]
    fn a_pod_belongs_to_the_route_of_its_label() {
        let expected = RouteRef::new("notifications").within("shop");
        let pod = WatchedPod::of(samples::pod("web-1", "image"));
        assert_eq!(route_of(&pod), Some(expected));
    }
}
