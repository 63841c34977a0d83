//! The sidecar's own commands, as a person runs them with `kubectl exec` when mail does not flow.

use anyhow::{Result, ensure};
use e2e::scene::{Scene, workload};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_that_all_is_well_and_else_the_step_and_the_cmdlet() -> Result<()> {
    let scene = Scene::start("check").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(workload::WAIT))).await?;
    scene.pod_ready("shop").await?;

    let told = scene.sidecar_command("shop", &["check"]).await?;
    let (steps, sum) = told.trim_end().rsplit_once("\n\n").unwrap_or_default();
    ensure!(steps.lines().count() >= 8, "few steps: {told}");
    ensure!(steps.lines().all(|line| line.starts_with("ok ")), "not all is well: {told}");
    ensure!(sum == "A message would go out.", "the sum is {sum:?}");
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
