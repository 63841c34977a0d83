//! A client secret on the way from a Secret through the kubelet to Entra: missing, there, worthless, replaced.

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, condition_of, sidecar, workload};
use e2e::secrets::CANARY;
use k8s_openapi::api::core::v1::Secret;
use mailroute_m365::directory::SAMPLE_SECRET;
use serde_json::json;

/// Name of the Secret.
const SECRET: &str = "m365-credential";

async fn store(scene: &Scene, value: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
        "stringData": {"client-secret": value},
    });
    scene.apply::<Secret>(&secret).await.map(drop)
}

async fn send(scene: &Scene, number: u32) -> Result<()> {
    scene.run("shop", &workload::send_numbers(number..number + 1, "ada@contoso.com")).await.map(drop)
}

/// Waits for the reason, and checks that the route names the Secret to look at.
async fn is_told(scene: &Scene, reason: &str) -> Result<()> {
    let route = scene.route_reason("notifications", "CredentialReady", reason).await?;
    let told = condition_of(&route, "CredentialReady").context("CredentialReady")?;
    ensure!(told.status == "False" && told.message.contains(SECRET), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_late_or_is_replaced_is_used_without_a_restart() -> Result<()> {
    let scene = Scene::start("secrets").await?;
    scene.microsoft.hang_up_after_each_message().await?;
    let namespace = scene.namespace.name();
    scene.route(&workload::with_client_secret("notifications", namespace, SECRET)).await?;
    scene.waiting_pod("shop").await?;
    send(&scene, 0).await?;
    is_told(&scene, "SecretMissing").await?;

    store(&scene, SAMPLE_SECRET).await?;
    scene.microsoft.wait_for_numbers(0..1).await?;
    scene.route_condition("notifications", "CredentialReady", "True").await?;

    let replacement = format!("{CANARY}replaced");
    scene.microsoft.replace_client_secret(&replacement).await?;
    scene.microsoft.refuse_the_next_token().await?;
    send(&scene, 1).await?;
    is_told(&scene, "SecretRejected").await?;
    store(&scene, &replacement).await?;
    scene.microsoft.wait_for_numbers(0..2).await?;
    scene.route_condition("notifications", "CredentialReady", "True").await?;

    let pod = scene.pod_ready("shop").await?;
    ensure!(sidecar::restarts(&pod) == 0, "{} restarts", sidecar::restarts(&pod));
    scene.finish()
}
