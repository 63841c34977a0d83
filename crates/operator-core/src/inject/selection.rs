//! Whether a pod asks for a sidecar, and of which route.

use super::names::ALLOW_WITHOUT;
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
    /// Nothing that could be done: it is a mirror pod.
    Mirror,
    /// Nothing: it is annotated to start without its sidecar.
    Excused,
}

impl<'a> Selection<'a> {
    /// Reads the pod's label.
    pub fn of(pod: &PodView<'a>) -> Self {
        match pod.label(ROUTE_LABEL) {
            None => Self::Unlabelled,
            Some(_) if pod.annotation(MIRROR).is_some() => Self::Mirror,
            Some(_) if pod.annotation(ALLOW_WITHOUT) == Some("true") => Self::Excused,
            Some(route) => Self::Route(route),
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
}
