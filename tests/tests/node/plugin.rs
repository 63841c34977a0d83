//! `kubectl mailroute` in the pods of a route: check, a test message, the queue, and the story of a message.

use anyhow::{Context, Result, ensure};
use e2e::plugin::{Ran, plugin};
use e2e::replica::until;
use e2e::scene::{PATIENCE, Scene, workload};
use e2e::wait_for_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// What the node runs in every pod.
const PAUSE: &str = "mailroute.dev/pause:1";

/// Label of the pods that the plugin makes.
const MADE: &str = "app.kubernetes.io/managed-by=kubectl-mailroute";

async fn run(scene: &Scene, words: &[&str]) -> Ran {
    plugin(scene.cluster.kubeconfig(), scene.namespace.name(), words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_checks_sends_and_follows_from_a_pod_of_the_route_and_from_one_that_it_makes() -> Result<()>
{
    let scene = Scene::start("plugin").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    // No pod yet: it makes one of the image that is on the node, and removes it.
    let made = ["--image", PAUSE, "--timeout", "120"];
    let checked = run(&scene, &[&["check", "notifications"], &made[..]].concat()).await;
    ensure!(checked.code == 0 && checked.out.contains("A message would be sent."), "{checked:#?}");
    ensure!(checked.err.contains("making a pod"), "{checked:#?}");
    wait_for_all(scene.api::<Pod>(), MADE, |pods| pods.is_empty(), PATIENCE).await?;

    scene.waiting_pod("shop").await?;
    let sent =
        run(&scene, &["test", "notifications", "--to", "ada@contoso.com", "-o", "json"]).await.json(0)?;
    ensure!(sent["delivered"] == true && sent["pod"] == "shop", "{sent:#}");
    let arrived = scene.microsoft.messages().await?;
    ensure!(arrived.len() == 1 && sent["sent"]["messageId"] == arrived[0].message_id.as_str(), "{sent:#}");

    let story = run(&scene, &["trace", &arrived[0].message_id]).await;
    ensure!(
        story.code == 0 && story.out.contains("accepted by Microsoft 365 while the application waited"),
        "{story:#?}"
    );
    ensure!(story.out.contains("Get-MessageTraceV2 -MessageId '<"), "{story:#?}");
    let unknown = run(&scene, &["trace", "<nobody@contoso.com>"]).await;
    ensure!(unknown.code == 1, "{unknown:#?}");

    scene.microsoft.disable_smtp_auth_of_the_mailbox().await?;
    let failed = run(&scene, &["check", "notifications"]).await;
    ensure!(failed.code == 1 && failed.out.contains("Set-CASMailbox"), "{failed:#?}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_lists_shows_retries_drops_and_exports_what_waits_in_all_pods() -> Result<()> {
    let scene = Scene::start("plugin-queue").await?;
    scene.route(&workload::queueing("notifications", scene.namespace.name())).await?;
    for pod in ["shop", "cart"] {
        scene.waiting_pod(pod).await?;
    }
    scene.microsoft.put_recipients_off().await?;
    scene.run("shop", &workload::send_numbers(0..2, "ada@contoso.com")).await?;
    scene.run("cart", &workload::send_numbers(2..4, "ada@contoso.com")).await?;
    until(async || {
        let list = listed(&scene).await?;
        ensure!(list.len() == 4 && list.iter().all(|row| row["attempts"] == 1), "{list:#?}");
        Ok(())
    })
    .await?;
    let list = listed(&scene).await?;
    let pods: Vec<_> = list.iter().filter_map(|row| row["pod"].as_str()).collect();
    ensure!(pods == ["shop", "shop", "cart", "cart"], "the oldest first: {list:#?}");
    let id = |at: usize| list[at]["id"].as_str().context("an id");
    let message_id = list[0]["messageId"].as_str().context("a Message-ID")?;

    let shown = run(&scene, &["queue", "show", "notifications", id(3)?]).await;
    ensure!(
        shown.code == 0 && shown.out.contains("Pod           cart") && shown.out.contains("Subject: 3"),
        "{shown:#?}"
    );
    let exported = run(&scene, &["queue", "export", "notifications", id(3)?]).await;
    ensure!(exported.code == 0 && exported.out.starts_with("Received: "), "{exported:#?}");
    let waits = run(&scene, &["trace", message_id]).await;
    ensure!(waits.code == 0 && waits.out.contains("waits in pod shop"), "{waits:#?}");
    let dropped = run(&scene, &["queue", "drop", "notifications", id(3)?]).await;
    ensure!(dropped.code == 0 && dropped.out == "1 message dropped\n", "{dropped:#?}");
    let gone = run(&scene, &["queue", "retry", "notifications", id(3)?]).await;
    ensure!(gone.code == 1 && gone.out.contains("no pod that was asked has the message"), "{gone:#?}");

    scene.microsoft.come_back().await?;
    let retried = run(&scene, &["queue", "retry", "notifications", "--all"]).await;
    ensure!(retried.code == 0 && retried.out.starts_with("3 messages will be tried now"), "{retried:#?}");
    scene.microsoft.wait_for_numbers(0..3).await?;
    until(async || {
        let story = run(&scene, &["trace", message_id]).await;
        ensure!(story.out.contains("State        accepted by Microsoft 365"), "{story:#?}");
        Ok(())
    })
    .await?;
    scene.finish()
}

async fn listed(scene: &Scene) -> Result<Vec<Value>> {
    let list = run(scene, &["queue", "list", "notifications", "-o", "json"]).await.json(0)?;
    list["messages"].as_array().cloned().context("a list of messages")
}
