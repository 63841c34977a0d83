//! Mail that waits in a pod: what the application is answered, what the route shows, and that it outlives a crash.

use anyhow::{Result, ensure};
use e2e::scene::{Scene, sidecar, workload};
use serde_json::Value;

/// A pod that waits to be told what to send, with a sidecar for the route.
async fn scene_with(name: &str, route: impl Fn(&str, &str) -> Value) -> Result<Scene> {
    let scene = Scene::start(name).await?;
    scene.route(&route("notifications", scene.namespace.name())).await?;
    scene.waiting_pod("shop").await?;
    Ok(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_microsoft_is_down_mail_is_kept_shown_and_delivered_once_it_is_back() -> Result<()> {
    let scene = scene_with("queue", workload::route).await?;
    scene.route_condition("notifications", "Authenticated", "True").await?;
    scene.microsoft.go_down().await?;
    let told = scene.run("shop", &workload::send_numbers(0..3, "ada@contoso.com")).await?;
    ensure!(told.matches("queued as").count() == 3, "the application was told: {told}");

    scene.route_queues("notifications", 3).await?;
    let route = scene.route_condition("notifications", "UpstreamReachable", "False").await?;
    let named = route.metadata.name.unwrap_or_default();
    let described = scene.describe(&named).await?;
    let is_line = |line: &str| line.split_whitespace().eq(["Messages:", "3"]);
    ensure!(described.lines().any(is_line), "describe shows: {described}");

    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_numbers(0..3).await?;
    scene.route_queues("notifications", 0).await?;
    scene.route_condition("notifications", "Ready", "True").await?;
    ensure!(scene.microsoft.violations().await?.is_empty(), "Exchange would refuse something");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_sidecar_had_accepted_is_delivered_by_the_one_that_the_kubelet_starts() -> Result<()> {
    let scene = scene_with("killed", workload::queueing).await?;
    scene.microsoft.go_down().await?;
    let told = scene.run("shop", &workload::send_numbers(0..5, "ada@contoso.com")).await?;
    ensure!(told.matches("queued as").count() == 5, "the application was told: {told}");

    scene.kill_sidecar("shop").await?;
    scene.route_queues("notifications", 5).await?;
    scene.microsoft.come_back().await?;
    // The new one takes mail too.
    scene.run("shop", &workload::send_numbers(5..6, "ada@contoso.com")).await?;
    scene.microsoft.wait_for_numbers(0..6).await?;
    let pod = scene.pod_ready("shop").await?;
    ensure!(sidecar::restarts(&pod) == 1, "{} restarts", sidecar::restarts(&pod));
    scene.finish()
}
