//! The plan as a JSON Patch (RFC 6902): additions, one number that grows, one list that gets longer, and the container of a gateway,
//! which is replaced by the completed one; for the API server, and for `mailroute-operator inject`.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, ReplaceOperation};
use serde_json::{Map, Value, json};

use super::names::{INJECTED, PORT_START, SAFE_TO_EVICT};
use super::plan::InjectionPlan;
use super::refusal::Refusal;
use super::view::PodView;
use crate::crd::ROUTE_LABEL;

/// The operations that carry the plan out on this pod. An array or object that the pod lacks is added with its content.
///
/// # Errors
/// [`Refusal::Malformed`] when the pod is not shaped like one; not for the pod that the plan was made of.
pub fn patch(plan: &InjectionPlan, pod: &Value) -> Result<Patch, Refusal> {
    let view = PodView::new(pod)?;
    let mut operations = Vec::new();
    operations.extend(annotations(&view, plan));
    if plan.port_start {
        operations.push(sysctl(&view));
    }
    operations.extend(plan.grace_period.map(|seconds| grace_period(&view, seconds)));
    operations.extend(appended(&view, "imagePullSecrets", &plan.pull_secrets));
    operations.extend(appended(&view, "volumes", &plan.volumes));
    operations.extend(plan.container.as_ref().map(|(at, container)| init_container(&view, *at, container)));
    operations.extend(
        plan.completed
            .as_ref()
            .map(|(at, container)| set(true, &["spec", "containers", &at.to_string()], container.clone())),
    );
    Ok(Patch(operations))
}

/// Makes the patch, if there is any, also label the pod with the route that its namespace gave it, unless it has a label. By that
/// label everybody finds the pods of a route: the operator, its NetworkPolicy, Prometheus.
pub fn labelling(patch: Option<Patch>, pod: &PodView<'_>, route: &str) -> Option<Patch> {
    if pod.label(ROUTE_LABEL).is_some() {
        return patch;
    }
    let label = if pod.has_labels() {
        add(&["metadata", "labels", ROUTE_LABEL], route.into())
    } else {
        add(&["metadata", "labels"], json!({ROUTE_LABEL: route}))
    };
    let others = patch.map(|patch| patch.0).unwrap_or_default();
    Some(Patch([vec![label], others].concat()))
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    let path = PointerBuf::from_tokens(path.iter().copied());
    PatchOperation::Add(AddOperation { path, value })
}

/// Adds a value, or puts it in place of the one that is there.
fn set(is_there: bool, path: &[&str], value: impl Into<Value>) -> PatchOperation {
    if is_there {
        let path = PointerBuf::from_tokens(path.iter().copied());
        return PatchOperation::Replace(ReplaceOperation { path, value: value.into() });
    }
    add(path, value.into())
}

fn annotations(pod: &PodView<'_>, plan: &InjectionPlan) -> Vec<PatchOperation> {
    let missing = [(INJECTED, &plan.annotation), (SAFE_TO_EVICT, &plan.safe_to_evict)];
    let missing = missing.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
    if pod.has_annotations() {
        return missing
            .map(|(key, value)| set(pod.annotation(key).is_some(), &["metadata", "annotations", key], value))
            .collect();
    }
    let added: Map<_, _> = missing.map(|(key, value)| (key.to_owned(), value.into())).collect();
    if added.is_empty() { Vec::new() } else { vec![add(&["metadata", "annotations"], added.into())] }
}

fn sysctl(pod: &PodView<'_>) -> PatchOperation {
    let sysctl = json!({"name": PORT_START, "value": "0"});
    match pod.security_context() {
        None => add(&["spec", "securityContext"], json!({"sysctls": [sysctl]})),
        Some(context) if context.get("sysctls").is_some_and(Value::is_array) => {
            add(&["spec", "securityContext", "sysctls", "-"], sysctl)
        }
        Some(_) => add(&["spec", "securityContext", "sysctls"], json!([sysctl])),
    }
}

fn grace_period(pod: &PodView<'_>, seconds: i64) -> PatchOperation {
    set(pod.grace_period().is_some(), &["spec", "terminationGracePeriodSeconds"], seconds)
}

/// Adds to an array of the spec, which the pod may lack.
fn appended(pod: &PodView<'_>, array: &str, missing: &[Value]) -> Vec<PatchOperation> {
    if missing.is_empty() {
        Vec::new()
    } else if pod.spec().get(array).is_some_and(Value::is_array) {
        missing.iter().map(|item| add(&["spec", array, "-"], item.clone())).collect()
    } else {
        vec![add(&["spec", array], missing.into())]
    }
}

fn init_container(pod: &PodView<'_>, at: usize, container: &Value) -> PatchOperation {
    if pod.spec().get("initContainers").is_some_and(Value::is_array) {
        add(&["spec", "initContainers", &at.to_string()], container.clone())
    } else {
        add(&["spec", "initContainers"], json!([container]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(pod: &Value) -> Value {
        let plan = InjectionPlan {
            container: Some((1, json!({"name": "mailroute"}))),
            completed: None,
            volumes: vec![json!({"name": "mailroute-route"})],
            pull_secrets: vec![json!({"name": "registry"})],
            port_start: true,
            grace_period: Some(90),
            annotation: Some("{}".into()),
            safe_to_evict: Some("cache,mailroute-spool".into()),
        };
        serde_json::to_value(patch(&plan, pod).unwrap()).unwrap()
    }

    #[test]
    fn what_is_absent_is_added_whole() {
        let pod = json!({"metadata": {}, "spec": {}});
        let sysctl = json!({"name": PORT_START, "value": "0"});
        assert_eq!(
            operations(&pod),
            json!([
                {"op": "add", "path": "/metadata/annotations", "value": {INJECTED: "{}", SAFE_TO_EVICT: "cache,mailroute-spool"}},
                {"op": "add", "path": "/spec/securityContext", "value": {"sysctls": [sysctl]}},
                {"op": "add", "path": "/spec/terminationGracePeriodSeconds", "value": 90},
                {"op": "add", "path": "/spec/imagePullSecrets", "value": [{"name": "registry"}]},
                {"op": "add", "path": "/spec/volumes", "value": [{"name": "mailroute-route"}]},
                {"op": "add", "path": "/spec/initContainers", "value": [{"name": "mailroute"}]},
            ])
        );
    }

    #[test]
    fn what_is_there_is_added_to() {
        let pod = json!({
            "metadata": {"annotations": {"a~b/c": "d", SAFE_TO_EVICT: "cache"}},
            "spec": {"volumes": [], "initContainers": [{"name": "istio-init"}], "securityContext": {"sysctls": []},
                     "terminationGracePeriodSeconds": 30, "imagePullSecrets": [{"name": "own"}]},
        });
        assert_eq!(
            operations(&pod),
            json!([
                {"op": "add", "path": "/metadata/annotations/mailroute.dev~1injected", "value": "{}"},
                {"op": "replace", "path": "/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict-local-volumes",
                 "value": "cache,mailroute-spool"},
                {"op": "add", "path": "/spec/securityContext/sysctls/-", "value": {"name": PORT_START, "value": "0"}},
                {"op": "replace", "path": "/spec/terminationGracePeriodSeconds", "value": 90},
                {"op": "add", "path": "/spec/imagePullSecrets/-", "value": {"name": "registry"}},
                {"op": "add", "path": "/spec/volumes/-", "value": {"name": "mailroute-route"}},
                {"op": "add", "path": "/spec/initContainers/1", "value": {"name": "mailroute"}},
            ])
        );
    }

    #[test]
    fn a_pod_that_got_its_route_from_its_namespace_is_labelled() {
        let label = |metadata: Value, patch: Option<Patch>| {
            let pod = json!({"metadata": metadata, "spec": {}});
            let patch = labelling(patch, &PodView::new(&pod).unwrap(), "notifications");
            serde_json::to_value(patch).unwrap()
        };
        let whole = json!({"op": "add", "path": "/metadata/labels", "value": {ROUTE_LABEL: "notifications"}});
        assert_eq!(label(json!({}), None), json!([whole]));
        assert_eq!(label(json!({"labels": null}), None), json!([whole]));
        let added =
            json!({"op": "add", "path": "/metadata/labels/mailroute.dev~1route", "value": "notifications"});
        assert_eq!(label(json!({"labels": {"app": "web"}}), None), json!([added]));
        let other = Patch(vec![add(&["spec", "volumes"], json!([]))]);
        assert_eq!(label(json!({"labels": {}}), Some(other.clone()))[0], added, "before the others");
        assert_eq!(
            label(json!({"labels": {ROUTE_LABEL: "own"}}), Some(other.clone())),
            serde_json::to_value(other).unwrap()
        );
        assert_eq!(label(json!({"labels": {ROUTE_LABEL: "own"}}), None), Value::Null);
    }

    #[test]
    fn a_completed_container_takes_the_place_of_the_one_that_was_there() {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "mailroute"}]}});
        let completed = Some((1, json!({"name": "mailroute", "image": "i"})));
        let patch = patch(&InjectionPlan { completed, ..InjectionPlan::default() }, &pod).unwrap();
        assert_eq!(
            serde_json::to_value(patch).unwrap(),
            json!([{"op": "replace", "path": "/spec/containers/1", "value": {"name": "mailroute", "image": "i"}}])
        );
    }

    #[test]
    fn a_security_context_without_sysctls_keeps_its_fields() {
        let pod = json!({"metadata": {}, "spec": {"securityContext": {"runAsUser": 1000}}});
        assert_eq!(operations(&pod)[1]["path"], "/spec/securityContext/sysctls");
    }
}
