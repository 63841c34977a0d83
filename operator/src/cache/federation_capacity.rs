//! How many federated credentials an application needs for the pods of this cluster. Pure, apart from the lock; time passed in.
//!
//! Entra trusts a pod by the pair of namespace and ServiceAccount that it runs under, one federated credential for each, and
//! takes twenty of them for one application (Microsoft Entra, "Important considerations and restrictions for federated
//! identity credentials"). The next ServiceAccount that sends mail would fail for no reason that a route shows, so the status
//! warns earlier. Pods with an AKS identity binding need none of their own. Other clusters that use the application are not seen
//! from here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use mailroute_operator_core::pods::watched::WatchedPod;

use super::pods::PodStore;
use super::watch::route_of;
use crate::cache::route::{CachedRoute, RouteRef, RouteStore};
use crate::lock;

/// How long a count is reused, since counting looks at all pods.
const KEEP: Duration = Duration::from_secs(15);

/// What the pods of each application run under.
#[derive(Debug, Default)]
pub struct FederationCapacity(Mutex<Option<(Instant, BTreeMap<String, usize>)>>);

impl FederationCapacity {
    /// How many ServiceAccounts the route's application has to trust; 0 when no pod asks Entra itself.
    pub fn subjects(&self, route: &RouteRef, routes: &RouteStore, pods: &PodStore, now: Instant) -> usize {
        let Some(route) = routes.get(route) else { return 0 };
        let Some(application) = application(&route) else { return 0 };
        let mut kept = lock(&self.0);
        let counts = match kept.take() {
            Some((at, counts)) if now.saturating_duration_since(at) < KEEP => kept.insert((at, counts)),
            _ => kept.insert((now, count(&routes.state(), &pods.state()))),
        };
        counts.1.get(application).copied().unwrap_or_default()
    }
}

/// The pairs of namespace and ServiceAccount for each application.
fn count(routes: &[Arc<CachedRoute>], pods: &[Arc<WatchedPod>]) -> BTreeMap<String, usize> {
    let applications: HashMap<_, _> = routes
        .iter()
        .filter_map(|route| Some((ObjectRef::from_obj(&**route), application(route)?)))
        .collect();
    let mut subjects = BTreeMap::<&str, BTreeSet<(&str, &str)>>::new();
    for pod in pods.iter().filter(|pod| !pod.has_identity_binding()) {
        let Some(application) = route_of(pod).and_then(|route| applications.get(&route)) else { continue };
        subjects.entry(application).or_default().insert((pod.namespace(), pod.service_account()));
    }
    subjects.into_iter().map(|(application, subjects)| (application.to_owned(), subjects.len())).collect()
}

fn application(route: &CachedRoute) -> Option<&str> {
    route.summary().federated_application.as_deref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EnvVar, Pod};
    use kube::runtime::reflector::store;
    use kube::runtime::watcher::Event;
    use mailroute_operator_core::crd::MailRoute;
    use mailroute_operator_core::samples;

    use super::*;
    use crate::cache::pods::pod_store;

    fn cached(route: MailRoute) -> CachedRoute {
        CachedRoute::new(route, &Arc::default())
    }

    fn route(name: &str, namespace: &str) -> Arc<CachedRoute> {
        let mut route = samples::route();
        route.metadata.name = Some(name.into());
        route.metadata.namespace = Some(namespace.into());
        Arc::new(cached(route))
    }

    fn pod(name: &str, route: &str, namespace: &str, account: Option<&str>) -> Pod {
        let mut pod = samples::pod(name, "image");
        pod.metadata.namespace = Some(namespace.into());
        pod.metadata.labels = Some([("mailroute.dev/route".to_owned(), route.to_owned())].into());
        // Where the record is gone, the label says whose sidecar it is.
        pod.metadata.annotations = None;
        pod.spec.as_mut().unwrap().service_account_name = account.map(str::to_owned);
        pod
    }

    fn kept(pod: Pod) -> Arc<WatchedPod> {
        Arc::new(WatchedPod::of(pod))
    }

    #[test]
    fn each_service_account_of_each_namespace_counts_once_for_its_application() {
        let routes = [route("a", "shop"), route("b", "shop"), route("a", "office")];
        let pods = [
            pod("1", "a", "shop", Some("web")),
            pod("2", "a", "shop", Some("web")),
            pod("3", "b", "shop", Some("web")),
            pod("4", "b", "shop", Some("worker")),
            pod("5", "a", "office", Some("web")),
            pod("6", "a", "office", None),
            pod("7", "unknown", "office", Some("other")),
        ]
        .map(kept);
        let expected = [(samples::CLIENT_ID.to_owned(), 4)].into();
        assert_eq!(count(&routes, &pods), expected);
    }

    #[test]
    fn a_pod_with_an_identity_binding_needs_no_credential_of_its_own() {
        let variable = |name: &str| EnvVar { name: name.into(), ..EnvVar::default() };
        let with = |name: &str, variables: &[&str]| {
            let mut pod = pod(name, "a", "shop", Some(name));
            let containers = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
            let sidecar = containers.iter_mut().find(|container| container.name == "mailroute").unwrap();
            sidecar.env = Some(variables.iter().map(|name| variable(name)).collect());
            kept(pod)
        };
        let bound = with("bound", &["AZURE_CLIENT_ID", "AZURE_KUBERNETES_TOKEN_PROXY"]);
        let pods = [bound, with("plain", &["AZURE_CLIENT_ID"])];
        assert_eq!(count(&[route("a", "shop")], &pods), [(samples::CLIENT_ID.to_owned(), 1)].into());
    }

    #[test]
    fn a_count_is_kept_for_a_while() {
        let ((routes, mut routes_writer), (pods, mut pods_writer)) = (store(), pod_store());
        routes_writer.apply_watcher_event(&Event::Apply(cached(samples::route())));
        let (federation, now) = (FederationCapacity::default(), Instant::now());
        let route = ObjectRef::from_obj(&cached(samples::route()));
        let subjects = |now| federation.subjects(&route, &routes, &pods, now);
        assert_eq!(subjects(now), 0);
        pods_writer.apply_watcher_event(&Event::Apply(WatchedPod::of(samples::pod("web-1", "image"))));
        assert_eq!(subjects(now + KEEP - Duration::from_secs(1)), 0);
        assert_eq!(subjects(now + KEEP), 1);
        routes_writer.apply_watcher_event(&Event::Apply(cached(samples::direct())));
        assert_eq!(subjects(now + KEEP), 0, "of the same name, it asks Entra nothing");
    }
}
