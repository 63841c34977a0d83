//! Whether a pod asks for a sidecar, and of which route: by its own label, or by that of its namespace.

use super::names::{ALLOW_WITHOUT, INJECT_LABEL};
use super::view::PodView;
use crate::crd::ROUTE_LABEL;

/// Marks a pod that a kubelet started from a file and only shows to the API server; changing it there has no effect.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// The sidecar of this route.
    Route(&'a str),
    /// Nothing: it has no label of ours.
    Unlabelled,
    /// Nothing: it does not want the route of its namespace.
    OptedOut,
    /// Nothing that could be done: it is a mirror pod.
    Mirror,
    /// Nothing: it is annotated to start without its sidecar.
    Excused,
}

impl<'a> Selection<'a> {
    /// Reads the pod's label.
    pub fn of(pod: &PodView<'a>) -> Self {
        pod.label(ROUTE_LABEL).map_or(Self::Unlabelled, |route| Self::named(pod, route))
    }

    /// Reads the labels of a pod in a namespace whose own label names the route `default`. One of the pod's own counts.
    pub fn in_namespace(pod: &PodView<'a>, default: &'a str) -> Self {
        match (pod.label(ROUTE_LABEL), pod.label(INJECT_LABEL)) {
            (Some(own), _) => Self::named(pod, own),
            (None, Some("false")) => Self::OptedOut,
            (None, _) => Self::named(pod, default),
        }
    }

    fn named(pod: &PodView<'a>, route: &'a str) -> Self {
        if pod.annotation(MIRROR).is_some() {
            Self::Mirror
        } else if pod.annotation(ALLOW_WITHOUT) == Some("true") {
            Self::Excused
        } else {
            Self::Route(route)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_label_names_the_route() {
        let table = [
            (
                json!({"labels": {"app": "web", ROUTE_LABEL: "notifications"}}),
                Selection::Route("notifications"),
            ),
            (json!({"labels": {"app": "web"}}), Selection::Unlabelled),
            (json!({}), Selection::Unlabelled),
            (json!({"annotations": {ROUTE_LABEL: "notifications"}}), Selection::Unlabelled),
            (json!({"labels": {ROUTE_LABEL: "a"}, "annotations": {MIRROR: "x"}}), Selection::Mirror),
            (
                json!({"labels": {ROUTE_LABEL: "a"}, "annotations": {ALLOW_WITHOUT: "true"}}),
                Selection::Excused,
            ),
            (
                json!({"labels": {ROUTE_LABEL: "a"}, "annotations": {ALLOW_WITHOUT: "yes"}}),
                Selection::Route("a"),
            ),
        ];
        for (metadata, expected) in table {
            let pod = json!({"metadata": metadata, "spec": {}});
            assert_eq!(Selection::of(&PodView::new(&pod).unwrap()), expected);
        }
    }

    #[test]
    fn the_label_of_the_namespace_counts_for_pods_without_one() {
        let table = [
            (json!({}), Selection::Route("default")),
            (json!({"labels": {"app": "web"}}), Selection::Route("default")),
            (json!({"labels": {ROUTE_LABEL: "own"}}), Selection::Route("own")),
            (json!({"labels": {INJECT_LABEL: "false"}}), Selection::OptedOut),
            (json!({"labels": {INJECT_LABEL: "true"}}), Selection::Route("default")),
            (json!({"labels": {INJECT_LABEL: "false", ROUTE_LABEL: "own"}}), Selection::Route("own")),
            (json!({"annotations": {INJECT_LABEL: "false"}}), Selection::Route("default")),
            (json!({"annotations": {MIRROR: "x"}}), Selection::Mirror),
            (json!({"annotations": {ALLOW_WITHOUT: "true"}}), Selection::Excused),
        ];
        for (metadata, expected) in table {
            let pod = json!({"metadata": metadata, "spec": {}});
            assert_eq!(Selection::in_namespace(&PodView::new(&pod).unwrap(), "default"), expected, "{pod}");
        }
    }
}
