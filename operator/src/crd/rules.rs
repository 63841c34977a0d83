//! The CEL rules of the definition, evaluated as an API server does: what breaks one is told in a sentence, and what
//! Microsoft allows breaks none.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::cel::Validator;
use serde_json::{Value, json};

use super::MailRoute;
use super::definition::definition;
use super::delivery::DeliveryMode;
use super::sidecar::ResourceList;

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
fn exactly_the_block_that_the_method_names_is_wanted() {
    let exactly = "exactly the block that method names";
    all_broken([
        (submission as Make, "/spec/clientSubmission", Value::Null, exactly),
        (submission, "/spec/smtpRelay", json!({}), exactly),
        (submission, "/spec/directSend", json!({}), exactly),
        (submission, "/spec/method", json!("SmtpRelay"), exactly),
        (relay, "/spec/smtpRelay", Value::Null, exactly),
        (relay, "/spec/directSend", json!({}), exactly),
        (direct, "/spec/directSend", Value::Null, exactly),
        (direct, "/spec/method", json!("ClientSubmission"), exactly),
    ]);
}

#[test]
fn a_tenant_mailbox_or_name_that_cannot_be_is_told_in_a_sentence() {
    all_broken([
        (submission as Make, "/spec/clientSubmission/mailbox", json!("noreply"), "address of one mailbox"),
        (
            submission,
            "/spec/clientSubmission/mailbox",
            json!("a@contoso.com,b@contoso.com"),
            "address of one mailbox",
        ),
        (
            submission,
            "/spec/clientSubmission/mailbox",
            json!("No Reply <noreply@contoso.com>"),
            "address of one",
        ),
        (
            submission,
            "/spec/clientSubmission/mailbox",
            json!("noreply@fabrikam.com"),
            "tenant.acceptedDomains",
        ),
        (
            submission,
            "/spec/clientSubmission/mailbox",
            json!("noreply@notcontoso.com"),
            "tenant.acceptedDomains",
        ),
        (submission, "/spec/tenant/id", json!("contoso"), "GUID or a verified domain"),
        (submission, "/spec/tenant/cloud", json!("USGovernmentDoD"), "set endpoint.host"),
        (submission, "/spec/tenant/acceptedDomains", json!(["@contoso.com"]), "domain names"),
        (submission, "/spec/tenant/authority", json!({"host": "https://login.example/"}), "without https://"),
        (submission, "/spec/tenant/authority", json!({"scope": "SMTP.Send"}), "/.default"),
        (relay, "/spec/tenant/acceptedDomains", json!([]), "need tenant.acceptedDomains"),
        (direct, "/spec/tenant/acceptedDomains", json!([]), "need tenant.acceptedDomains"),
        (submission, "/metadata/name", json!("n".repeat(64)), "at most 63 characters"),
    ]);
}

#[test]
fn each_type_of_credential_has_what_it_needs_and_no_more() {
    let credential = "/spec/clientSubmission/credential";
    let secret = json!({"name": "m365", "key": "client-secret"});
    all_broken([
        (
            submission as Make,
            "/spec/clientSubmission/credential/clientId",
            json!("my application, which has 36 letters"),
            "GUID",
        ),
        (submission, "/spec/clientSubmission/credential/clientId", Value::Null, "clientId is for"),
        (submission, "/spec/clientSubmission/credential/secretRef", secret.clone(), "secretRef is for"),
        (submission, credential, json!({"type": "ClientSecret", "clientId": CLIENT_ID}), "secretRef is for"),
        (
            submission,
            credential,
            json!({"type": "ClientCertificate", "clientId": CLIENT_ID}),
            "secretRef is for",
        ),
        (submission, credential, json!({"type": "Password"}), "secretRef is for"),
        (submission, credential, json!({"type": "ClientSecret", "secretRef": secret}), "clientId is for"),
        (
            submission,
            credential,
            json!({"type": "Password", "clientId": CLIENT_ID, "secretRef": secret}),
            "clientId is for",
        ),
        (
            submission,
            credential,
            json!({"type": "Password", "secretRef": {"name": "m365"}}),
            "secretRef.key: name the key",
        ),
        (
            submission,
            credential,
            json!({"type": "ClientSecret", "clientId": CLIENT_ID, "secretRef": {"name": "M365", "key": "k"}}),
            "name of a Secret",
        ),
        (
            submission,
            credential,
            json!({"type": "ClientSecret", "clientId": CLIENT_ID, "secretRef": {"name": "m365", "key": "a/b"}}),
            "key of a Secret",
        ),
        (relay, "/spec/smtpRelay/certificateSecretRef", json!({"name": "relay_tls"}), "name of a Secret"),
    ]);
    none_broken([
        (
            submission as Make,
            credential,
            json!({"type": "ClientSecret", "clientId": CLIENT_ID, "secretRef": secret}),
        ),
        (
            submission,
            credential,
            json!({"type": "ClientCertificate", "clientId": CLIENT_ID, "secretRef": {"name": "m365"}}),
        ),
        (
            submission,
            credential,
            json!({"type": "ClientCertificate", "clientId": CLIENT_ID, "secretRef": {"name": "m365", "key": "both.pem"}}),
        ),
        (submission, credential, json!({"type": "Password", "secretRef": secret})),
    ]);
    // The API server fills the subject in.
    let lent = json!({"type": "WorkloadIdentity", "subject": "Operator", "clientId": CLIENT_ID});
    none_broken([(submission as Make, credential, lent)]);
    let secret_of_the_operator =
        json!({"type": "ClientSecret", "subject": "Operator", "clientId": CLIENT_ID, "secretRef": secret});
    all_broken([(
        submission as Make,
        credential,
        secret_of_the_operator,
        "subject Operator is for the type",
    )]);
}

#[test]
fn a_route_cannot_carry_the_operators_identity_elsewhere() {
    let platforms = "whoever runs the operator says";
    all_broken([
        (lent as Make, "/spec/endpoint", json!({"host": "smtp.evil.example"}), platforms),
        (lent, "/spec/endpoint", json!({"caBundleRef": {"name": "ca", "key": "ca.crt"}}), platforms),
        (lent, "/spec/tenant/authority", json!({"host": "login.evil.example"}), platforms),
        (lent, "/spec/tenant/authority", json!({"audience": "api://else"}), platforms),
    ]);
    none_broken([
        (lent as Make, "/spec/tenant/cloud", json!("China")),
        (lent, "/spec/tenant/cloud", json!("USGovernmentDoD")),
    ]);
}

fn lent() -> Value {
    let mut object = submission();
    object["spec"]["clientSubmission"]["credential"]["subject"] = "Operator".into();
    object
}

#[test]
fn the_endpoint_fits_the_method() {
    all_broken([
        (submission as Make, "/spec/endpoint", json!({"host": "40.101.1.2"}), "not an IP address"),
        (submission, "/spec/endpoint", json!({"host": "2603:1026::1"}), "not an IP address"),
        (submission, "/spec/endpoint", json!({"host": "[::1]"}), "not an IP address"),
        (submission, "/spec/endpoint", json!({"port": 465}), "587"),
        (submission, "/spec/endpoint", json!({"tls": "Opportunistic"}), "needs TLS"),
        (relay, "/spec/endpoint", json!({"port": 587}), "use port 25"),
        (relay, "/spec/endpoint", json!({"tls": "Opportunistic"}), "needs TLS"),
        (direct, "/spec/endpoint", json!({"port": 587}), "use port 25"),
    ]);
    none_broken([
        (submission as Make, "/spec/endpoint", json!({"host": "smtp.partner.outlook.cn", "port": 25})),
        (submission, "/spec/endpoint", json!({"tls": "Required"})),
        (relay, "/spec/endpoint", json!({"host": "contoso-com.mail.protection.outlook.com", "port": 25})),
        (relay_by_address, "/spec/endpoint", json!({"tls": "Opportunistic"})),
        (direct, "/spec/endpoint", json!({"tls": "Opportunistic"})),
        (direct, "/spec/endpoint", json!({"tls": "Required"})),
    ]);
}

#[test]
fn what_is_promised_can_be_kept() {
    all_broken([
        (submission as Make, "/spec/delivery/maxAge", json!("2d"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("0s"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("337h"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("-48h"), "1m to 336h"),
        (submission, "/spec/delivery/wait", json!("0s"), "1s to 2m"),
        (submission, "/spec/delivery/wait", json!("500ms"), "1s to 2m"),
        (submission, "/spec/delivery/wait", json!("3m"), "1s to 2m"),
        (
            submission,
            "/spec/delivery",
            json!({"mode": "Deliver", "maxAge": "48h", "wait": "10s",
                   "deadLetter": {"keep": 0, "notifySender": true}}),
            "keeps no message",
        ),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("64Mi"), "at least two messages"),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("1024"), "at least two messages"),
        (submission, "/spec/sidecar/spool/storageClassName", json!("Fast SSD"), "name of a StorageClass"),
        (submission, "/spec/listen/port", json!(9025), "another port"),
    ]);
    none_broken([
        (submission as Make, "/spec/delivery/maxAge", json!("1h30m")),
        (submission, "/spec/delivery/maxAge", json!("336h")),
        (submission, "/spec/delivery/wait", json!("1m30s")),
        (submission, "/spec/delivery/mode", json!("Deliver")),
        (submission, "/spec/delivery/mode", json!("Queue")),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("70Mi")),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("1073741824")),
        (submission, "/spec/sidecar/spool/storageClassName", json!("managed-csi")),
        (submission, "/metadata/name", json!("n".repeat(63))),
    ]);
}

#[test]
fn one_message_does_not_need_more_than_a_day_has() {
    all_broken([
        (submission as Make, "/spec/limits/recipientsPerDay", json!(499), "could never be sent"),
        (submission, "/spec/limits/recipientsPerDay", json!(1), "could never be sent"),
    ]);
    none_broken([
        (submission as Make, "/spec/limits/recipientsPerDay", json!(500)),
        (submission, "/spec/limits/maxRecipients", json!(1)),
        (relay, "/spec/limits/recipientsPerDay", json!(1)),
        (direct, "/spec/limits/recipientsPerDay", json!(1)),
    ]);
}

#[test]
fn senders_are_addresses_or_whole_domains() {
    all_broken([
        (
            submission as Make,
            "/spec/senders",
            json!({"allow": ["noreply"], "onViolation": "Reject"}),
            "*@contoso.com",
        ),
        (submission, "/spec/senders", json!({"allow": ["*"], "onViolation": "Reject"}), "*@contoso.com"),
        (
            relay,
            "/spec/senders",
            json!({"allow": ["*@contoso.com"], "onViolation": "Rewrite"}),
            "needs a mailbox",
        ),
        (
            direct,
            "/spec/senders",
            json!({"allow": ["*@contoso.com"], "onViolation": "Rewrite"}),
            "needs a mailbox",
        ),
        (relay, "/spec/senders", json!({"allow": [], "onViolation": "Reject"}), "name at least one"),
    ]);
    none_broken([
        (submission as Make, "/spec/senders", json!({"allow": [], "onViolation": "Rewrite"})),
        (
            submission,
            "/spec/senders",
            json!({"allow": ["orders@contoso.com", "*@alerts.contoso.com"], "onViolation": "Reject"}),
        ),
        (direct, "/spec/senders", json!({"allow": ["*@contoso.com"], "onViolation": "Reject"})),
    ]);
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

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let mut object = submission();
    let filled: MailRoute = serde_json::from_value(object.clone()).unwrap();
    let spec = object["spec"].as_object_mut().unwrap();
    for part in ["delivery", "limits", "listen", "sidecar"] {
        spec.remove(part);
    }
    let route: MailRoute = serde_json::from_value(object).unwrap();
    assert_eq!(route, filled);
    assert_eq!(route.spec.delivery.mode, DeliveryMode::DeliverOrQueue);
    assert_eq!(route.spec.sidecar.resources.requests.memory, Some(Quantity("32Mi".to_owned())));
}

#[test]
fn every_default_of_the_types_is_in_the_schema() {
    let definition = serde_json::to_value(definition().unwrap()).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let bare: MailRoute = serde_json::from_value({
        let mut object = submission();
        for part in ["delivery", "limits", "listen", "sidecar"] {
            object["spec"].as_object_mut().unwrap().remove(part);
        }
        object
    })
    .unwrap();
    let bare = serde_json::to_value(bare).unwrap();
    for part in ["delivery", "limits", "listen", "sidecar"] {
        assert_eq!(spec[part]["default"], bare["spec"][part], "{part}");
        for (field, schema) in spec[part]["properties"].as_object().unwrap() {
            assert_eq!(schema["default"], bare["spec"][part][field], "{part}.{field}");
        }
    }
}

#[test]
fn a_quantity_may_be_written_as_a_number() {
    let list: ResourceList = serde_json::from_value(json!({"cpu": 1, "ephemeral-storage": "1Gi"})).unwrap();
    assert_eq!(list.cpu, Some(Quantity("1".to_owned())));
    assert_eq!(list.ephemeral_storage, Some(Quantity("1Gi".to_owned())));
}
