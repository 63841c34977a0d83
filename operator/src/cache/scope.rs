//! Which namespaces are watched, and several watches as one.
//!
//! A watch covers the whole cluster or one namespace. For several namespaces there is one watch each, and readers must not
//! notice: the first lists become one list, which is complete when the last has come, and a later list changes its own namespace
//! and no other. A namespace that may not be read counts as empty, so that
//! deleting one, and its role with it, does not keep the operator from starting.
//!
//! `MergedWatches` is that rule, without I/O; [`events`] feeds it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures::stream::{self, BoxStream, SelectAll};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Lookup;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// The namespaces that the operator serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// All.
    Cluster,
    /// These, at least one.
    Namespaces(BTreeSet<String>),
}

impl WatchScope {
    /// The scope that these names mean; none means all.
    pub fn of(names: &[String]) -> Self {
        let names: BTreeSet<_> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
        if names.is_empty() { Self::Cluster } else { Self::Namespaces(names) }
    }
}

/// What happens to the objects of a scope, as one watch would report it. `keep` makes of each object what is kept of it; `gone`
/// makes the last state of one, by namespace and name, that a later list does not have any more.
pub fn events<K, T>(
    client: &Client,
    scope: &WatchScope,
    config: &watcher::Config,
    keep: fn(K) -> T,
    gone: impl Fn(&str, &str) -> Option<T> + Send + 'static,
) -> BoxStream<'static, watcher::Result<Event<T>>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    T: Lookup<DynamicType = ()> + Send + 'static,
{
    let kept = move |event| match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(keep(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(keep(object)),
        Event::Delete(object) => Event::Delete(keep(object)),
    };
    let watch = |api: Api<K>| watcher(api, config.clone()).default_backoff().map_ok(kept);
    match scope {
        WatchScope::Cluster => watch(Api::all(client.clone())).boxed(),
        WatchScope::Namespaces(names) => {
            let one = |name: &String| {
                let events = watch(Api::namespaced(client.clone(), name));
                let name = name.clone();
                events.map(move |event| (name.clone(), event)).boxed()
            };
            merged(names.iter().map(one).collect(), MergedWatches::new(names), gone).boxed()
        }
    }
}

fn merged<K: Lookup<DynamicType = ()> + 'static>(
    watches: SelectAll<BoxStream<'static, (String, watcher::Result<Event<K>>)>>,
    mut merged: MergedWatches<K>,
    gone: impl Fn(&str, &str) -> Option<K> + 'static,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    watches.flat_map(move |(namespace, event)| stream::iter(merged.take(&namespace, event, &gone)))
}

/// Several watches on their way to being one.
#[derive(Debug)]
struct MergedWatches<K> {
    namespaces: BTreeMap<String, WatchedNamespace<K>>,
    /// Whether the first lists of all have come.
    listed: bool,
}

/// One of the watches.
#[derive(Debug)]
struct WatchedNamespace<K> {
    /// Whether its first list has come.
    listed: bool,
    /// The objects, until all watches are listed.
    held: BTreeMap<String, K>,
    /// The names of the objects, from then on.
    known: BTreeSet<String>,
    /// The names in a list that is being made.
    listing: BTreeSet<String>,
}

impl<K: Lookup<DynamicType = ()>> MergedWatches<K> {
    fn new(names: &BTreeSet<String>) -> Self {
        let watched = || WatchedNamespace {
            listed: false,
            held: BTreeMap::new(),
            known: BTreeSet::new(),
            listing: BTreeSet::new(),
        };
        Self { namespaces: names.iter().map(|name| (name.clone(), watched())).collect(), listed: false }
    }

    /// Turns an event of one watch into what a watch of all would report.
    fn take(
        &mut self,
        namespace: &str,
        event: watcher::Result<Event<K>>,
        gone: &impl Fn(&str, &str) -> Option<K>,
    ) -> Vec<watcher::Result<Event<K>>> {
        let Some(watched) = self.namespaces.get_mut(namespace) else { return Vec::new() };
        if self.listed {
            return match event {
                Ok(event) => watched.pass_on(namespace, event, gone).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
        }
        let mut told = Vec::new();
        match event {
            Ok(event) => watched.hold(event),
            Err(error) => {
                watched.listed |= is_forbidden(&error);
                told.push(Err(error));
            }
        }
        if self.namespaces.values().all(|watched| watched.listed) {
            self.listed = true;
            told.extend(self.first_list().into_iter().map(Ok));
        }
        told
    }

    fn first_list(&mut self) -> Vec<Event<K>> {
        let objects = self.namespaces.values_mut().flat_map(WatchedNamespace::release);
        [Event::Init].into_iter().chain(objects.map(Event::InitApply)).chain([Event::InitDone]).collect()
    }
}

impl<K: Lookup<DynamicType = ()>> WatchedNamespace<K> {
    /// Until all are listed.
    fn hold(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.held.clear(),
            Event::InitApply(object) | Event::Apply(object) => {
                self.held.insert(name_of(&object), object);
            }
            Event::Delete(object) => drop(self.held.remove(&name_of(&object))),
            Event::InitDone => self.listed = true,
        }
    }

    fn release(&mut self) -> Vec<K> {
        let held = std::mem::take(&mut self.held);
        self.known = held.keys().cloned().collect();
        held.into_values().collect()
    }

    /// From then on.
    fn pass_on(
        &mut self,
        namespace: &str,
        event: Event<K>,
        gone: &impl Fn(&str, &str) -> Option<K>,
    ) -> Vec<Event<K>> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.insert(name_of(&object));
                vec![Event::Apply(object)]
            }
            Event::InitDone => {
                let now = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.known, now);
                let missing = before.difference(&self.known);
                missing.filter_map(|name| gone(namespace, name)).map(Event::Delete).collect()
            }
            Event::Apply(object) => {
                self.known.insert(name_of(&object));
                vec![Event::Apply(object)]
            }
            Event::Delete(object) => {
                self.known.remove(&name_of(&object));
                vec![Event::Delete(object)]
            }
        }
    }
}

fn name_of(object: &impl Lookup) -> String {
    object.name().map(Cow::into_owned).unwrap_or_default()
}

/// Whether the objects may not be read, as when the namespace was deleted and its role with it.
fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use kube::api::ObjectMeta;

    fn pod(name: &str) -> Pod {
        Pod {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Pod::default()
        }
    }

    /// What the watch tells, in words.
    fn words(told: Vec<watcher::Result<Event<Pod>>>) -> Vec<String> {
        let word = |event: watcher::Result<Event<Pod>>| match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(pod)) => format!("list {}", pod.name_any()),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(pod)) => format!("apply {}", pod.name_any()),
            Ok(Event::Delete(pod)) => format!("delete {}", pod.name_any()),
            Err(_) => "error".to_owned(),
        };
        told.into_iter().map(word).collect()
    }

    struct Bench(MergedWatches<Pod>);

    impl Bench {
        fn new() -> Self {
            Self(MergedWatches::new(&["a", "b"].map(str::to_owned).into()))
        }

        fn tell(&mut self, namespace: &str, event: Event<Pod>) -> Vec<String> {
            words(self.0.take(namespace, Ok(event), &|_, name| Some(pod(name))))
        }

        fn fail(&mut self, namespace: &str, code: u16) -> Vec<String> {
            let status = kube::core::Status::failure("no", "no").with_code(code);
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()));
            words(self.0.take(namespace, Err(error), &|_, name| Some(pod(name))))
        }

        /// Both watches with one object each.
        fn listed() -> Self {
            let mut bench = Self::new();
            for (namespace, name) in [("a", "one"), ("b", "two")] {
                bench.tell(namespace, Event::Init);
                bench.tell(namespace, Event::InitApply(pod(name)));
                bench.tell(namespace, Event::InitDone);
            }
            bench
        }
    }

    #[test]
    fn no_name_means_the_whole_cluster() {
        assert_eq!(WatchScope::of(&[]), WatchScope::Cluster);
        assert_eq!(WatchScope::of(&[String::new()]), WatchScope::Cluster);
        let both = WatchScope::of(&["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(both, WatchScope::Namespaces(["a", "b"].map(str::to_owned).into()));
    }

    #[test]
    fn the_list_is_complete_when_the_last_watch_has_listed() {
        let mut bench = Bench::new();
        assert!(bench.tell("a", Event::Init).is_empty());
        assert!(bench.tell("a", Event::InitApply(pod("one"))).is_empty());
        assert!(bench.tell("a", Event::InitDone).is_empty());
        // What happens to the early ones meanwhile counts.
        assert!(bench.tell("a", Event::Apply(pod("late"))).is_empty());
        assert!(bench.tell("a", Event::Delete(pod("one"))).is_empty());
        assert!(bench.tell("b", Event::Init).is_empty());
        assert!(bench.tell("b", Event::InitApply(pod("two"))).is_empty());
        assert_eq!(bench.tell("b", Event::InitDone), ["init", "list late", "list two", "done"]);
    }

    #[test]
    fn changes_are_passed_on() {
        let mut bench = Bench::listed();
        assert_eq!(bench.tell("b", Event::Apply(pod("three"))), ["apply three"]);
        assert_eq!(bench.tell("b", Event::Delete(pod("two"))), ["delete two"]);
    }

    #[test]
    fn a_new_list_changes_its_own_namespace_alone() {
        let mut bench = Bench::listed();
        assert!(bench.tell("b", Event::Init).is_empty());
        assert_eq!(bench.tell("b", Event::InitApply(pod("new"))), ["apply new"]);
        assert_eq!(bench.tell("b", Event::InitDone), ["delete two"]);
        assert!(bench.tell("b", Event::Init).is_empty());
        assert_eq!(bench.tell("b", Event::InitDone), ["delete new"]);
    }

    #[test]
    fn a_list_that_breaks_off_begins_anew() {
        let mut bench = Bench::new();
        bench.tell("a", Event::Init);
        bench.tell("a", Event::InitApply(pod("gone meanwhile")));
        bench.tell("a", Event::Init);
        bench.tell("a", Event::InitDone);
        bench.tell("b", Event::Init);
        assert_eq!(bench.tell("b", Event::InitDone), ["init", "done"]);
    }

    #[test]
    fn a_namespace_that_may_not_be_read_counts_as_empty_until_it_may() {
        let mut bench = Bench::new();
        bench.tell("a", Event::Init);
        bench.tell("a", Event::InitDone);
        assert_eq!(bench.fail("b", 403), ["error", "init", "done"]);
        assert_eq!(bench.fail("b", 403), ["error"]);
        assert!(bench.tell("b", Event::Init).is_empty());
        assert_eq!(bench.tell("b", Event::InitApply(pod("two"))), ["apply two"]);
        assert!(bench.tell("b", Event::InitDone).is_empty());
    }

    #[test]
    fn an_api_server_in_trouble_completes_no_list() {
        let mut bench = Bench::new();
        bench.tell("a", Event::Init);
        bench.tell("a", Event::InitDone);
        assert_eq!(bench.fail("b", 500), ["error"]);
        assert_eq!(bench.tell("b", Event::InitDone), ["init", "done"]);
    }
}
