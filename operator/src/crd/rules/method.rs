//! The block that the method names, the credential in it, and the endpoint that fits it.

use serde_json::{Value, json};

use super::*;

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

const CREDENTIAL: &str = "/spec/clientSubmission/credential";

/// A field of a credential.
type Field = (&'static str, Value);

fn client_id() -> Field {
    ("clientId", CLIENT_ID.into())
}

fn secret(name: &str) -> Field {
    ("secretRef", json!({"name": name}))
}

fn secret_key(name: &str, key: &str) -> Field {
    ("secretRef", json!({"name": name, "key": key}))
}

fn credential(kind: &str, fields: impl IntoIterator<Item = Field>) -> Value {
    let fields = [("type", kind.into())].into_iter().chain(fields);
    fields.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn each_type_of_credential_has_what_it_needs() {
    let needed = [
        (credential("WorkloadIdentity", []), "clientId is for"),
        (credential("ClientSecret", [client_id()]), "secretRef is for"),
        (credential("ClientCertificate", [client_id()]), "secretRef is for"),
        (credential("Password", []), "secretRef is for"),
        (credential("ClientSecret", [secret_key("m365", "client-secret")]), "clientId is for"),
        (credential("Password", [secret("m365")]), "secretRef.key: name the key"),
    ];
    all_broken(needed.map(|(credential, sentence)| (submission as Make, CREDENTIAL, credential, sentence)));
    let enough = [
        credential("ClientSecret", [client_id(), secret_key("m365", "client-secret")]),
        credential("ClientCertificate", [client_id(), secret("m365")]),
        credential("ClientCertificate", [client_id(), secret_key("m365", "both.pem")]),
        credential("Password", [secret_key("m365", "password")]),
        // The API server fills the subject in.
        credential("WorkloadIdentity", [client_id(), ("subject", "Operator".into())]),
    ];
    none_broken(enough.map(|credential| (submission as Make, CREDENTIAL, credential)));
}

#[test]
fn no_type_of_credential_has_what_it_does_not_need() {
    let (key, operator) = (secret_key("m365", "client-secret"), ("subject", "Operator".into()));
    let unneeded = [
        (credential("WorkloadIdentity", [client_id(), key.clone()]), "secretRef is for"),
        (credential("Password", [client_id(), key.clone()]), "clientId is for"),
        (credential("ClientSecret", [operator, client_id(), key]), "subject Operator is for the type"),
    ];
    all_broken(unneeded.map(|(credential, sentence)| (submission as Make, CREDENTIAL, credential, sentence)));
}

#[test]
fn what_a_credential_names_can_be_a_name() {
    let application = ("clientId", "my application, which has 36 letters".into());
    let wrong = [
        (credential("WorkloadIdentity", [application]), "GUID"),
        (credential("ClientSecret", [client_id(), secret_key("M365", "k")]), "name of a Secret"),
        (credential("ClientSecret", [client_id(), secret_key("m365", "a/b")]), "key of a Secret"),
    ];
    all_broken(wrong.map(|(credential, sentence)| (submission as Make, CREDENTIAL, credential, sentence)));
    let certificate = json!({"name": "relay_tls"});
    all_broken([(relay as Make, "/spec/smtpRelay/certificateSecretRef", certificate, "name of a Secret")]);
}

fn lent() -> Value {
    let mut object = submission();
    object["spec"]["clientSubmission"]["credential"]["subject"] = "Operator".into();
    object
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
