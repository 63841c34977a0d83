//! The end of a pod with mail in its sidecar: what can be sent in its grace period is sent, and the rest is told of.

use std::collections::BTreeSet;
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
    ensure!(told.starts_with("2 messages were left") && told.contains(&pod), "the Event says: {told}");
    for number in 0..2 {
        ensure!(told.contains(&format!("<{number}@run.contoso.com>")), "by their Message-IDs: {told}");
    }
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

/// Asks a pod to end within so many seconds, its own period when none are given, and waits until it is gone.
async fn ends(scene: &Scene, pod: &str, within: Option<u32>) -> Result<()> {
    let asked = DeleteParams { grace_period_seconds: within, ..DeleteParams::default() };
    scene.api::<Pod>().delete(pod, &asked).await?;
    wait_gone(scene.api::<Pod>(), pod, PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_sends_seconds_after_it_was_asked_to_end_has_arrived_when_the_pod_is_gone()
-> Result<()> {
    let scene = scene("farewell").await?;
    scene.microsoft.take_for_each_message(Duration::from_secs(1)).await?;
    // The kubelet asks the sidecar only when the application has ended.
    let farewell = workload::send_numbers(0..3, "ada@contoso.com");
    let script = format!(
        "bye() {{\nsleep 5\n{farewell}\nexit 0\n}}\ntrap bye TERM\necho waits\nsleep infinity & wait"
    );
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(&script))).await?;
    scene.log_shows("shop", "app", "waits").await?;
    ends(&scene, "shop", None).await?;
    let arrived = scene.microsoft.messages().await?.len();
    ensure!(arrived == 3, "{arrived} of 3 messages had arrived when the pod was gone");
    scene.microsoft.wait_for_numbers(0..3).await?;
    scene.finish()
}

/// Sends on and on, whatever it is asked, and prints what it was told.
const OVERRUN: &str = r#"trap '' TERM
exec python3 - <<'END'
import itertools, smtplib, time
for n in itertools.count():
    m = f"From: noreply@contoso.com\r\nSubject: {n}\r\nMessage-ID: <{n}@overrun.contoso.com>\r\n\r\nmail\r\n"
    with smtplib.SMTP("localhost", 25, timeout=120) as s:
        s.sendmail("noreply@contoso.com", ["ada@contoso.com"], m)
    print("accepted", n, flush=True)
    time.sleep(0.4)
END"#;

/// The numbers that a log says were accepted.
fn accepted(log: &str) -> BTreeSet<u32> {
    log.lines().filter_map(|line| line.strip_prefix("accepted ")?.trim().parse().ok()).collect()
}

/// Lets an application overrun its time. What it was answered 250, and what of that has arrived when the pod is gone.
async fn overrun(scene: &Scene) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    scene.microsoft.take_for_each_message(Duration::from_secs(1)).await?;
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(OVERRUN))).await?;
    scene.log_shows("shop", "app", "accepted 4").await?;
    let (log, gone) = tokio::join!(scene.whole_log("shop", "app"), ends(scene, "shop", Some(6)));
    gone?;
    let messages = scene.microsoft.messages().await?;
    let arrived: Vec<u32> =
        messages.iter().filter_map(|message| message.header("Subject")?.parse().ok()).collect();
    let once: BTreeSet<_> = arrived.iter().copied().collect();
    ensure!(once.len() == arrived.len(), "something arrived twice: {arrived:?}");
    Ok((accepted(&log?), once))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_queue_all_that_an_application_was_answered_until_it_was_killed_has_arrived() -> Result<()>
{
    let scene = Scene::start("killed-late").await?;
    scene.route(&workload::delivering("notifications", scene.namespace.name())).await?;
    let (accepted, arrived) = overrun(&scene).await?;
    ensure!(accepted.len() > 5, "it went on after it was asked to end: {accepted:?}");
    ensure!(accepted.is_subset(&arrived), "accepted {accepted:?}, arrived {arrived:?}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_queue_what_an_application_that_overran_its_time_was_answered_has_arrived_or_is_told_of()
-> Result<()> {
    let scene = scene("overrun").await?;
    let (accepted, arrived) = overrun(&scene).await?;
    let lost = u64::try_from(accepted.difference(&arrived).count())?;
    ensure!(lost > 0, "the application was faster than Microsoft: {accepted:?}");
    let told = scene.route_event("notifications", "MessagesLeft").await?;
    let left: u64 = told.split_once(' ').and_then(|(count, _)| count.parse().ok()).context("a number")?;
    ensure!(left >= lost, "{lost} of {accepted:?} did not arrive, and the Event says: {told}");
    scene.finish()
}
