//! The resource definition on a real API server: what is refused, what is filled in, and what people read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Tier};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::crd::definition::definition;
use mailroute_operator_core::resolve::{PlatformSettings, resolve};
use serde_json::{Value, json};

use self::table::{Table, sentences};

#[path = "../../../crates/operator-core/tests/rules/table.rs"]
mod table;

async fn cluster_with_definition() -> Result<Cluster> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    Ok(cluster)
}

/// What the API server says to an object that somebody applies: nothing when it would take it.
async fn answer(cluster: &Cluster, object: Value) -> Result<Option<String>> {
    // As JSON, since a typed route would have the defaults of the types filled in, and not those of the schema.
    let resource = ApiResource::erase::<MailRoute>(&());
    let untyped: Api<DynamicObject> = Api::default_namespaced_with(cluster.client(), &resource);
    let route: DynamicObject = serde_json::from_value(object)?;
    match untyped.create(&PostParams { dry_run: true, ..PostParams::default() }, &route).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(refusal)) => Ok(Some(refusal.message)),
        Err(error) => Err(error.into()),
    }
}

/// The rules themselves are tested beside the types, by the same table; this shows that the API server compiles them, affords
/// them and words them so.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_what_cannot_work_and_says_why() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let table = Table::read();
    let mut said = Vec::new();
    for case in table.refused.iter().chain(&table.refused_by_type) {
        let told = answer(&cluster, table.object(case)).await?;
        let told = told.with_context(|| format!("was accepted: {case:?}"))?;
        ensure!(told.contains(&case.told), "{case:?}: {told}");
        said.push(told);
    }
    let definition = serde_json::to_value(definition()?)?;
    for sentence in sentences(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) {
        ensure!(said.iter().any(|told| told.contains(&sentence)), "nobody is told: {sentence}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_microsoft_allows() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let table = Table::read();
    for object in table.unchanged().chain(table.allowed.iter().map(|case| table.object(case))) {
        let told = answer(&cluster, object.clone()).await?;
        ensure!(told.is_none(), "{told:?}: {object:#}");
    }
    Ok(())
}

/// A route of each method and credential in the place of the one before: no rule of transition forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_become_any_other() -> Result<()> {
    let cluster = cluster_with_definition().await?;
    let resource = ApiResource::erase::<MailRoute>(&());
    let untyped: Api<DynamicObject> = Api::default_namespaced_with(cluster.client(), &resource);
    let (table, mut version) = (Table::read(), None);
    for mut object in table.unchanged().chain(table.unchanged()) {
        object["metadata"]["resourceVersion"] = json!(version);
        let route: DynamicObject = serde_json::from_value(object)?;
        let params = PostParams::default();
        let stored = match version {
            None => untyped.create(&params, &route).await?,
            Some(_) => untyped.replace("notifications", &params, &route).await?,
        };
        version = stored.metadata.resource_version;
    }
    Ok(())
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
        let valid = resolve(&route, &PlatformSettings::default()).route;
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
    ensure!(stored["spec"]["listen"]["maxSessions"] == json!(100), "{stored:#}");
    // These follow from the method and the service, so the operator fills them in.
    ensure!(stored["spec"]["limits"].get("messagesPerMinute").is_none(), "{stored:#}");

    let table = cluster.kubectl(&["get", "mr"]).await?;
    let head = table.lines().next().unwrap_or_default();
    for column in ["METHOD", "SENDER", "READY", "REASON", "PODS", "QUEUED", "AGE"] {
        ensure!(head.contains(column), "{column} is missing in {head}");
    }
    let explained = explained(&cluster, "mailroute.spec.clientSubmission").await?;
    for part in ["mailbox <string> -required-", "Address of the mailbox to log in as."] {
        ensure!(explained.contains(part), "{part} is missing in {explained}");
    }
    let explained = self::explained(&cluster, "mailroute.spec.delivery").await?;
    ensure!(explained.contains("Default: `DeliverOrQueue`."), "no default is told in {explained}");
    Ok(())
}

/// `kubectl explain`, its lines joined, once the API server has published the definition's schema: that follows within seconds and cannot
/// be watched, so it is asked for again.
async fn explained(cluster: &Cluster, what: &str) -> Result<String> {
    let ask = async || loop {
        match cluster.kubectl(&["explain", what]).await {
            Ok(text) => return text.split_whitespace().collect::<Vec<_>>().join(" "),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    tokio::time::timeout(PATIENCE, ask()).await.context("the schema is not published")
}
