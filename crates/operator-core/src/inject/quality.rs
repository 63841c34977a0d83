//! A pod's class of quality of service, which the sidecar must not lower. Pure.
//!
//! A pod is Guaranteed when each container has limits of CPU and memory and requests that equal them.
//! Source: Kubernetes, "Pod Quality of Service Classes".

use serde_json::Value;

use super::names::CONTAINER;
use super::view::{PodView, name_of};
use crate::crd::units;

/// The resources that make up the class.
pub(super) const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Whether the pod is Guaranteed without the sidecar. One whose resources are set for the whole pod has its class by those.
pub(super) fn is_guaranteed(pod: &PodView<'_>) -> bool {
    let is_set_for_the_pod = pod.spec().get("resources").is_some_and(|resources| !resources.is_null());
    let mut own = pod.all_containers().filter(|container| name_of(container) != Some(CONTAINER)).peekable();
    !is_set_for_the_pod
        && own.peek().is_some()
        && own.all(|container| RESOURCES.iter().all(|resource| has_all_it_may_use(container, resource)))
}

/// A request that is left out is the limit.
fn has_all_it_may_use(container: &Value, resource: &str) -> bool {
    let amount = |kind: &str| {
        let value = container.pointer(&format!("/resources/{kind}/{resource}")).filter(|it| !it.is_null())?;
        // A whole number needs no quotes.
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(units::thousandths(&text))
    };
    match (amount("limits"), amount("requests")) {
        (Some(Some(limit)), None) => limit > 0,
        (Some(Some(limit)), Some(Some(request))) => limit > 0 && limit == request,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(spec: Value) -> bool {
        let pod = json!({"metadata": {}, "spec": spec});
        is_guaranteed(&PodView::new(&pod).unwrap())
    }

    #[test]
    fn a_pod_is_guaranteed_when_every_container_has_all_that_it_may_use() {
        let with = |resources: Value| json!({"name": "c", "resources": resources});
        let whole = with(
            json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}}),
        );
        let limits = with(json!({"limits": {"cpu": 1, "memory": "1Gi"}}));
        let less =
            with(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
        let half = with(json!({"limits": {"memory": "1Gi"}}));
        let ours = json!({"name": "mailroute", "resources": {"requests": {"cpu": "5m"}}});
        for (containers, init, expected) in [
            (json!([whole]), json!([]), true),
            (json!([limits]), json!([whole]), true),
            (json!([whole]), json!([ours]), true),
            (json!([less]), json!([]), false),
            (json!([half]), json!([]), false),
            (json!([whole, {"name": "c"}]), json!([]), false),
            (json!([whole]), json!([less]), false),
            (json!([]), json!([]), false),
        ] {
            assert_eq!(
                class(json!({"containers": containers, "initContainers": init})),
                expected,
                "{containers}"
            );
        }
        let of_the_pod = json!({"containers": [whole], "resources": {"limits": {"cpu": "4"}}});
        assert!(!class(of_the_pod), "the pod's own resources decide");
    }
}
