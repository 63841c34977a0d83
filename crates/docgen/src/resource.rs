//! `docs/reference/mailroute.md`, from the definition of the resource.

use anyhow::Result;
use mailroute_operator_core::crd::definition;
use serde_json::Value;

const HEAD: &str = "\
<!-- Written from crates/operator-core/src/crd; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# MailRoute

`mailroute.dev/v1alpha1`, kind `MailRoute`, short name `mr`, namespaced. `kubectl explain mailroute.spec` shows the same on
the command line. Fields without \"required\" are optional. References are to objects in the route's namespace.
";

pub fn page() -> Result<String> {
    let definition = serde_json::to_value(definition::definition()?)?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut page = HEAD.to_owned() + &rules(schema);
    for (part, title) in [("spec", "Spec"), ("status", "Status")] {
        page.push_str(&format!("\n## {title}\n\n{}\n", text(&schema["properties"][part]["description"])));
        page.push_str(&rules(&schema["properties"][part]));
        fields(&mut page, part, &schema["properties"][part]);
    }
    Ok(page)
}

fn fields(page: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let facts = facts(field, required.contains(&name.as_str()));
        page.push_str(&format!("\n### `{path}`\n\n{facts}\n\n{}\n", text(&field["description"])));
        page.push_str(&rules(field));
        fields(page, &path, field);
        fields(page, &format!("{path}[]"), &field["items"]);
    }
}

/// Type, necessity, values, default and bounds, in one line.
fn facts(field: &Value, required: bool) -> String {
    let mut facts = vec![kind(field)];
    if required {
        facts.push("required".to_owned());
    }
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<_> = values.iter().filter(|value| !value.is_null()).map(code).collect();
        facts.push(format!("one of {}", values.join(", ")));
    }
    facts.extend(bounds(field, "minimum", "maximum", ""));
    facts.extend(bounds(field, "minLength", "maxLength", " characters"));
    facts.extend(bounds(field, "minItems", "maxItems", " items"));
    facts.join(" · ")
}

fn kind(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => format!("list of {}", kind(&field["items"])),
        Some(kind) => kind.to_owned(),
        None => "integer or string".to_owned(),
    }
}

fn bounds(field: &Value, least: &str, most: &str, unit: &str) -> Option<String> {
    let number = |key: &str| field[key].as_f64();
    match (number(least), number(most)) {
        (Some(least), Some(most)) if least == most => Some(format!("{least}{unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}

/// What the API server refuses, in the words that it uses.
fn rules(schema: &Value) -> String {
    let messages = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    messages.map(|rule| format!("\nRefused with: \"{}\"\n", text(&rule["message"]))).collect()
}

fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// Prose for Markdown, which would take a bare `<` outside of code for HTML and swallow what follows.
fn text(value: &Value) -> String {
    let parts = value.as_str().unwrap_or_default().split('`').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_with_its_default_bounds_and_rules() {
        let page = page().unwrap();
        assert!(page.contains("### `spec.listen.port`\n"), "{page}");
        assert!(page.contains("Default: `25`.") && page.contains("1 to 65535"), "{page}");
        assert!(page.contains("Refused with: \"set exactly the block that method names"), "{page}");
    }
}
