//! The CEL rules of the definition, evaluated as an API server does: what breaks one is told in a sentence, and what
//! Microsoft allows breaks none.

mod defaults;
mod method;
mod promises;

use kube::core::cel::Validator;
use serde_json::{Value, json};

use super::definition::definition;

const CLIENT_ID: &str = "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9";

fn object(method: &str, block: &str, content: &Value) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop"},
        "spec": {
            "method": method,
            "tenant": {
                "id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
                "cloud": "Global",
                "acceptedDomains": ["contoso.com"],
            },
            block: content,
            // What the API server fills in before it looks at the rules.
            "delivery": {
                "mode": "DeliverOrQueue",
                "maxAge": "48h",
                "wait": "10s",
                "deadLetter": {"keep": 1000, "notifySender": false},
            },
            "limits": {
                "messagesPerMinute": 30,
                "recipientsPerDay": 10000,
                "connections": 3,
                "maxMessageBytes": 36_700_160,
                "maxRecipients": 500,
            },
            "listen": {"port": 25, "auth": "None", "bareLineEnds": "Normalize"},
            "sidecar": {"spool": {"sizeLimit": "1Gi"}, "logAddresses": "Full"},
        },
    })
}

fn submission() -> Value {
    let credential = json!({"type": "WorkloadIdentity", "subject": "Pod", "clientId": CLIENT_ID});
    object(
        "ClientSubmission",
        "clientSubmission",
        &json!({"mailbox": "noreply@contoso.com", "credential": credential}),
    )
}

fn relay() -> Value {
    object("SmtpRelay", "smtpRelay", &json!({"certificateSecretRef": {"name": "relay-tls"}}))
}

fn relay_by_address() -> Value {
    object("SmtpRelay", "smtpRelay", &json!({}))
}

fn direct() -> Value {
    object("DirectSend", "directSend", &json!({}))
}

/// The object with one value replaced (or, with null, taken away), as messages of the rules that it breaks.
fn broken(mut object: Value, pointer: &str, value: Value) -> Vec<String> {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(key)),
        value => drop(parent.insert(key.to_owned(), value)),
    }
    messages(&object)
}

fn messages(object: &Value) -> Vec<String> {
    let definition = definition().unwrap();
    let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    match Validator::new().validate(&serde_json::to_value(schema).unwrap(), object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

type Make = fn() -> Value;

fn all_broken(table: impl IntoIterator<Item = (Make, &'static str, Value, &'static str)>) {
    for (make, pointer, value, sentence) in table {
        let messages = broken(make(), pointer, value.clone());
        assert!(messages.iter().any(|m| m.contains(sentence)), "{pointer} = {value}: {messages:?}");
    }
}

fn none_broken(table: impl IntoIterator<Item = (Make, &'static str, Value)>) {
    for (make, pointer, value) in table {
        assert_eq!(broken(make(), pointer, value.clone()), Vec::<String>::new(), "{pointer} = {value}");
    }
}

#[test]
fn a_route_of_each_method_breaks_no_rule() {
    for make in [submission, relay, relay_by_address, direct] {
        assert_eq!(messages(&make()), Vec::<String>::new());
    }
}

#[test]
fn what_microsoft_allows_breaks_no_rule() {
    none_broken([
        (submission as Make, "/spec/tenant/id", json!("contoso.onmicrosoft.com")),
        (submission, "/spec/tenant/acceptedDomains", json!([])),
        (submission, "/spec/tenant/acceptedDomains", json!(["fabrikam.com", "Contoso.com"])),
        (submission, "/spec/clientSubmission/mailbox", json!("no-reply+orders@mail.contoso.com")),
        (submission, "/spec/tenant/authority", json!({"host": "login.m365.svc.cluster.local:8443"})),
        (relay, "/spec/tenant/cloud", json!("USGovernmentDoD")),
    ]);
}
