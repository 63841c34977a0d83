//! Where the pod is in the objects that make pods.

use serde_json::{Value, json};

use super::view::{items, name_of};
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

/// The template of pods as its controller makes them: a StatefulSet adds a volume for each of its claim templates.
pub fn with_claims(object: &Value, template: &Value) -> Value {
    let claims = items(object.pointer("/spec/volumeClaimTemplates")).iter();
    let claims: Vec<_> = claims.filter_map(|claim| claim.pointer("/metadata/name")?.as_str()).collect();
    let mut pod = template.clone();
    if object.get("kind").and_then(Value::as_str) != Some("StatefulSet") || claims.is_empty() {
        return pod;
    }
    let own = items(template.pointer("/spec/volumes")).iter();
    // Of two of one name that of the claim counts.
    let own = own.filter(|volume| !name_of(volume).is_some_and(|name| claims.contains(&name))).cloned();
    let claimed =
        claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let volumes: Vec<_> = own.chain(claimed).collect();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("volumes".to_owned(), volumes.into());
    }
    pod
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
    fn a_stateful_set_gives_its_pods_a_volume_for_each_claim() {
        let template = json!({"spec": {"volumes": [{"name": "tls"}, {"name": "data", "emptyDir": {}}]}});
        let claims = json!([{"metadata": {"name": "data"}}, {"metadata": {"name": "mailroute-spool"}}]);
        let of = |kind: &str| {
            let object =
                json!({"kind": kind, "spec": {"template": template, "volumeClaimTemplates": claims}});
            with_claims(&object, &template)["spec"]["volumes"].clone()
        };
        let claim = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        assert_eq!(of("StatefulSet"), json!([{"name": "tls"}, claim("data"), claim("mailroute-spool")]));
        assert_eq!(of("Deployment"), template["spec"]["volumes"]);
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
