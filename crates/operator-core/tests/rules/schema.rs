//! The schema of a MailRoute, and what holds of all of it.

use mailroute_operator_core::crd::definition::definition;
use serde_json::Value;

/// Of the whole object.
pub fn schema() -> Value {
    let definition = serde_json::to_value(definition().unwrap()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Every part of a schema with its path, from the outside in.
fn parts<'s>(path: &str, schema: &'s Value, found: &mut Vec<(String, &'s Value)>) {
    found.push((path.to_owned(), schema));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        parts(&format!("{path}.{name}"), property, found);
    }
    if schema["items"].is_object() {
        parts(&format!("{path}[]"), &schema["items"], found);
    }
}

/// The API server adds up what rules may cost from these bounds, and refuses a definition that is too dear.
#[test]
fn every_text_and_list_of_the_spec_is_bounded() {
    let schema = schema();
    let mut found = Vec::new();
    parts("spec", &schema["properties"]["spec"], &mut found);
    let unbounded: Vec<_> = found
        .iter()
        .filter(|(_, part)| match part["type"].as_str() {
            Some("string") => part["maxLength"].is_null() && part["enum"].is_null(),
            Some("array") => part["maxItems"].is_null(),
            // An object of any keys would be a list by another name.
            Some("object") => !part["additionalProperties"].is_null(),
            _ => part["maxLength"].is_null() && part["maximum"].is_null() && part["type"] != "boolean",
        })
        .map(|(path, _)| path)
        .collect();
    assert!(found.len() > 60, "the schema is not read right: {found:#?}");
    assert!(unbounded.is_empty(), "{unbounded:?}");
}

/// What a running sidecar cannot follow shows as an outdated sidecar, so nothing has to be kept from being changed:
/// `docs/decisions/024-no-field-is-immutable.md`.
#[test]
fn every_field_may_be_changed() {
    assert!(!schema().to_string().contains("oldSelf"));
}

/// An API server answers a value that breaks a `pattern` with the expression, and one that breaks a rule with its sentence.
#[test]
fn no_error_shows_a_regular_expression() {
    let schema = schema();
    assert!(!schema["properties"]["spec"].to_string().contains("\"pattern\""));
    let sentences = super::table::sentences(&schema);
    let raw: Vec<_> = sentences.iter().filter(|sentence| sentence.contains(['^', '\\'])).collect();
    assert!(raw.is_empty(), "{raw:?}");
}
