//! Where the pod is in the objects that make pods.

use serde_json::Value;

use crate::crd::ROUTE_LABEL;

/// Where the common kinds have their pod template; a CronJob's is further down, in that of its Job.
const TEMPLATES: [&str; 2] = ["/spec/template", "/spec/jobTemplate/spec/template"];

/// Where the pod, or the template of pods, is in an object, as a JSON pointer; empty for a pod itself. `None` when it is not
/// where the common kinds have it. Unknown kinds, such as an Argo Rollout, are recognised by their fields.
pub fn pod_pointer(object: &Value) -> Option<&'static str> {
    if object.get("kind").and_then(Value::as_str) == Some("Pod") {
        return Some("");
    }
    TEMPLATES.into_iter().find(|pointer| {
        object.pointer(pointer).and_then(|template| template.pointer("/spec/containers")).is_some()
    })
}

/// Whether the object itself carries the label of a route.
pub fn is_labelled(object: &Value) -> bool {
    object.pointer("/metadata/labels").is_some_and(|labels| labels.get(ROUTE_LABEL).is_some())
}

/// Whether anything in the object, apart from its own metadata, carries the label of a route.
pub fn has_label_within(object: &Value) -> bool {
    object.as_object().into_iter().flatten().any(|(field, value)| field != "metadata" && has_label(value))
}

/// Whether anything in the object carries the label of a route.
pub fn has_label(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.get("labels").is_some_and(|labels| labels.get(ROUTE_LABEL).is_some())
                || fields.values().any(has_label)
        }
        Value::Array(items) => items.iter().any(has_label),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_found_where_the_common_kinds_have_it() {
        let template = json!({"metadata": {}, "spec": {"containers": []}});
        for (object, pointer) in [
            (json!({"kind": "Pod", "spec": {}}), Some("")),
            (json!({"kind": "Rollout", "spec": {"template": template}}), Some("/spec/template")),
            (
                json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}}),
                Some("/spec/jobTemplate/spec/template"),
            ),
            (json!({"kind": "Service", "spec": {}}), None),
            (json!({"kind": "Certificate", "spec": {"template": {"metadata": {}}}}), None),
            (json!({"kind": "Workflow", "spec": {"templates": [template]}}), None),
        ] {
            assert_eq!(pod_pointer(&object), pointer, "{object}");
        }
    }

    #[test]
    fn a_label_is_found_however_deep_it_is() {
        let labels = json!({"labels": {"mailroute.dev/route": "notifications"}});
        for (object, itself, within) in [
            (json!({"metadata": labels}), true, false),
            (json!({"spec": {"podMetadata": labels}}), false, true),
            (json!({"spec": {"workers": [{"template": {"metadata": labels}}]}}), false, true),
            (json!({"template": labels}), false, true),
            (json!({"spec": {"selector": {"matchLabels": {"mailroute.dev/route": "x"}}}}), false, false),
            (json!({"metadata": {"labels": {}}}), false, false),
        ] {
            assert_eq!((is_labelled(&object), has_label_within(&object)), (itself, within), "{object}");
        }
    }
}
