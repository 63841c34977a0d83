//! The health of a replica: what its readiness depends on, and the metrics that are read from its state when Prometheus asks.

use futures::FutureExt;
use kube::Resource;
use kube::runtime::reflector::Store;
use mailroute_operator_core::crd::status::Sidecars;
use mailroute_operator_core::kubernetes_version::NativeSidecars;
use tokio::sync::watch;

use super::Known;
use crate::admin::Check;
use crate::cache::route::{CachedRoute, RouteSummary};
use crate::cache::watch::UnreadableRoutes;
use crate::metrics::{Certificate, Metrics, RouteStanding};

/// What has to hold before requests are sent to this replica.
pub(super) fn checks(known: &Known, stop: &watch::Receiver<bool>) -> Vec<Check> {
    let (routes, pods) = (known.routes.clone(), known.pods.clone());
    let (kubernetes, certificates, stop) = (known.kubernetes.clone(), known.pki.ready.clone(), stop.clone());
    vec![
        Check { missing: "MailRoutes are still being listed", holds: Box::new(move || is_filled(&routes)) },
        Check { missing: "pods are still being listed", holds: Box::new(move || pods.is_filled()) },
        Check {
            missing: "the API server has not told its version yet",
            holds: Box::new(move || *kubernetes.borrow() != NativeSidecars::Unknown),
        },
        Check {
            missing: "the served certificate does not chain to the caBundle of the webhook configuration yet",
            holds: Box::new(move || *certificates.borrow()),
        },
        Check { missing: "this replica is stopping", holds: Box::new(move || !*stop.borrow()) },
    ]
}

fn is_filled<K>(store: &Store<K>) -> bool
where
    K: kube::runtime::reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    store.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok())
}

/// Sets the metrics that show a state, and prints those of single routes. Called when Prometheus asks.
pub(super) fn observer(
    known: &Known,
    malformed: &UnreadableRoutes,
) -> impl Fn(&Metrics, &mut String) + Send + Sync + use<> + 'static {
    let (routes, leadership) = (known.routes.clone(), known.leadership.clone());
    let (expiry, malformed) = (known.pki.expiry.clone(), malformed.clone());
    move |metrics, page| {
        metrics.leading(leadership.borrow().leading);
        metrics.malformed_routes(malformed.all().len());
        let expiry = *expiry.borrow();
        for (certificate, ends) in [(Certificate::Authority, expiry.ca), (Certificate::Leaf, expiry.leaf)] {
            if let Some(ends) = ends {
                metrics.certificate_expiry(certificate, ends.as_second());
            }
        }
        let routes = routes.state();
        let routes: Vec<_> = routes.iter().map(|route| standing(route)).collect();
        count_routes(&routes, metrics);
        metrics.print_routes(page, &routes);
    }
}

fn standing(route: &CachedRoute) -> RouteStanding<'_> {
    let (metadata, RouteSummary { ready, sidecars, queue, .. }) = (route.meta(), route.summary());
    RouteStanding {
        namespace: metadata.namespace.as_deref().unwrap_or_default(),
        name: metadata.name.as_deref().unwrap_or_default(),
        ready: *ready,
        sidecars: *sidecars,
        queue: *queue,
    }
}

fn count_routes(routes: &[RouteStanding<'_>], metrics: &Metrics) {
    for (name, ready) in [("True", Some(true)), ("False", Some(false)), ("Unknown", None)] {
        metrics.routes(name, routes.iter().filter(|route| route.ready == ready).count());
    }
    let sum = |of: fn(&Sidecars) -> u32| routes.iter().map(|route| of(&route.sidecars) as usize).sum();
    metrics.sidecars("injected", sum(|sidecars| sidecars.injected));
    metrics.sidecars("ready", sum(|sidecars| sidecars.ready));
    metrics.sidecars("converged", sum(|sidecars| sidecars.converged));
    metrics.sidecars("outdated", sum(|sidecars| sidecars.outdated));
    metrics.sidecars("missing", sum(|sidecars| sidecars.missing));
    metrics.sidecars("silent", sum(|sidecars| sidecars.silent));
}
