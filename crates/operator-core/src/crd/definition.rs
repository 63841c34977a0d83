//! The CustomResourceDefinitions: what the types say, made ready for an API server and for people.
//!
//! Two forms of each are written, from one source: the plain manifest of `crds/`, and the template of the chart
//! `mailroute-crds`, which differs by the annotation that keeps the definition, and with it every route, on uninstall.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{MailRoute, MailboxUsage};

const HEAD: &str =
    "# Generated from crates/operator-core/src/crd by `make crds`; changes made here are lost.\n";

/// Makes Helm leave an object in place when the release is uninstalled.
const HELM_KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Why the definition cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The definition does not fit JSON.
    #[error("cannot represent the definition")]
    Json(#[from] serde_json::Error),
    /// The definition does not fit YAML.
    #[error("cannot print the definition as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The definition as an API server takes it.
///
/// # Errors
/// When the types describe something that a definition cannot hold; a programming error that the tests would show.
pub fn definition() -> Result<CustomResourceDefinition, PrintError> {
    Ok(serde_json::from_value(tidied()?)?)
}

/// A file that is generated from a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Where it goes, from the root of the checkout.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

/// The manifests of `crds/`, each with a head line.
///
/// # Errors
/// As [`definition`].
pub fn manifests() -> Result<[Generated; 2], PrintError> {
    Ok([
        Generated { path: "crds/mailroutes.mailroute.dev.yaml", text: print(&tidied()?)? },
        Generated { path: "crds/mailboxusages.mailroute.dev.yaml", text: print(&tidied_usage()?)? },
    ])
}

/// The templates of the chart `mailroute-crds`, each with a head line.
///
/// # Errors
/// As [`definition`].
pub fn chart_templates() -> Result<[Generated; 2], PrintError> {
    Ok([
        Generated { path: "charts/mailroute-crds/templates/mailroutes.yaml", text: print(&kept(tidied()?))? },
        Generated {
            path: "charts/mailroute-crds/templates/mailboxusages.yaml",
            text: print(&kept(tidied_usage()?))?,
        },
    ])
}

/// All manifests in one text.
///
/// # Errors
/// As [`definition`].
pub fn manifest() -> Result<String, PrintError> {
    Ok(manifests()?.map(|manifest| manifest.text).join("---\n"))
}

fn kept(mut definition: Value) -> Value {
    if let Some(Value::Object(metadata)) = definition.get_mut("metadata") {
        let keep = Map::from_iter([(HELM_KEEP.0.to_owned(), HELM_KEEP.1.into())]);
        metadata.insert("annotations".to_owned(), Value::Object(keep));
    }
    definition
}

fn print(definition: &Value) -> Result<String, PrintError> {
    Ok(format!("{HEAD}{}", serde_saphyr::to_string(definition)?))
}

fn tidied() -> Result<Value, PrintError> {
    let mut definition = serde_json::to_value(MailRoute::crd())?;
    tidy(&mut definition);
    if let Some(spec) = definition.pointer_mut(SPEC) {
        tell_defaults(spec);
    }
    if let Some(Value::Object(status)) = definition.pointer_mut(STATUS) {
        status.insert("default".to_owned(), json!({"observedGeneration": UNOBSERVED}));
    }
    Ok(definition)
}

fn tidied_usage() -> Result<Value, PrintError> {
    let mut definition = serde_json::to_value(MailboxUsage::crd())?;
    tidy(&mut definition);
    Ok(definition)
}

/// The schema of the spec in the definition.
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

/// The schema of the status in it.
const STATUS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status";

/// The generation that the status of a new route has observed. With none at all, tools that wait would take the route for done before
/// the operator has seen it.
const UNOBSERVED: i64 = -1;

/// Ends the description of a field with its default, which `kubectl explain` does not show by itself. That of a part is
/// told with the fields that have it.
fn tell_defaults(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    let default = object.get("default").and_then(|default| in_words(default, object.get("properties")));
    if let (Some(default), Some(Value::String(description))) = (default, object.get_mut("description")) {
        description.push_str(&format!(" Default: {default}."));
    }
    let fields = object.get_mut("properties").and_then(Value::as_object_mut);
    fields.into_iter().flatten().for_each(|(_, field)| tell_defaults(field));
}

fn in_words(default: &Value, fields: Option<&Value>) -> Option<String> {
    match default {
        Value::Object(parts) => {
            let is_told_there = |name: &String| fields.is_some_and(|it| it[name].get("default").is_some());
            let told = parts.iter().filter(|(name, _)| !is_told_there(name));
            let told: Vec<_> =
                told.filter_map(|(name, part)| Some(format!("{name} {}", in_words(part, None)?))).collect();
            (!told.is_empty()).then(|| told.join(", "))
        }
        Value::String(text) => Some(format!("`{text}`")),
        Value::Number(_) | Value::Bool(_) => Some(format!("`{default}`")),
        Value::Array(_) | Value::Null => None,
    }
}

/// Takes out what the derive writes and an API server should not see:
/// * `nullable`: without it `field: null` means "not set", so defaults apply and `has()` is false;
/// * formats of Rust's unsigned integers, which kubectl would warn of as unknown;
/// * fractions of whole bounds (`65535.0`);
/// * line breaks in descriptions, which come from the source's own width.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => tidy_object(object),
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_object(object: &mut Map<String, Value>) {
    if object.get("nullable") == Some(&Value::Bool(true)) {
        object.remove("nullable");
    }
    if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        object.remove("format");
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = reflowed(description);
    }
    for bound in ["minimum", "maximum"] {
        if let Some(whole) = object.get(bound).and_then(whole_number) {
            object.insert(bound.to_owned(), whole.into());
        }
    }
    object.values_mut().for_each(tidy);
}

#[expect(clippy::cast_possible_truncation, reason = "only whole numbers that an i64 holds get here")]
fn whole_number(bound: &Value) -> Option<i64> {
    let bound = bound.as_f64().filter(|bound| bound.fract() == 0.0 && bound.abs() < 9e15)?;
    Some(bound as i64)
}

/// Joins the lines of each paragraph; an empty line between paragraphs stays.
fn reflowed(description: &str) -> String {
    description
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;

    use super::*;

    fn schema_texts(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (key, inner) in object {
                    if key == "properties" {
                        for (field, schema) in inner.as_object().unwrap() {
                            if schema.get("description").is_none() {
                                texts.push(field.clone());
                            }
                        }
                    }
                    schema_texts(inner, texts);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| schema_texts(item, texts)),
            _ => {}
        }
    }

    #[test]
    fn every_field_is_documented() {
        let definition = tidied().unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut undocumented = Vec::new();
        schema_texts(&spec["spec"], &mut undocumented);
        schema_texts(&spec["status"], &mut undocumented);
        let usage = tidied_usage().unwrap();
        let schema = &usage["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        schema_texts(&schema["spec"], &mut undocumented);
        assert!(undocumented.is_empty(), "{undocumented:?}");
    }

    fn untold(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = field["description"].as_str().unwrap();
            let default = match &field["default"] {
                Value::String(text) => Some(text.clone()),
                scalar @ (Value::Number(_) | Value::Bool(_)) => Some(scalar.to_string()),
                _ => None,
            };
            if default.is_some_and(|default| !text.ends_with(&format!(" Default: `{default}`."))) {
                found.push(path.clone());
            }
            untold(&path, field, found);
        }
    }

    #[test]
    fn every_default_is_told_where_kubectl_explain_shows_it() {
        let definition = tidied().unwrap();
        let spec = definition.pointer(SPEC).unwrap();
        let mut found = Vec::new();
        untold("spec", spec, &mut found);
        assert!(found.is_empty(), "{found:?}");
        let resources = &spec["properties"]["sidecar"]["properties"]["resources"]["properties"];
        let told = resources["limits"]["description"].as_str().unwrap();
        assert!(told.ends_with("Default: cpu `500m`, memory `128Mi`."), "{told}");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let [routes, usages] = manifests().unwrap();
        for (manifest, definition) in [(routes, tidied().unwrap()), (usages, tidied_usage().unwrap())] {
            let read: Value = serde_saphyr::from_str(&manifest.text).unwrap();
            assert_eq!(read, definition, "{}", manifest.path);
        }
    }

    #[test]
    fn a_new_route_says_that_nobody_has_seen_it_yet() {
        let definition = tidied().unwrap();
        assert_eq!(definition.pointer(STATUS).unwrap()["default"], json!({"observedGeneration": -1}));
    }

    #[test]
    fn only_the_chart_keeps_the_definitions_on_uninstall() {
        assert!(
            chart_templates().unwrap().iter().all(|it| it.text.contains("helm.sh/resource-policy: keep"))
        );
        assert!(!manifest().unwrap().contains("helm.sh"));
    }

    #[test]
    fn the_templates_hold_nothing_that_helm_would_evaluate() {
        assert!(!chart_templates().unwrap().iter().any(|it| it.text.contains("{{")));
    }

    #[test]
    fn the_definition_is_namespaced_with_status_and_short_name() {
        let definition = definition().unwrap();
        assert_eq!(definition.metadata.name.as_deref(), Some("mailroutes.mailroute.dev"));
        assert_eq!(definition.spec.scope, "Namespaced");
        assert_eq!(definition.spec.names.short_names.as_deref(), Some(&["mr".to_owned()][..]));
        assert!(definition.spec.versions[0].subresources.as_ref().is_some_and(|sub| sub.status.is_some()));
        let columns = definition.spec.versions[0].additional_printer_columns.iter().flatten();
        let (usual, wide): (Vec<_>, Vec<_>) = columns.partition(|column| column.priority.is_none());
        let names = |columns: &[&CustomResourceColumnDefinition]| -> String {
            columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&usual), "Method Sender Ready Reason Pods Queued Age");
        assert_eq!(names(&wide), "Endpoint Converged Silent Outdated Oldest Dead Lost Rate Day");
    }
}
