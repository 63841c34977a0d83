//! Reads a pod as the JSON that the API server sent.
//!
//! The pod is never turned into typed structures and back, as those would drop fields that a newer Kubernetes knows.
//! An absent array, a null and an empty one mean the same.

use serde_json::{Map, Value};

use super::refusal::{Refusal, in_one_line};

/// A pod, or the template of one.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    metadata: &'a Map<String, Value>,
    spec: &'a Map<String, Value>,
}

impl<'a> PodView<'a> {
    /// Looks at an object with `metadata` and `spec`.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when a field that matters is of the wrong type.
    pub fn new(pod: &'a Value) -> Result<Self, Refusal> {
        let object = |field: &'static str| {
            pod.get(field).and_then(Value::as_object).ok_or(Refusal::Malformed { field })
        };
        let view = Self { metadata: object("metadata")?, spec: object("spec")? };
        view.check_types()?;
        Ok(view)
    }

    fn check_types(&self) -> Result<(), Refusal> {
        let is = |holder: &Map<String, Value>, key: &str, right: fn(&Value) -> bool| {
            holder.get(key).is_none_or(|value| value.is_null() || right(value))
        };
        let security = self.spec.get("securityContext").and_then(Value::as_object);
        let checks = [
            ("metadata.annotations", is(self.metadata, "annotations", Value::is_object)),
            ("metadata.labels", is(self.metadata, "labels", Value::is_object)),
            ("spec.containers", is(self.spec, "containers", Value::is_array)),
            ("spec.initContainers", is(self.spec, "initContainers", Value::is_array)),
            ("spec.volumes", is(self.spec, "volumes", Value::is_array)),
            ("spec.imagePullSecrets", is(self.spec, "imagePullSecrets", Value::is_array)),
            ("spec.securityContext", is(self.spec, "securityContext", Value::is_object)),
            (
                "spec.terminationGracePeriodSeconds",
                is(self.spec, "terminationGracePeriodSeconds", Value::is_i64),
            ),
            (
                "spec.securityContext.sysctls",
                security.is_none_or(|context| is(context, "sysctls", Value::is_array)),
            ),
        ];
        checks
            .into_iter()
            .find(|(_, right)| !right)
            .map_or(Ok(()), |(field, _)| Err(Refusal::Malformed { field }))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.metadata.get("labels")?.get(key)?.as_str()
    }

    /// Whether the labels are there, if only as an empty object.
    pub fn has_labels(&self) -> bool {
        self.metadata.get("labels").is_some_and(Value::is_object)
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.metadata.get("annotations")?.get(key)?.as_str()
    }

    /// All annotations.
    pub fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let annotations = self.metadata.get("annotations").and_then(Value::as_object);
        annotations.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// The keys of all annotations.
    pub fn annotation_keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.metadata
            .get("annotations")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
    }

    /// Name for people: the name, or what a name will be generated from. In one line, and no longer than a name may be.
    pub fn display_name(&self) -> String {
        let text = |key| self.metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        match (text("name"), text("generateName")) {
            (Some(name), _) => in_one_line(name),
            (None, Some(prefix)) => in_one_line(&format!("{prefix}*")),
            (None, None) => "(unnamed)".to_owned(),
        }
    }

    /// Whether the annotations are there, if only as an empty object.
    pub fn has_annotations(&self) -> bool {
        self.metadata.get("annotations").is_some_and(Value::is_object)
    }

    /// `spec` itself.
    pub const fn spec(&self) -> &'a Map<String, Value> {
        self.spec
    }

    /// `spec.securityContext`, when it is there.
    pub fn security_context(&self) -> Option<&'a Map<String, Value>> {
        self.spec.get("securityContext").and_then(Value::as_object)
    }

    /// The supplementary group that owns the pod's volumes.
    pub fn fs_group(&self) -> Option<i64> {
        self.security_context()?.get("fsGroup")?.as_i64()
    }

    /// `spec.terminationGracePeriodSeconds`, when it is there.
    pub fn grace_period(&self) -> Option<i64> {
        self.spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64)
    }

    /// `spec.initContainers`, in order.
    pub fn init_containers(&self) -> &'a [Value] {
        items(self.spec.get("initContainers"))
    }

    /// `spec.containers`, in order.
    pub fn containers(&self) -> &'a [Value] {
        items(self.spec.get("containers"))
    }

    /// Every container: those of the application, init containers and ephemeral ones.
    pub fn all_containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let spec = self.spec;
        lists.into_iter().flat_map(move |list| items(spec.get(list)))
    }

    /// `spec.volumes`.
    pub fn volumes(&self) -> &'a [Value] {
        items(self.spec.get("volumes"))
    }

    /// The value that the pod gives to a sysctl.
    pub fn sysctl(&self, name: &str) -> Option<&'a str> {
        let sysctls = items(self.security_context()?.get("sysctls"));
        sysctls.iter().find(|sysctl| name_of(sysctl) == Some(name))?.get("value")?.as_str()
    }
}

/// `name` of a container, volume or sysctl.
pub fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// The items of an array that may be absent.
pub fn items(array: Option<&Value>) -> &[Value] {
    array.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_null_and_empty_mean_the_same() {
        for pod in [
            json!({"metadata": {}, "spec": {}}),
            json!({"metadata": {"annotations": null, "labels": null},
                   "spec": {"volumes": null, "initContainers": null, "securityContext": null}}),
            json!({"metadata": {"annotations": {}}, "spec": {"volumes": [], "securityContext": {"sysctls": null}}}),
        ] {
            let view = PodView::new(&pod).unwrap();
            assert!(view.volumes().is_empty() && view.init_containers().is_empty());
            assert_eq!((view.annotation_keys().count(), view.sysctl("x")), (0, None));
        }
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        for (pod, field) in [
            (json!({"spec": {}}), "metadata"),
            (json!({"metadata": {}}), "spec"),
            (json!({"metadata": {}, "spec": {"volumes": {}}}), "spec.volumes"),
            (json!({"metadata": {"annotations": []}, "spec": {}}), "metadata.annotations"),
            (
                json!({"metadata": {}, "spec": {"securityContext": {"sysctls": 1}}}),
                "spec.securityContext.sysctls",
            ),
        ] {
            assert_eq!(PodView::new(&pod).unwrap_err(), Refusal::Malformed { field });
        }
    }

    #[test]
    fn a_pod_without_a_name_is_called_after_its_prefix() {
        let pod = json!({"metadata": {"generateName": "web-5d4f-"}, "spec": {}});
        assert_eq!(PodView::new(&pod).unwrap().display_name(), "web-5d4f-*");
    }

    #[test]
    fn whatever_a_pod_is_called_its_name_is_shown_in_one_line_and_no_longer_than_a_name() {
        for (name, beginning) in [("x".repeat(4096), "xxx"), ("\u{7f}\n".repeat(2048), "\\u{7f}\\n\\u{7f}")] {
            let pod = json!({"metadata": {"name": name}, "spec": {}});
            let shown = PodView::new(&pod).unwrap().display_name();
            assert!(shown.len() <= 253 && shown.starts_with(beginning) && !shown.contains('\n'), "{shown}");
        }
    }
}
