//! Pods whose MailRoute was deleted. They run on with its last configuration, and nothing has a status any more to show
//! what becomes of their mail: so it is logged, counted, and told by Events on the pods themselves.

use std::collections::HashSet;
use std::sync::Mutex;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::losses::{self, Left};
use super::pods::sidecar;
use super::watch::route_of;
use crate::crd::MailRoute;
use crate::events::OwnReason;
use crate::lock;

/// Deleted routes that are remembered at most; beyond it some may be logged again.
const REMEMBERED: usize = 4096;

/// Deleted routes whose pods run on, so that each is logged once.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<HashSet<ObjectRef<MailRoute>>>);

impl Orphans {
    /// Whether pods run on without the route and nobody was told yet. The route counts as new when it comes back.
    fn is_news(&self, route: &ObjectRef<MailRoute>, has_pods: bool) -> bool {
        let mut known = lock(&self.0);
        if !has_pods {
            known.remove(route);
            return false;
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(route.clone())
    }
}

/// Looks after what a deleted route has left: a pod was created, changed, reported or ended.
pub(super) fn look(context: &Context, route: &ObjectRef<MailRoute>, now: Timestamp) {
    let namespace = route.namespace.as_deref().unwrap_or_default();
    let pods = context.pods.state();
    let of_route = pods.iter().filter(|pod| route_of(pod).as_ref() == Some(route) && sidecar(pod).is_some());
    let live: HashSet<String> = of_route.filter_map(|pod| pod.uid()).collect();
    if context.orphans.is_news(route, !live.is_empty()) {
        let (pods, name) = (live.len(), &route.name);
        tracing::warn!(
            namespace,
            route = name,
            pods,
            "the MailRoute was deleted; its pods go on with its last configuration until they end"
        );
    }
    let is_live = |uid: &str| live.contains(uid);
    let reports = lock(&context.reports).of(namespace, &route.name, now);
    for left in losses::left(&reports, is_live) {
        count(context, namespace, &route.name, &left);
        let (pod, message) = (left.reference(namespace), left.message(Some(&route.name)));
        context.events.warn(pod, OwnReason::MessagesLeft.as_str(), "Reconcile", message);
    }
    lock(&context.reports).told(namespace, &route.name, &reports, is_live);
}

/// Counts and logs what a pod left behind.
pub(super) fn count(context: &Context, namespace: &str, route: &str, left: &Left) {
    context.metrics.messages_lost(left.messages);
    tracing::warn!(
        namespace,
        route,
        pod = left.pod,
        messages = left.messages,
        message_ids = left.message_ids.join(" "),
        "messages were left in the queue of a pod that has ended"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_route_with_pods_is_news_once_until_its_pods_are_gone() {
        let (orphans, route) = (Orphans::default(), ObjectRef::new("notifications").within("shop"));
        let news = [true, true, false, true].map(|has_pods| orphans.is_news(&route, has_pods));
        assert_eq!(news, [true, false, false, true]);
    }
}
