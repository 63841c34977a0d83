//! Pods whose MailRoute was deleted. They continue with its last configuration, and no status is left to show what becomes of their
//! mail: so that is logged, counted, and reported by Events on the pods.

use std::collections::HashMap;

use jiff::Timestamp;
use mailroute_operator_core::status::lost_messages::{self, LeftMessages};

use super::context::Context;
use crate::cache::route::RouteRef;
use crate::events::OwnReason;
use crate::lock;

/// Called when a pod of a deleted route was created, changed, reported or ended.
pub(super) fn look(context: &Context, route: &RouteRef, now: Timestamp) {
    let namespace = route.namespace.as_deref().unwrap_or_default();
    let pods = context.pods.of_route(route);
    let live: HashMap<_, _> = pods.iter().filter_map(|pod| Some((pod.uid(), pod.live_role()?))).collect();
    let is_news = context.orphans.is_news(route, !live.is_empty());
    if is_news {
        let (pods, name) = (live.len(), &route.name);
        tracing::warn!(
            namespace,
            route = name,
            pods,
            "the MailRoute was deleted; its pods continue with its last configuration until they end"
        );
    }
    let live = |uid: &str| live.get(uid).copied();
    let reports = lock(&context.reports).of(namespace, &route.name, now);
    for waiting in lost_messages::on_claims(&reports, live, is_news) {
        let (pod, message) = (waiting.reference(namespace), waiting.on_claim(&route.name));
        tracing::warn!(
            namespace,
            route = route.name,
            pod = waiting.pod,
            messages = waiting.messages,
            "messages wait on the claim of a gateway whose MailRoute was deleted"
        );
        context.events.warn(pod, OwnReason::MessagesOnClaim.as_str(), "Reconcile", message);
    }
    for left in lost_messages::left(&reports, |uid| live(uid).is_some()) {
        count(context, namespace, &route.name, &left);
        let (pod, message) = (left.reference(namespace), left.message(Some(&route.name)));
        context.events.warn(pod, OwnReason::MessagesLeft.as_str(), "Reconcile", message);
    }
    lock(&context.reports).told(namespace, &route.name, &reports, live);
}

/// Counts and logs what a pod left behind.
pub(super) fn count(context: &Context, namespace: &str, route: &str, left: &LeftMessages) {
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
