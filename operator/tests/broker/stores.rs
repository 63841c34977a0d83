//! What the operator knows of the cluster, without an API server.

use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::watcher::Event;

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
