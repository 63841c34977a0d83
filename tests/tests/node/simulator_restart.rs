//! The simulator's own promise: a new pod of it is the same Microsoft 365 to those who send through it.

use anyhow::{Result, ensure};
use e2e::replica::until;
use e2e::scene::Scene;
use k8s_openapi::api::core::v1::Secret;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_of_the_simulator_has_the_authority_and_the_configuration_of_the_old_one() -> Result<()> {
    let scene = Scene::start("restart").await?;
    let authority = scene.microsoft.ca_pem().await?;
    scene.microsoft.disable_smtp_auth_of_the_mailbox().await?;
    let configuration = scene.microsoft.configuration().await?;
    until(async || {
        let secret = scene.api::<Secret>().get("m365-state").await?;
        let stored = secret.data.as_ref().and_then(|data| data.get("config.json"));
        let stored = stored.and_then(|octets| serde_json::from_slice(&octets.0).ok());
        ensure!(stored.as_ref() == Some(&configuration), "the Secret has another configuration");
        Ok(())
    })
    .await?;

    let namespace = scene.namespace.name();
    for step in [&["rollout", "restart", "deployment/m365"][..], &["rollout", "status", "deployment/m365"]] {
        scene.cluster.kubectl(&[&["-n", namespace], step].concat()).await?;
    }
    until(async || {
        ensure!(scene.microsoft.ca_pem().await? == authority, "another authority");
        ensure!(scene.microsoft.configuration().await? == configuration, "another configuration");
        Ok(())
    })
    .await?;
    scene.finish()
}
