//! The resource definition on a real API server: what is refused, what is filled in, and what people read.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Tier};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
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
    let route = serde_json::from_value(route).context("the manifest has the shape of a MailRoute")?;
    match api.create(&PostParams { dry_run: true, ..PostParams::default() }, &route).await {
        Ok(_) => anyhow::bail!("was accepted"),
        Err(error) => Ok(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_what_cannot_work_and_says_why() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let api: Api<MailRoute> = Api::default_namespaced(cluster.client());

    let text = refusal(&api, |r| r["spec"]["method"] = json!("DirectSend")).await?;
    ensure!(text.contains("not built yet") || text.contains("names"), "{text}");

    let text = refusal(&api, |r| r["spec"]["endpoint"]["host"] = json!("40.99.1.2")).await?;
    ensure!(text.contains("DNS name"), "{text}");

    let text = refusal(&api, |r| r["spec"]["clientSubmission"]["mailbox"] = json!("no mailbox")).await?;
    ensure!(text.contains("mailbox"), "{text}");

    let text = refusal(&api, |r| r["metadata"]["name"] = json!("n".repeat(64))).await?;
    ensure!(text.contains("63"), "{text}");

    let text = refusal(&api, |r| r["spec"]["listen"] = json!({"port": 0})).await?;
    ensure!(text.contains("port"), "{text}");
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
    ensure!(stored["spec"]["delivery"]["mode"] == json!("Deliver"), "{stored:#}");
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
