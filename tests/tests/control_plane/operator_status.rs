//! The status of a route on a real API server: written when something changed, and only then.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::{until, warnings};
use e2e::replica::client_of_the_chart;
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::front::Front;
use e2e::scene::{PATIENCE, condition_of};
use e2e::wait_for;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};

/// How often the route is looked at without anything having changed.
const LOOKS: usize = 5;

/// A cluster without names to look up.
const FLAGS: [&str; 2] = ["--dns-preflight", "false"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_changes() -> Result<()> {
    let mut stage = Stage::set(&[], &FLAGS, Lifetimes::default()).await?;
    let front = Front::start(client_of_the_chart(&stage.cluster).await?).await?;
    stage.serve(Some(front.client()?)).await?;
    let pods: Api<Pod> = Api::namespaced(stage.client(), stage.namespace.name());
    let mut names = Vec::new();
    for _ in 0..2 {
        let made = pods.create(&PostParams::default(), &serde_json::from_value(labelled_pod())?).await?;
        names.push(made.name_any());
    }
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), stage.namespace.name());
    let both = |route: &MailRoute| {
        let injected = route.status.as_ref().map(|status| status.sidecars.injected);
        injected == Some(2) && says(route, "Ready", "WaitingForReports")
    };
    let before = wait_for(routes.clone(), "notifications", both, PATIENCE).await?;

    let written = written(&front);
    ensure!(written.0 > 0, "the proxy was not in between: {:?}", front.seen());
    for look in 0..LOOKS {
        let looks = looks(&stage).await?;
        // Something of a pod that a status has nothing to say about.
        let touch =
            Patch::Merge(json!({"metadata": {"annotations": {"example.com/look": look.to_string()}}}));
        pods.patch(&names[0], &PatchParams::default(), &touch).await?;
        until(async || {
            ensure!(self::looks(&stage).await? > looks, "the route is not looked at");
            Ok(())
        })
        .await?;
    }
    ensure!(self::written(&front) == written, "{:?} after {written:?}", self::written(&front));
    let after = routes.get("notifications").await?;
    ensure!(after.resource_version() == before.resource_version(), "{before:#?}\n{after:#?}");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transition_time_moves_with_the_status_alone_and_a_turn_is_one_event() -> Result<()> {
    let mut stage = Stage::set(&[], &FLAGS, Lifetimes::default()).await?;
    stage.serve(None).await?;
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), stage.namespace.name());
    let accepted = reaches(&routes, 1, "True").await?;

    // The platform lends its identity to nobody here.
    a_second_after(&accepted).await?;
    let lent = json!({"spec": {
        "tenant": {"authority": null}, "endpoint": null,
        "clientSubmission": {"credential": {"subject": "Operator"}},
    }});
    change(&routes, lent).await?;
    let refused = reaches(&routes, 2, "False").await?;
    ensure!(refused.reason == "OperatorIdentityNotAllowed", "{refused:?}");
    ensure!(refused.last_transition_time > accepted.last_transition_time, "{refused:?} after {accepted:?}");

    // Another spec, and the same to say of it.
    a_second_after(&refused).await?;
    change(&routes, json!({"spec": {"limits": {"messagesPerMinute": 20}}})).await?;
    let still = reaches(&routes, 3, "False").await?;
    ensure!(still.last_transition_time == refused.last_transition_time, "{still:?} after {refused:?}");

    change(&routes, json!({"spec": {"clientSubmission": {"credential": {"subject": "Pod"}}}})).await?;
    let again = reaches(&routes, 4, "True").await?;
    ensure!(again.last_transition_time > refused.last_transition_time, "{again:?} after {refused:?}");

    until(async || {
        let told = warnings(stage.client(), "notifications", "OperatorIdentityNotAllowed").await?;
        let [(1, note)] = &told[..] else { anyhow::bail!("it is told of as {told:?}") };
        ensure!(note.contains("broker.applications"), "{note}");
        Ok(())
    })
    .await?;
    stage.namespace.finish()
}

/// Patches of routes, and Events.
fn written(front: &Front) -> (u64, u64) {
    let seen = front.seen();
    let count = |word| seen.get(word).copied().unwrap_or_default();
    (count("PATCH mailroutes"), count("POST events"))
}

async fn looks(stage: &Stage) -> Result<f64> {
    let line = "mailroute_reconciles_total{outcome=\"ok\"}";
    stage.replicas[0].metric(line).await?.context("the metric")
}

fn says(route: &MailRoute, condition: &str, reason: &str) -> bool {
    condition_of(route, condition).is_some_and(|condition| condition.reason == reason)
}

async fn change(routes: &Api<MailRoute>, change: Value) -> Result<()> {
    routes.patch("notifications", &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

/// Waits until Accepted has this status for this generation, and returns it.
async fn reaches(routes: &Api<MailRoute>, generation: i64, status: &str) -> Result<Condition> {
    let accepted = |route: &MailRoute| {
        let observed = route.status.as_ref().and_then(|status| status.observed_generation);
        let accepted = condition_of(route, "Accepted")?;
        let is_it = accepted.status == status && accepted.observed_generation == Some(generation);
        (is_it && observed == Some(generation)).then(|| accepted.clone())
    };
    let route =
        wait_for(routes.clone(), "notifications", |route| accepted(route).is_some(), PATIENCE).await?;
    accepted(&route).context("it was just seen")
}

/// Waits until the clock shows another second than the condition, whose time has whole ones.
async fn a_second_after(condition: &Condition) -> Result<()> {
    until(async || {
        let passed = Timestamp::now().duration_since(condition.last_transition_time.0);
        ensure!(passed.as_secs_f64() > Duration::from_secs(1).as_secs_f64(), "only {passed:?} have passed");
        Ok(())
    })
    .await
}
