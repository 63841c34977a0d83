//! The end of a pod with mail in its sidecar: what can be sent in its grace period is sent, and the rest is told of.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, Scene, sidecar, workload};
use e2e::wait::wait_gone;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

async fn scene(name: &str) -> Result<Scene> {
    let scene = Scene::start(name).await?;
    scene.route(&workload::queueing("notifications", scene.namespace.name())).await?;
    Ok(scene)
}

/// Applies a Job that sends so many messages and is done at once, and waits until its pod has succeeded.
async fn sent_by_a_job(scene: &Scene, count: u32) -> Result<Pod> {
    let script = workload::send_numbers(0..count, "ada@contoso.com");
    scene.apply::<Job>(&workload::job("send", "notifications", &workload::pod_spec(&script))).await?;
    let pod = scene.pod_appears("batch.kubernetes.io/job-name=send").await?;
    let pod = scene.pod_succeeds(&pod).await?;
    let end = sidecar::end(&pod).context("the sidecar has ended")?;
    ensure!(end.exit_code == 0 && sidecar::restarts(&pod) == 0, "the sidecar ended with {end:?}");
    scene.job_completes("send").await?;
    Ok(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_sent_completes_when_a_slow_microsoft_has_taken_all_of_it() -> Result<()> {
    let scene = scene("job").await?;
    scene.microsoft.take_for_each_message(Duration::from_secs(3)).await?;
    let pod = sent_by_a_job(&scene, 5).await?;
    // What arrives last arrives in the sidecar's own time, after the application has ended.
    let messages = scene.microsoft.wait_for_numbers(0..5).await?;
    let ended = sidecar::application_ended(&pod).context("the application has ended")?;
    let last = messages.iter().map(|message| message.received_at).max().context("a message")?;
    ensure!(last > ended, "the last message at {last}, the end of the application at {ended}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_behind_is_an_event_and_no_failure() -> Result<()> {
    let scene = scene("left").await?;
    scene.microsoft.go_down().await?;
    let pod = sent_by_a_job(&scene, 2).await?;
    let told = scene.route_event("notifications", "MessagesLeft").await?;
    let pod = pod.metadata.name.context("a stored pod has a name")?;
    ensure!(told.contains(&format!("{pod} (2)")), "the Event says: {told}");
    let log = scene.log(&pod, "mailroute").await?;
    ensure!(log.contains("messages stay in the spool"), "the sidecar says: {log}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_deployment_is_gone_when_its_queue_has_been_delivered() -> Result<()> {
    let scene = scene("deleted").await?;
    scene.microsoft.go_down().await?;
    // The trap stands before the first word in the log: without it the application would use up the whole grace period.
    let send = workload::send_numbers(0..4, "ada@contoso.com");
    let script = format!("trap 'exit 0' TERM\n{send}\n{}", workload::WAIT);
    scene
        .apply::<Deployment>(&workload::deployment("shop", "notifications", &workload::pod_spec(&script)))
        .await?;
    let pod = scene.pod_appears("app=shop").await?;
    scene.log_shows(&pod, "app", "accepted 3").await?;

    scene.api::<Deployment>().delete("shop", &DeleteParams::background()).await?;
    let is_ending = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    e2e::wait_for(scene.api::<Pod>(), &pod, is_ending, PATIENCE).await?;
    ensure!(scene.microsoft.messages().await?.is_empty(), "nothing arrives while the port is closed");
    scene.microsoft.come_back().await?;
    wait_gone(scene.api::<Pod>(), &pod, PATIENCE).await?;
    scene.microsoft.wait_for_numbers(0..4).await?;
    scene.finish()
}
