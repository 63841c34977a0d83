//! The namespaces whose label names the route of their pods, watched by that label: the name of each, and the name of its route.
//!
//! Of a namespace nothing else is read. With a list of namespaces to serve there is one watch for each by its name, as RBAC then allows
//! no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use mailroute_operator_core::crd::ROUTE_LABEL;
use tokio::sync::watch;
use tokio::time::timeout;

use super::scope::WatchScope;
use super::watch::interrupted;

/// Objects in one answer to a list.
const PAGE: u32 = 50;

/// What is known, by the name of the namespace.
#[derive(Clone, Debug)]
pub struct NamespaceRoutes(watch::Receiver<BTreeMap<String, String>>);

impl NamespaceRoutes {
    /// Reads what [`run`] finds.
    pub const fn new(known: watch::Receiver<BTreeMap<String, String>>) -> Self {
        Self(known)
    }

    /// The route that the namespace's label names. An API server may know of the label a moment before: it is waited for.
    pub async fn of(&self, namespace: &str, patience: Duration) -> Option<String> {
        let mut known = self.0.clone();
        let labelled = known.wait_for(|known| known.contains_key(namespace));
        let known = timeout(patience, labelled).await.ok()?.ok()?;
        known.get(namespace).cloned()
    }
}

/// Follows the labels for ever.
pub async fn run(client: Client, scope: WatchScope, known: watch::Sender<BTreeMap<String, String>>) {
    let config = watcher::Config::default().labels(ROUTE_LABEL).page_size(PAGE);
    let watched = |name: Option<String>| {
        let config = match &name {
            Some(name) => config.clone().fields(&format!("metadata.name={name}")),
            None => config.clone(),
        };
        // Of metadata alone.
        let events =
            watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config).default_backoff();
        events.map(move |event| (name.clone(), event)).boxed()
    };
    let watches: Vec<BoxStream<'static, _>> = match scope {
        WatchScope::Cluster => vec![watched(None)],
        WatchScope::Namespaces(names) => names.into_iter().map(|name| watched(Some(name))).collect(),
    };
    let mut events = stream::select_all(watches);
    let mut listing = BTreeSet::new();
    while let Some((scope, event)) = events.next().await {
        match event {
            Ok(event) => {
                known.send_if_modified(|known| take(known, &mut listing, scope.as_deref(), &event));
            }
            Err(error) => interrupted("namespaces", &error),
        }
    }
}

/// Takes an event of the watch of one namespace, or of that of all, and returns whether it changed what is known. `listing` has the
/// names in the list that is being made.
fn take(
    known: &mut BTreeMap<String, String>,
    listing: &mut BTreeSet<String>,
    scope: Option<&str>,
    event: &Event<PartialObjectMeta<Namespace>>,
) -> bool {
    let is_covered = |name: &str| scope.is_none_or(|scope| scope == name);
    match event {
        Event::Init => {
            listing.retain(|name| !is_covered(name));
            false
        }
        Event::InitApply(namespace) | Event::Apply(namespace) => {
            listing.insert(namespace.name_any());
            put(known, namespace)
        }
        Event::InitDone => {
            let before = known.len();
            known.retain(|name, _| !is_covered(name) || listing.contains(name));
            known.len() != before
        }
        Event::Delete(namespace) => known.remove(&namespace.name_any()).is_some(),
    }
}

fn put(known: &mut BTreeMap<String, String>, namespace: &PartialObjectMeta<Namespace>) -> bool {
    let name = namespace.name_any();
    match namespace.labels().get(ROUTE_LABEL) {
        Some(route) => known.insert(name, route.clone()).as_ref() != Some(route),
        None => known.remove(&name).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(name: &str, route: Option<&str>) -> PartialObjectMeta<Namespace> {
        let labels = route.map(|route| json!({ROUTE_LABEL: route})).unwrap_or_default();
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name, "labels": labels},
        }))
        .unwrap()
    }

    #[derive(Default)]
    struct Followed(BTreeMap<String, String>, BTreeSet<String>);

    impl Followed {
        fn take(&mut self, scope: Option<&str>, event: &Event<PartialObjectMeta<Namespace>>) -> bool {
            take(&mut self.0, &mut self.1, scope, event)
        }

        fn list(&mut self, scope: Option<&str>, namespaces: &[PartialObjectMeta<Namespace>]) {
            self.take(scope, &Event::Init);
            for namespace in namespaces {
                self.take(scope, &Event::InitApply(namespace.clone()));
            }
            self.take(scope, &Event::InitDone);
        }

        fn known(&self) -> Vec<(&str, &str)> {
            self.0.iter().map(|(namespace, route)| (namespace.as_str(), route.as_str())).collect()
        }
    }

    #[test]
    fn labels_that_come_change_and_go_are_followed() {
        let mut followed = Followed::default();
        followed.list(None, &[namespace("shop", Some("a")), namespace("news", Some("b"))]);
        assert_eq!(followed.known(), [("news", "b"), ("shop", "a")]);
        assert!(followed.take(None, &Event::Apply(namespace("shop", Some("c")))));
        assert!(!followed.take(None, &Event::Apply(namespace("shop", Some("c")))), "nothing new");
        assert!(followed.take(None, &Event::Delete(namespace("news", Some("b")))));
        assert_eq!(followed.known(), [("shop", "c")]);
        followed.list(None, &[namespace("news", Some("b"))]);
        assert_eq!(followed.known(), [("news", "b")], "shop lost its label while nobody watched");
    }

    #[test]
    fn the_list_of_one_namespace_changes_no_other() {
        let mut followed = Followed::default();
        followed.list(Some("shop"), &[namespace("shop", Some("a"))]);
        followed.list(Some("news"), &[namespace("news", Some("b"))]);
        followed.list(Some("shop"), &[]);
        assert_eq!(followed.known(), [("news", "b")]);
    }

    #[tokio::test]
    async fn a_label_that_is_on_its_way_is_waited_for() {
        let (sender, known) = watch::channel(BTreeMap::new());
        let routes = NamespaceRoutes::new(known);
        assert_eq!(routes.of("shop", Duration::from_millis(1)).await, None);
        let (found, ()) = tokio::join!(routes.of("shop", Duration::from_secs(20)), async {
            tokio::task::yield_now().await;
            sender.send_modify(|known| drop(known.insert("shop".into(), "a".into())));
        });
        assert_eq!(found.as_deref(), Some("a"));
    }
}
