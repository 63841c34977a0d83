//! Other actors who write the webhook configuration: what is the operator's is put right, what is not is told of, and
//! nobody fights.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::{until, warnings};
use e2e::replica::stage::{Replica, Stage};
use e2e::scene::{PATIENCE, release};
use e2e::wait_for;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams, PostParams};
use mailroute_operator::pki::authority::Authority;
use mailroute_operator::pki::bundle::Bundle;
use mailroute_operator::pki::{Lifetimes, trust};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_another_actor_rewrites_is_put_right_and_the_actor_is_named() -> Result<()> {
    let stage = stage().await?;
    let replica = &stage.replicas[0];
    // Replaced whole, as kubectl replace and some installers do.
    let mut rewritten = stage.configurations().get(release::NAME).await?;
    let ours = trust::live(&rewritten);
    let theirs = Authority::mint(Timestamp::now(), Duration::from_secs(3600))?;
    let theirs = Bundle::from_iter([theirs.certificate().clone()]).to_pem();
    let entry = rewritten.webhooks.iter_mut().flatten().find(|entry| entry.name == trust::WEBHOOK);
    entry.context("our entry")?.client_config.ca_bundle = Some(ByteString(theirs.into_bytes()));
    let params = PostParams { field_manager: Some("enforcer".into()), ..PostParams::default() };
    let written = stage.configurations().replace(release::NAME, &params, &rewritten).await?;
    ensure!(trust::live(&written) != ours, "the bundle was not rewritten");
    let is_right = |configuration: &MutatingWebhookConfiguration| {
        configuration.metadata.resource_version != written.metadata.resource_version
            && trust::live(configuration) == ours
    };
    wait_for(stage.configurations(), release::NAME, is_right, PATIENCE).await?;
    until(async || stage.admit().await).await?;
    until(async || {
        let told = warnings(stage.client(), release::NAME, "CaBundleRepaired").await?;
        let [(1, note)] = &told[..] else { anyhow::bail!("told of it as {told:?}") };
        ensure!(
            note.starts_with("enforcer changed the caBundle") || note.starts_with("another writer"),
            "{note}"
        );
        Ok(())
    })
    .await?;
    let repaired = replica.metric("mailroute_ca_bundle_writes_total{result=\"repaired\"}").await?;
    ensure!(repaired == Some(1.0), "{repaired:?} repairs are counted");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_that_another_actor_rewrites_are_left_alone_and_told_of() -> Result<()> {
    let stage = stage().await?;
    let replica = &stage.replicas[0];
    // AKS's admissions enforcer adds to the namespaceSelector, again and again.
    for round in 0..10 {
        let added =
            json!({"key": "control-plane", "operator": "NotIn", "values": [format!("round-{round}")]});
        change(&stage, "namespaceSelector/matchExpressions/-", "add", added).await?;
        stage.admit().await?;
    }
    // Somebody takes the objectSelector away, and leaves the namespace out.
    change(&stage, "objectSelector", "replace", json!({})).await?;
    let left_out = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn",
        "values": [stage.namespace.name()]});
    let left = change(&stage, "namespaceSelector/matchExpressions/-", "add", left_out).await?;
    for reason in ["WebhookTooWide", "WebhookNamespacesExcluded"] {
        until(async || {
            let told = warnings(stage.client(), release::NAME, reason).await?;
            ensure!(told.len() == 1 && told[0].0 == 1, "{reason} is told of as {told:?}");
            Ok(())
        })
        .await?;
        is(replica, reason, 1.0).await?;
    }
    let now = stage.configurations().get(release::NAME).await?;
    ensure!(
        now.metadata.resource_version == left.metadata.resource_version,
        "the operator wrote what is not its own"
    );
    let writes = "mailroute_ca_bundle_writes_total";
    let published = replica.metric(&format!("{writes}{{result=\"published\"}}")).await?;
    ensure!(published == Some(1.0), "the bundle was written {published:?} times");
    let repaired = replica.metric(&format!("{writes}{{result=\"repaired\"}}")).await?;
    ensure!(repaired.unwrap_or_default() == 0.0, "nothing was to be repaired, and {repaired:?} times it was");
    // It is ready all the while: its certificate is accepted.
    replica.readiness(200).await?;

    // What is put right is no finding any more.
    let exists = json!({"matchExpressions": [{"key": "mailroute.dev/route", "operator": "Exists"}]});
    change(&stage, "objectSelector", "replace", exists).await?;
    is(replica, "WebhookTooWide", 0.0).await?;
    is(replica, "WebhookNamespaceEntryMissing", 0.0).await?;
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_deleted_and_made_again_is_served_again() -> Result<()> {
    let stage = stage().await?;
    let mut again = stage.configurations().get(release::NAME).await?;
    stage.configurations().delete(release::NAME, &Default::default()).await?;
    let missing = stage.replicas[0].readiness(503).await?;
    ensure!(missing.contains("caBundle"), "without an entry it says: {missing}");
    is(&stage.replicas[0], "WebhookEntryMissing", 1.0).await?;
    again.metadata = kube::api::ObjectMeta { name: again.metadata.name, ..Default::default() };
    again.webhooks.iter_mut().flatten().for_each(|entry| entry.client_config.ca_bundle = None);
    stage.configurations().create(&PostParams::default(), &again).await?;
    stage.replicas[0].readiness(200).await?;
    until(async || stage.admit().await).await?;
    is(&stage.replicas[0], "WebhookEntryMissing", 0.0).await?;
    stage.namespace.finish()
}

async fn stage() -> Result<Stage> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    stage.serve(None).await?;
    Ok(stage)
}

/// Changes a part of our entry, as somebody with a JSON patch.
async fn change(stage: &Stage, part: &str, op: &str, value: Value) -> Result<MutatingWebhookConfiguration> {
    let patch = json!([{"op": op, "path": format!("/webhooks/1/{part}"), "value": value}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
    let params = PatchParams { field_manager: Some("admissionsenforcer".into()), ..PatchParams::default() };
    Ok(stage.configurations().patch(release::NAME, &params, &patch).await?)
}

/// Waits until the metric of a finding has this value.
async fn is(replica: &Replica, reason: &str, wanted: f64) -> Result<()> {
    until(async || {
        let line = format!("mailroute_webhook_finding_status{{reason=\"{reason}\"}}");
        let value = replica.metric(&line).await?;
        ensure!(value == Some(wanted), "{line} is {value:?}");
        Ok(())
    })
    .await
}
