//! Routes under tools that wait, on a real API server: Helm 4's own wait, and what kstatus and Argo CD make of a route in each
//! state. Pods do not run here: the test reports for their sidecars.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::kstatus::{Verdicts, verdicts};
use e2e::replica::asking::until;
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::workload;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, ResourceExt};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::condition::Reason::{self, Connected, ExchangeRejectedToken, LoggedIn, TokenAcquired};
use mailroute_route::control::REPORT_PATH;
use mailroute_route::paths::CONTROL_AUDIENCE;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A cluster without names to look up.
const FLAGS: [&str; 2] = ["--dns-preflight", "false"];

/// Longest time that Helm may take, its own timeout being several times as long.
const SECONDS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_and_argo_cd_see_each_state_of_a_route_as_what_it_is() -> Result<()> {
    let mut stage = Stage::set(&[], &FLAGS, Lifetimes::default()).await?;
    let unseen = seen(&stage, "notifications").await?;
    ensure!(unseen.words() == ("InProgress", "Progressing"), "nobody has seen it yet: {unseen:?}");
    stage.serve(None).await?;
    becomes(&stage, "notifications", ("Current", "Healthy"), "No pod uses the route").await?;

    let taken = ["create", "configmap", "mailroute-taken", "--namespace", stage.namespace.name()];
    stage.cluster.kubectl(&taken).await?;
    apply(&stage, &workload::route("taken", stage.namespace.name())).await?;
    becomes(&stage, "taken", ("InProgress", "Progressing"), "does not belong to this MailRoute").await?;
    stage
        .cluster
        .kubectl(&["delete", "configmap", "mailroute-taken", "--namespace", stage.namespace.name()])
        .await?;
    becomes(&stage, "taken", ("Current", "Healthy"), "No pod").await?;

    apply(&stage, &lent(stage.namespace.name())).await?;
    becomes(&stage, "lent", ("Failed", "Degraded"), "broker.applications").await?;

    // A CronJob's runs: what the last one met is what is known between them.
    let failed = run(&stage, &[TokenAcquired, Connected, ExchangeRejectedToken]).await?;
    becomes(&stage, "notifications", ("InProgress", "Degraded"), "Add-MailboxPermission").await?;
    end(&stage, &failed).await?;
    becomes(&stage, "notifications", ("InProgress", "Degraded"), "this is what the last one met").await?;
    let well = run(&stage, &[TokenAcquired, Connected, LoggedIn]).await?;
    becomes(&stage, "notifications", ("Current", "Healthy"), "Mail can flow.").await?;
    end(&stage, &well).await?;
    becomes(&stage, "notifications", ("Current", "Healthy"), "this is what the last one met").await?;
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_4_waits_for_routes_without_pods_in_seconds_and_fails_at_once_on_one_that_cannot_be_accepted()
-> Result<()> {
    let mut stage = Stage::set(&[], &FLAGS, Lifetimes::default()).await?;
    stage.serve(None).await?;
    let namespace = stage.namespace.name().to_owned();
    let idle = workload::route("idle", &namespace);
    let nightly = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {
            "schedule": "0 3 1 1 *",
            "jobTemplate": {"spec": {"template": workload::template("nightly", &workload::pod_spec("true"))}},
        },
    });
    let chart = chart(&[idle, workload::route("nightly", &namespace), nightly])?;
    for attempt in ["install", "upgrade of an unchanged chart", "another upgrade"] {
        let (outcome, took) = deploy(&stage, chart.path()).await;
        outcome.with_context(|| attempt.to_owned())?;
        ensure!(took < SECONDS, "{attempt} took {took:?}");
    }

    fs::write(chart.path().join("templates/lent.json"), lent(&namespace).to_string())?;
    let (outcome, took) = deploy(&stage, chart.path()).await;
    let told = outcome.err().context("Helm takes a stalled route for ready")?.to_string();
    ensure!(told.contains("status: Failed") && told.contains("broker.applications"), "{told}");
    ensure!(took < SECONDS, "it waited for its timeout: {took:?}");

    // What is known to be wrong is waited for.
    fs::remove_file(chart.path().join("templates/lent.json"))?;
    let taken = ["create", "configmap", "mailroute-taken", "--namespace", &namespace];
    stage.cluster.kubectl(&taken).await?;
    fs::write(chart.path().join("templates/taken.json"), workload::route("taken", &namespace).to_string())?;
    let (outcome, _) = deploy_within(&stage, chart.path(), "5s").await;
    let told = outcome.err().context("Helm does not wait")?.to_string();
    ensure!(told.contains("status: InProgress"), "{told}");
    stage.namespace.finish()
}

/// A route that the platform does not allow.
fn lent(namespace: &str) -> Value {
    let mut route = workload::route("lent", namespace);
    route["spec"]["clientSubmission"]["credential"]["subject"] = json!("Operator");
    for of_the_platform in ["authority", "endpoint"] {
        let spec = &mut route["spec"];
        let part = if of_the_platform == "authority" { &mut spec["tenant"] } else { spec };
        part.as_object_mut().expect("an object").remove(of_the_platform);
    }
    route
}

/// A chart of these manifests.
fn chart(manifests: &[Value]) -> Result<TempDir> {
    let folder = TempDir::with_prefix("mailroute-chart-")?;
    fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 0.1.0\n")?;
    let templates = folder.path().join("templates");
    fs::create_dir(&templates)?;
    for (number, manifest) in manifests.iter().enumerate() {
        fs::write(templates.join(format!("{number}.json")), manifest.to_string())?;
    }
    Ok(folder)
}

async fn deploy(stage: &Stage, chart: &Path) -> (Result<String>, Duration) {
    deploy_within(stage, chart, "120s").await
}

/// `helm upgrade --install --wait`, and how long it took.
async fn deploy_within(stage: &Stage, chart: &Path, timeout: &str) -> (Result<String>, Duration) {
    let (began, chart) = (Instant::now(), chart.display().to_string());
    let deploy = ["upgrade", "--install", "shop", &chart, "--namespace", stage.namespace.name(), "--wait"];
    let outcome = stage.cluster.helm(&[&deploy[..], &["--timeout", timeout]].concat()).await;
    (outcome, began.elapsed())
}

async fn apply(stage: &Stage, route: &Value) -> Result<()> {
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), stage.namespace.name());
    let name = route["metadata"]["name"].as_str().context("a name")?;
    routes.patch(name, &PatchParams::apply("test"), &Patch::Apply(route)).await?;
    Ok(())
}

/// The verdicts on a route, exactly as the API server shows it.
async fn seen(stage: &Stage, route: &str) -> Result<Verdicts> {
    let get = ["get", "mailroute", route, "--namespace", stage.namespace.name(), "--output", "json"];
    verdicts(&serde_json::from_str(&stage.cluster.kubectl(&get).await?)?)
}

async fn becomes(stage: &Stage, route: &str, words: (&str, &str), because: &str) -> Result<()> {
    let met = until(async || {
        let found = seen(stage, route).await?;
        ensure!(found.words() == words && found.argo_cd.message.contains(because), "{found:?}");
        Ok(())
    });
    met.await.with_context(|| format!("{route} is not {words:?} because of {because:?}"))
}

/// A pod whose sidecar has reported that it met this.
async fn run(stage: &Stage, met: &[Reason]) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(stage.client(), stage.namespace.name());
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(labelled_pod())?).await?.name_any();
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &pod, "--audience", CONTROL_AUDIENCE];
    let asked = ["create", "token", "default", "--namespace", stage.namespace.name()];
    let token = stage.cluster.kubectl(&[&asked[..], &bound].concat()).await?;
    let observation = |reason: &Reason| {
        json!({
            "condition": reason.condition(), "holds": reason.holds(), "reason": reason, "message": "",
            "at": jiff::Timestamp::now().as_second(),
        })
    };
    let report = json!({
        "route": "notifications", "generation": 1, "sidecarVersion": "0.1.0",
        "observations": met.iter().map(observation).collect::<Vec<_>>(),
    });
    let control = stage.reviewer(stage.replicas[0].control).await?;
    until(async || {
        let request = hyper::Request::post(REPORT_PATH)
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(serde_json::to_vec(&report)?))?;
        let answer = control.send(request).await?.status();
        ensure!(answer.is_success(), "the report is answered {answer}");
        Ok(())
    })
    .await?;
    Ok(pod)
}

async fn end(stage: &Stage, pod: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(stage.client(), stage.namespace.name());
    pods.delete(pod, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}
