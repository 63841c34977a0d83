//! Routes that were stored under a looser schema, on a real API server: those that cannot be read are passed over, those
//! that cannot be used say why, and the others are served as if nothing were.

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::{until, warnings};
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::{PATIENCE, condition_of, workload};
use e2e::wait_for;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation,
};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_another_shape_do_not_stop_the_others() -> Result<()> {
    let mut stage = Stage::set(&[], &["--dns-preflight", "false"], Lifetimes::default()).await?;
    store_despite_the_schema(&stage).await?;
    // It finds them when it starts, beside one that is well.
    stage.serve(None).await?;
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), stage.namespace.name());
    let accepted = |route: &MailRoute, status: &str| {
        condition_of(route, "Accepted").is_some_and(|condition| condition.status == status)
    };
    wait_for(routes.clone(), "notifications", |route| accepted(route, "True"), PATIENCE).await?;
    stage.admit().await?;

    let metric = "mailroute_routes_malformed";
    ensure!(stage.replicas[0].metric(metric).await? == Some(1.0), "it is not counted");
    until(async || {
        let told = warnings(stage.client(), "pigeon", "Malformed").await?;
        let [(1, note)] = &told[..] else { anyhow::bail!("it is told of as {told:?}") };
        ensure!(note.contains("Pigeon") && note.contains("Apply it again"), "{note}");
        Ok(())
    })
    .await?;
    let told = refusal(&stage, "pigeon").await?;
    ensure!(
        told.contains("cannot be read by this version of the operator") && told.contains("Pigeon"),
        "{told}"
    );

    // What can be read and not be used has a status to say it in, although its spec breaks the rules.
    let lazy = wait_for(routes.clone(), "lazy", |route| accepted(route, "False"), PATIENCE).await?;
    let accepted_of_lazy = condition_of(&lazy, "Accepted").context("Accepted")?;
    ensure!(accepted_of_lazy.reason == "Invalid", "{accepted_of_lazy:?}");
    ensure!(accepted_of_lazy.message.contains("spec.delivery.maxAge: \"2d\""), "{accepted_of_lazy:?}");
    let told = refusal(&stage, "lazy").await?;
    ensure!(told.contains("spec.delivery.maxAge"), "{told}");

    // Applied again as it should be, each is a route like any other.
    for name in ["pigeon", "lazy"] {
        let mut whole = workload::route(name, stage.namespace.name());
        whole["spec"]["delivery"] = Value::Null;
        routes.patch(name, &PatchParams::default(), &Patch::Merge(whole)).await?;
        wait_for(routes.clone(), name, |route| accepted(route, "True"), PATIENCE).await?;
    }
    ensure!(stage.replicas[0].metric(metric).await? == Some(0.0), "it is still counted");
    stage.namespace.finish()
}

/// Two routes that the schema would refuse, stored while it allows everything.
async fn store_despite_the_schema(stage: &Stage) -> Result<()> {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let anything = CustomResourceValidation { open_api_v3_schema: Some(serde_json::from_value(anything)?) };
    let schema = swap_schema(stage, Some(anything)).await?;

    let resource = ApiResource::erase::<MailRoute>(&());
    let untyped: Api<DynamicObject> = Api::namespaced_with(stage.client(), stage.namespace.name(), &resource);
    let mut pigeon = workload::route("pigeon", stage.namespace.name());
    pigeon["spec"]["method"] = json!("Pigeon");
    let mut lazy = workload::route("lazy", stage.namespace.name());
    lazy["spec"]["delivery"] = json!({"maxAge": "2d"});
    for (name, route) in [("pigeon", &pigeon), ("lazy", &lazy)] {
        // API servers learn of another schema when they get to it.
        until(async || {
            let params = PatchParams::apply("test");
            untyped.patch(name, &params, &Patch::Apply(route)).await?;
            Ok(())
        })
        .await?;
    }

    swap_schema(stage, schema).await?;
    pigeon["metadata"]["name"] = json!("another");
    until(async || {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let refused = untyped.create(&params, &serde_json::from_value(pigeon.clone())?).await;
        ensure!(refused.is_err(), "the schema is not back yet");
        Ok(())
    })
    .await
}

/// Gives the definition another schema, and returns the one it had.
async fn swap_schema(
    stage: &Stage,
    schema: Option<CustomResourceValidation>,
) -> Result<Option<CustomResourceValidation>> {
    let definitions: Api<CustomResourceDefinition> = Api::all(stage.client());
    let name = "mailroutes.mailroute.dev";
    let mut definition = definitions.get(name).await?;
    let version = definition.spec.versions.first_mut().context("a version")?;
    let before = std::mem::replace(&mut version.schema, schema);
    definitions.replace(name, &PostParams::default(), &definition).await?;
    Ok(before)
}

/// What somebody is told who makes a pod that names this route.
async fn refusal(stage: &Stage, route: &str) -> Result<String> {
    let mut pod = labelled_pod();
    pod["metadata"]["labels"]["mailroute.dev/route"] = json!(route);
    let pods: Api<Pod> = Api::namespaced(stage.client(), stage.namespace.name());
    match pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await {
        Err(kube::Error::Api(refusal)) => Ok(refusal.message),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}
