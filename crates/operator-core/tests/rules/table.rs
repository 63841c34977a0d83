//! Routes that the schema refuses and routes that it takes: the table of `table.yaml`.
//!
//! Read here for whoever evaluates the rules, offline or by an API server.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    routes: BTreeMap<String, Value>,
    /// Refused by a rule.
    pub refused: Vec<Case>,
    /// Refused by a type, a bound or a list of values.
    pub refused_by_type: Vec<Case>,
    /// Taken.
    pub allowed: Vec<Case>,
}

/// A change to one of the routes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    route: String,
    #[serde(default)]
    change: Option<Value>,
    #[serde(default)]
    name: Option<String>,
    /// A part of the sentence that a person reads.
    #[serde(default)]
    pub told: String,
}

impl Table {
    /// The table, from the file beside this one.
    pub fn read() -> Self {
        serde_saphyr::from_str(include_str!("table.yaml")).expect("the table is of this shape")
    }

    /// The routes before they are changed.
    pub fn unchanged(&self) -> impl Iterator<Item = Value> {
        self.routes.values().map(|spec| object("notifications", spec))
    }

    /// The object as a person would apply it.
    pub fn object(&self, case: &Case) -> Value {
        let mut spec = self.routes[&case.route].clone();
        if let Some(change) = &case.change {
            json_patch::merge(&mut spec, change);
        }
        object(case.name.as_deref().unwrap_or("notifications"), &spec)
    }
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// The sentences of all rules in a schema.
pub fn sentences(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(schema, &mut found);
    found
}

fn collect(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            let rules = object.get("x-kubernetes-validations").and_then(Value::as_array);
            let messages = rules.into_iter().flatten().filter_map(|rule| rule["message"].as_str());
            found.extend(messages.map(str::to_owned));
            object.values().for_each(|inner| collect(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
