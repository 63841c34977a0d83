//! The sidecar's own commands, as a person runs them with `kubectl exec` when mail does not flow.

use anyhow::{Context, Result, ensure};
use e2e::replica::until;
use e2e::scene::{Scene, workload};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_that_all_is_well_and_else_the_step_and_the_cmdlet() -> Result<()> {
    let scene = Scene::start("check").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.waiting_pod("shop").await?;

    let told = scene.sidecar_command("shop", &["check"]).await?;
    let (steps, sum) = told.trim_end().rsplit_once("\n\n").unwrap_or_default();
    ensure!(steps.lines().count() >= 8, "few steps: {told}");
    ensure!(steps.lines().all(|line| line.starts_with("ok ")), "not all is well: {told}");
    ensure!(sum == "A message would be sent.", "the sum is {sum:?}");
    let json: Value = serde_json::from_str(&scene.sidecar_command("shop", &["check", "-o", "json"]).await?)?;
    ensure!(json["well"] == true, "{json}");
    ensure!(scene.microsoft.messages().await?.is_empty(), "a check sends nothing");

    scene.microsoft.disable_smtp_auth_of_the_mailbox().await?;
    let failed =
        scene.sidecar_command("shop", &["check"]).await.expect_err("the exit code says that it failed");
    let told = format!("{failed:#}");
    let remedy = "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false";
    ensure!(told.contains("FAILED") && told.contains("log-in") && told.contains(remedy), "told: {told}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_listed_forgotten_and_tried_by_hand() -> Result<()> {
    let scene = Scene::start("by-hand").await?;
    scene.route(&workload::queueing("notifications", scene.namespace.name())).await?;
    scene.waiting_pod("shop").await?;
    scene.microsoft.put_recipients_off().await?;
    scene.run("shop", &workload::send_numbers(0..3, "ada@contoso.com")).await?;

    until(async || ensure_put_off(&listed(&scene).await?)).await?;
    let list = scene.sidecar_command("shop", &["queue", "list"]).await?;
    ensure!(list.matches("452 4.2.2").count() == 3, "the list says: {list}");
    let last = listed(&scene).await?[2]["id"].as_str().context("an id")?.to_owned();
    let shown = scene.sidecar_command("shop", &["queue", "show", &last]).await?;
    ensure!(shown.contains("Subject: 2") && shown.contains("<ada@contoso.com> waiting"), "shown: {shown}");

    // Nothing of it would be tried within the hour.
    scene.microsoft.come_back().await?;
    let dropped = scene.sidecar_command("shop", &["queue", "drop", &last]).await?;
    ensure!(dropped.contains("1 message"), "dropped: {dropped}");
    let retried = scene.sidecar_command("shop", &["queue", "retry", "--all"]).await?;
    ensure!(retried.contains("2 messages will be tried now"), "retried: {retried}");
    scene.microsoft.wait_for_numbers(0..2).await?;
    let is_empty = async || {
        let left = listed(&scene).await?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    };
    until(is_empty).await?;
    scene.route_queues("notifications", 0).await?;
    scene.finish()
}

/// What waits in the pod, in the order in which it came.
async fn listed(scene: &Scene) -> Result<Vec<Value>> {
    let list = scene.sidecar_command("shop", &["queue", "list", "--output", "json"]).await?;
    let list: Value = serde_json::from_str(&list)?;
    ensure!(list["running"] == true, "{list}");
    list["messages"].as_array().cloned().context("a list of messages")
}

/// Each of three was tried once, and waits for its next time.
fn ensure_put_off(list: &[Value]) -> Result<()> {
    let is_put_off = |row: &Value| row["state"] == "waiting" && row["attempts"] == 1;
    ensure!(list.len() == 3 && list.iter().all(is_put_off), "{list:?}");
    Ok(())
}
