//! Pods that come to an end of their own: the sidecar neither holds them up nor changes what their end says.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, Scene, sidecar, workload};
use e2e::wait::is_complete;
use e2e::wait_for;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};

/// Runs with the next minute of the clock.
fn every_minute(name: &str, route: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": "* * * * *",
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": workload::job(name, route, spec)["spec"]},
        },
    })
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// The sidecar was asked to end once, and ended well.
fn ensure_sidecar_ended_well(pod: &Pod) -> Result<()> {
    let end = sidecar::end(pod).context("the sidecar has ended")?;
    ensure!(end.exit_code == 0 && sidecar::restarts(pod) == 0, "the sidecar ended with {end:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_leaves_a_clean_history_and_a_job_that_fails_says_so() -> Result<()> {
    let scene = Scene::start("jobs").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    let hourly = workload::pod_spec(&workload::send_numbers(0..1, "ada@contoso.com"));
    scene.apply::<CronJob>(&every_minute("report", "notifications", &hourly)).await?;

    // Its mail is no excuse: the pod failed, by the application's own code.
    let script = format!("{}\nexit 3", workload::send_numbers(1..2, "ada@contoso.com"));
    scene.apply::<Job>(&workload::job("fails", "notifications", &workload::pod_spec(&script))).await?;
    scene.job_fails("fails").await?;
    let pod = scene.pod_labelled("batch.kubernetes.io/job-name=fails").await?;
    let code = sidecar::application_end(&pod).context("the application has ended")?.exit_code;
    ensure!(phase(&pod) == Some("Failed") && code == 3, "{:?} with exit code {code}", phase(&pod));
    ensure_sidecar_ended_well(&pod)?;

    let has_succeeded = |job: &CronJob| {
        let status = job.status.as_ref();
        status.is_some_and(|it| it.last_successful_time.is_some() && it.active.iter().flatten().count() == 0)
    };
    wait_for(scene.api::<CronJob>(), "report", has_succeeded, PATIENCE).await?;
    let history = scene.api::<Job>().list(&ListParams::default()).await?.items;
    let runs: Vec<_> = history.iter().filter(|job| job.metadata.name.as_deref() != Some("fails")).collect();
    ensure!(!runs.is_empty() && runs.iter().all(|job| is_complete(job)), "the history: {runs:?}");
    let run = runs[0].metadata.name.as_deref().context("a stored Job has a name")?;
    let pod = scene.pod_labelled(&format!("batch.kubernetes.io/job-name={run}")).await?;
    ensure!(phase(&pod) == Some("Succeeded"), "the pod of {run} is {:?}", phase(&pod));
    ensure_sidecar_ended_well(&pod)?;
    scene.microsoft.wait_for_messages(2).await?;
    scene.finish()
}
