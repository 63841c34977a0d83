//! What the operator knows of the cluster, without an API server.

use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::watcher::Event;
use mailroute_operator::cache::pods::{PodStore, pod_store};
use mailroute_operator_core::pods::watched::WatchedPod;

/// A store with these objects, as after the first list of them.
pub fn filled<K>(objects: impl IntoIterator<Item = K>) -> Store<K>
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone + Default,
{
    let (reader, mut writer) = store();
    writer.apply_watcher_event(&Event::Init);
    objects.into_iter().for_each(|object| writer.apply_watcher_event(&Event::InitApply(object)));
    writer.apply_watcher_event(&Event::InitDone);
    reader
}

/// The same of pods.
pub fn filled_pods(pods: impl IntoIterator<Item = WatchedPod>) -> PodStore {
    let (reader, mut writer) = pod_store();
    writer.apply_watcher_event(&Event::Init);
    pods.into_iter().for_each(|pod| writer.apply_watcher_event(&Event::InitApply(pod)));
    writer.apply_watcher_event(&Event::InitDone);
    reader
}
