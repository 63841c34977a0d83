//! The resource definition on a real API server: what is refused, what is filled in, and what people read.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Tier};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use mailroute_operator::controller::validate::validate;
use mailroute_operator::crd::MailRoute;
use serde_json::{Value, json};
use std::time::Duration;

async fn cluster_with_definition() -> Result<Cluster> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    Ok(cluster)
}

/// Changes a valid route and returns the API server's refusal.
async fn refusal(api: &Api<MailRoute>, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut route = workload::route("notifications", "default");
    change(&mut route);
    // As JSON, since a typed route would have the defaults of the types filled in, and not those of the schema.
    let resource = ApiResource::erase::<MailRoute>(&());
    let untyped: Api<DynamicObject> = Api::default_namespaced_with(api.clone().into_client(), &resource);
    let route: DynamicObject = serde_json::from_value(route)?;
    match untyped.create(&PostParams { dry_run: true, ..PostParams::default() }, &route).await {
        Ok(_) => anyhow::bail!("was accepted"),
        Err(error) => Ok(error.to_string()),
    }
}

/// One change for each rule, and a part of the sentence that a person reads. The rules themselves are tested beside the
/// types; this shows that the API server compiles them, affords them and words them so.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let client_id = workload::CLIENT_ID;
    vec![
        ("/metadata/name", json!("n".repeat(64)), "at most 63 characters"),
        ("/spec/method", json!("Pigeon"), "ClientSubmission"),
        ("/spec/method", json!("DirectSend"), "exactly the block that method names"),
        ("/spec/directSend", json!({}), "exactly the block that method names"),
        ("/spec/tenant/id", json!("contoso"), "GUID or a verified domain"),
        ("/spec/tenant/acceptedDomains", json!(["@contoso.com"]), "domain names"),
        ("/spec/tenant/acceptedDomains", json!(["fabrikam.com"]), "not one of tenant.acceptedDomains"),
        ("/spec/tenant/acceptedDomains", json!(["contoso.com", "contoso.com"]), "Duplicate"),
        ("/spec/tenant/authority", json!({"host": "https://login.example/"}), "without https://"),
        ("/spec/tenant/authority", json!({"scope": "SMTP.Send"}), "/.default"),
        ("/spec/clientSubmission/mailbox", json!("no mailbox"), "address of one mailbox"),
        ("/spec/clientSubmission/credential/clientId", json!("x".repeat(36)), "GUID"),
        (
            "/spec/clientSubmission/credential",
            json!({"type": "WorkloadIdentity"}),
            "clientId is for the types",
        ),
        (
            "/spec/clientSubmission/credential",
            json!({"type": "ClientSecret", "clientId": client_id}),
            "secretRef is for the types",
        ),
        (
            "/spec/clientSubmission/credential",
            json!({"type": "Password", "secretRef": {"name": "m365"}}),
            "name the key of the Secret",
        ),
        (
            "/spec/clientSubmission/credential",
            json!({"type": "Password", "secretRef": {"name": "M365", "key": "password"}}),
            "name of a Secret",
        ),
        (
            "/spec/clientSubmission/credential",
            json!({"type": "Password", "secretRef": {"name": "m365", "key": "a/b"}}),
            "key of a Secret",
        ),
        ("/spec/endpoint/host", json!("40.99.1.2"), "DNS name"),
        ("/spec/endpoint/port", json!(465), "587"),
        ("/spec/endpoint/tls", json!("Opportunistic"), "needs TLS"),
        ("/spec/senders", json!({"allow": ["a"]}), "must be addresses"),
        ("/spec/delivery", json!({"maxAge": "2d"}), "from 1m to 336h"),
        ("/spec/delivery", json!({"maxAge": "99999h"}), "from 1m to 336h"),
        ("/spec/delivery", json!({"wait": "0s"}), "from 1s to 2m"),
        (
            "/spec/delivery",
            json!({"mode": "Deliver", "deadLetter": {"notifySender": true}}),
            "keeps no message",
        ),
        ("/spec/limits", json!({"messagesPerMinute": 0}), "messagesPerMinute"),
        ("/spec/limits", json!({"connections": 1000}), "connections"),
        ("/spec/listen", json!({"port": 0}), "port"),
        ("/spec/listen", json!({"port": 9025}), "another port"),
        ("/spec/sidecar", json!({"spool": {"sizeLimit": "1Mi"}}), "at least two messages"),
        ("/spec/sidecar", json!({"spool": {"sizeLimit": "1GB"}}), "sizeLimit"),
        ("/spec/sidecar", json!({"spool": {"storageClassName": "Fast SSD"}}), "name of a StorageClass"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_what_cannot_work_and_says_why() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let api: Api<MailRoute> = Api::default_namespaced(cluster.client());
    for (pointer, value, sentence) in refusals() {
        let told = refusal(&api, |route| replace(route, pointer, value.clone())).await;
        let told = told.with_context(|| format!("{pointer} = {value}"))?;
        ensure!(told.contains(sentence), "{pointer} = {value}: {told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_relay_and_direct_send_need_is_asked_for() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let api: Api<MailRoute> = Api::default_namespaced(cluster.client());
    let relay = json!({"certificateSecretRef": {"name": "relay-tls"}});
    let table = [
        (
            "DirectSend",
            "directSend",
            json!({}),
            "/spec/tenant/acceptedDomains",
            json!([]),
            "need tenant.acceptedDomains",
        ),
        ("SmtpRelay", "smtpRelay", relay.clone(), "/spec/endpoint", json!({"port": 587}), "use port 25"),
        (
            "SmtpRelay",
            "smtpRelay",
            relay.clone(),
            "/spec/endpoint",
            json!({"tls": "Opportunistic"}),
            "needs TLS",
        ),
        ("SmtpRelay", "smtpRelay", relay.clone(), "/spec/senders", json!({"allow": []}), "name at least one"),
        (
            "SmtpRelay",
            "smtpRelay",
            relay,
            "/spec/senders",
            json!({"allow": ["*@contoso.com"], "onViolation": "Rewrite"}),
            "needs a mailbox",
        ),
    ];
    for (method, block, content, pointer, value, sentence) in table {
        let told = refusal(&api, |route| {
            let spec = &mut route["spec"];
            spec["method"] = json!(method);
            spec[block] = content;
            spec["clientSubmission"] = Value::Null;
            spec["endpoint"] = Value::Null;
            replace(route, pointer, value);
        });
        let told = told.await.with_context(|| format!("{method}, {pointer}"))?;
        ensure!(told.contains(sentence), "{method}, {pointer}: {told}");
    }
    Ok(())
}

/// Puts a value in, or in place of, a field.
fn replace(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent) {
        parent[key] = value;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_taken_by_the_api_server_and_the_operator() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let folder = release::repository().join("docs/examples");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.display().to_string();
            // Strict: a field that the schema does not know is an error.
            let applied = cluster.kubectl(&["apply", "--validate=strict", "--filename", &file]).await;
            applied.with_context(|| format!("{file} is refused"))?;
        }
    }
    let api: Api<MailRoute> = Api::default_namespaced(cluster.client());
    for route in api.list(&ListParams::default()).await? {
        let name = route.metadata.name.clone().unwrap_or_default();
        let valid = validate(&route);
        ensure!(valid.is_ok(), "the operator cannot use what the API server took: {name}: {valid:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_in_the_schema_and_columns_are_printed() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let api: Api<MailRoute> = Api::default_namespaced(cluster.client());
    let params = PatchParams::apply("scene");
    let stored = api
        .patch("notifications", &params, &Patch::Apply(workload::route("notifications", "default")))
        .await?;
    let stored = serde_json::to_value(&stored)?;
    ensure!(stored["spec"]["listen"]["port"] == json!(25), "{stored:#}");
    ensure!(stored["spec"]["delivery"]["mode"] == json!("DeliverOrQueue"), "{stored:#}");
    ensure!(stored["spec"]["delivery"]["maxAge"] == json!("48h"), "{stored:#}");
    ensure!(stored["spec"]["sidecar"]["spool"]["sizeLimit"] == json!("1Gi"), "{stored:#}");
    ensure!(stored["spec"]["limits"]["messagesPerMinute"] == json!(30), "{stored:#}");
    ensure!(stored["spec"]["limits"]["maxMessageBytes"] == json!(36_700_160), "{stored:#}");

    let table = cluster.kubectl(&["get", "mr"]).await?;
    let head = table.lines().next().unwrap_or_default();
    for column in ["METHOD", "SENDER", "READY", "REASON", "PODS", "QUEUED", "AGE"] {
        ensure!(head.contains(column), "{column} is missing in {head}");
    }
    let explained = explained(&cluster, "mailroute.spec.clientSubmission").await?;
    ensure!(explained.contains("mailbox") && explained.contains("-required-"), "{explained}");
    Ok(())
}

/// `kubectl explain`, once the API server has published the definition's schema: that follows within seconds and cannot
/// be watched, so it is asked for again.
async fn explained(cluster: &Cluster, what: &str) -> Result<String> {
    let ask = async || loop {
        match cluster.kubectl(&["explain", what]).await {
            Ok(text) => return text,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    tokio::time::timeout(PATIENCE, ask()).await.context("the schema is not published")
}
