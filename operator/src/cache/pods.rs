//! The watched pods by namespace and name, and by route, in memory.
//!
//! Everybody reads the pods of one route or one pod by its name; with tens of thousands of pods, a look through all of them for each
//! route would take most of a processor.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::runtime::watcher::Event;
use mailroute_operator_core::pods::watched::{PodTemplates, WatchedPod};
use tokio::sync::watch;

use crate::cache::route::RouteRef;

/// A store, and what fills it.
pub fn pod_store() -> (PodStore, PodWriter) {
    let (listed, is_listed) = watch::channel(false);
    let store = PodStore { pods: Arc::default(), is_listed };
    let writer = PodWriter { store: store.clone(), listed, templates: PodTemplates::default(), list: 0 };
    (store, writer)
}

/// The watched pods. Clones read the same.
#[derive(Clone, Debug)]
pub struct PodStore {
    pods: Arc<RwLock<HashMap<Box<str>, PodsOfNamespace>>>,
    is_listed: watch::Receiver<bool>,
}

/// What fills a store.
#[derive(Debug)]
pub struct PodWriter {
    store: PodStore,
    listed: watch::Sender<bool>,
    templates: PodTemplates,
    /// Number of the list that came last, or is on its way.
    list: u32,
}

#[derive(Debug, Default)]
struct PodsOfNamespace {
    by_name: BTreeSet<StoredPod>,
    by_route: HashMap<Box<str>, BTreeSet<StoredPod>>,
}

/// A pod, by its name.
#[derive(Clone, Debug)]
struct StoredPod {
    pod: Arc<WatchedPod>,
    /// The list that it was in last, or that came before it.
    list: u32,
}

impl PodStore {
    /// The pod of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<WatchedPod>> {
        self.read().get(namespace)?.by_name.get(name).map(|stored| Arc::clone(&stored.pod))
    }

    /// The pods whose label names a route.
    pub fn of_route(&self, route: &RouteRef) -> Vec<Arc<WatchedPod>> {
        let pods = self.read();
        let of_namespace = pods.get(route.namespace.as_deref().unwrap_or_default());
        let of_route = of_namespace.and_then(|it| it.by_route.get(route.name.as_str()));
        of_route.into_iter().flatten().map(|stored| Arc::clone(&stored.pod)).collect()
    }

    /// All pods.
    pub fn state(&self) -> Vec<Arc<WatchedPod>> {
        let pods = self.read();
        pods.values().flat_map(|it| &it.by_name).map(|stored| Arc::clone(&stored.pod)).collect()
    }

    /// Whether all pods have been listed once.
    pub fn is_filled(&self) -> bool {
        *self.is_listed.borrow()
    }

    /// Waits until all pods have been listed once. False when nothing fills the store any more, as the process ends.
    pub async fn filled(&self) -> bool {
        self.is_listed.clone().wait_for(|is_listed| *is_listed).await.is_ok()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, PodsOfNamespace>> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Box<str>, PodsOfNamespace>> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodWriter {
    /// The store that is filled.
    pub fn as_reader(&self) -> PodStore {
        self.store.clone()
    }

    /// Takes an event of the watch. A pod is there as soon as it is listed; what is not in a list any more is there until its end.
    pub fn apply_watcher_event(&mut self, event: &Event<WatchedPod>) {
        match event {
            Event::Init => self.list = self.list.wrapping_add(1),
            Event::InitApply(pod) | Event::Apply(pod) => self.put(pod.clone()),
            Event::InitDone => {
                self.drop_unlisted();
                self.listed.send_replace(true);
            }
            Event::Delete(pod) => remove(&mut self.store.write(), pod.namespace(), pod.name()),
        }
    }

    fn put(&mut self, pod: WatchedPod) {
        let stored = StoredPod { pod: Arc::new(self.templates.share(pod)), list: self.list };
        let (namespace, route) = (stored.pod.namespace(), stored.pod.route());
        let mut pods = self.store.write();
        remove(&mut pods, namespace, stored.pod.name());
        if !pods.contains_key(namespace) {
            pods.insert(namespace.into(), PodsOfNamespace::default());
        }
        let Some(of_namespace) = pods.get_mut(namespace) else { return };
        if let Some(route) = route {
            of_namespace.by_route.entry(route.into()).or_default().insert(stored.clone());
        }
        of_namespace.by_name.insert(stored);
    }

    fn drop_unlisted(&self) {
        let mut pods = self.store.write();
        let stored = || pods.values().flat_map(|it| &it.by_name);
        let gone: Vec<_> = stored().filter(|it| it.list != self.list).map(|it| Arc::clone(&it.pod)).collect();
        gone.iter().for_each(|pod| remove(&mut pods, pod.namespace(), pod.name()));
    }
}

fn remove(pods: &mut HashMap<Box<str>, PodsOfNamespace>, namespace: &str, name: &str) {
    let Some(of_namespace) = pods.get_mut(namespace) else { return };
    let Some(StoredPod { pod, .. }) = of_namespace.by_name.take(name) else { return };
    let route = pod.route().unwrap_or_default();
    if let Some(of_route) = of_namespace.by_route.get_mut(route) {
        of_route.remove(name);
        if of_route.is_empty() {
            of_namespace.by_route.remove(route);
        }
    }
    if of_namespace.by_name.is_empty() {
        pods.remove(namespace);
    }
}

impl Borrow<str> for StoredPod {
    fn borrow(&self) -> &str {
        self.pod.name()
    }
}

impl PartialEq for StoredPod {
    fn eq(&self, other: &Self) -> bool {
        self.pod.name() == other.pod.name()
    }
}

impl Eq for StoredPod {}

impl PartialOrd for StoredPod {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoredPod {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pod.name().cmp(other.pod.name())
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::*;

    fn pod(name: &str, route: &str) -> WatchedPod {
        let mut pod = samples::pod(name, "image");
        pod.metadata.labels.as_mut().unwrap().insert("mailroute.dev/route".into(), route.into());
        WatchedPod::of(pod)
    }

    fn of(store: &PodStore, route: &str) -> Vec<String> {
        let pods = store.of_route(&RouteRef::new(route).within("shop"));
        pods.iter().map(|pod| pod.name().to_owned()).collect()
    }

    #[test]
    fn pods_are_found_by_name_and_by_route_as_they_come_change_and_go() {
        let (store, mut writer) = pod_store();
        for (name, route) in [("web-2", "a"), ("web-1", "a"), ("web-3", "b")] {
            writer.apply_watcher_event(&Event::Apply(pod(name, route)));
        }
        assert_eq!(
            (of(&store, "a"), of(&store, "b")),
            (vec!["web-1".into(), "web-2".into()], vec!["web-3".into()])
        );
        assert_eq!(store.get("shop", "web-3").unwrap().route(), Some("b"));
        assert!(store.get("shop", "web-4").is_none() && store.get("office", "web-3").is_none());
        writer.apply_watcher_event(&Event::Apply(pod("web-2", "b")));
        assert_eq!((of(&store, "a").len(), of(&store, "b").len(), store.state().len()), (1, 2, 3));
        for name in ["web-1", "web-2", "web-3"] {
            writer.apply_watcher_event(&Event::Delete(pod(name, "b")));
        }
        assert!(store.state().is_empty() && store.read().is_empty());
    }

    #[test]
    fn what_a_later_list_does_not_have_is_gone_at_its_end() {
        let (store, mut writer) = pod_store();
        assert!(!store.is_filled());
        let mut list = |names: &[&str]| {
            writer.apply_watcher_event(&Event::Init);
            for name in names {
                writer.apply_watcher_event(&Event::InitApply(pod(name, "a")));
            }
            let meanwhile = of(&store, "a").len();
            writer.apply_watcher_event(&Event::InitDone);
            meanwhile
        };
        assert_eq!(list(&["web-1", "web-2"]), 2);
        assert!(store.is_filled());
        assert_eq!(list(&["web-2", "web-3"]), 3, "nobody takes a pod for gone while it is not known to be");
        assert_eq!(of(&store, "a"), ["web-2", "web-3"]);
    }

    #[tokio::test]
    async fn everyone_who_waits_learns_that_the_store_is_filled() {
        let (store, mut writer) = pod_store();
        let waiting = [store.clone(), store].map(|store| tokio::spawn(async move { store.filled().await }));
        tokio::task::yield_now().await;
        [Event::Init, Event::InitDone].iter().for_each(|event| writer.apply_watcher_event(event));
        for filled in waiting {
            assert!(filled.await.unwrap());
        }
    }
}
