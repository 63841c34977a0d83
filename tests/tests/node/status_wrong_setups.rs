//! Wrong set-ups, as a person meets them: what the SMTP client is told, and what `kubectl describe mailroute` shows.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, Scene, condition_of, workload};
use e2e::wait_for_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

/// Sends once with a wrong set-up; the client must be told to try later, and the route must show the reason, and the
/// remedy in words.
async fn meets(scene: Scene, route: &Value, condition: &str, reason: &str, remedy: &str) -> Result<()> {
    scene.route(route).await?;
    let job = workload::job(
        "send",
        "notifications",
        &workload::pod_spec(&workload::send_with_smtplib("wrong set-up")),
    );
    scene.apply::<Job>(&job).await?;
    let told = scene.job_fails("send").await?;
    ensure!(told.contains("451") && told.contains(reason), "the client was told: {told}");

    let route = scene.route_reason("notifications", condition, reason).await?;
    let shown = condition_of(&route, condition).context(condition.to_owned())?;
    ensure!(shown.status == "False", "{shown:?}");
    ensure!(shown.message.contains(remedy), "the remedy {remedy:?} is not in {:?}", shown.message);
    let ready = condition_of(&route, "Ready").context("Ready")?;
    ensure!(ready.status == "False" && ready.reason == reason, "{ready:?}");

    let described = scene
        .cluster
        .kubectl(&["-n", scene.namespace.name(), "describe", "mailroute", "notifications"])
        .await?;
    ensure!(described.contains(reason) && described.contains(remedy), "describe shows: {described}");
    ensure!(scene.microsoft.messages().await?.is_empty(), "nothing was accepted");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tenant_is_named() -> Result<()> {
    let scene = Scene::start("wrong-tenant").await?;
    let mut route = workload::delivering("notifications", scene.namespace.name());
    route["spec"]["tenant"]["id"] = json!("00000000-1111-4222-8333-444444444444");
    meets(scene, &route, "CredentialReady", "TenantNotFound", "az account show").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_mailbox_permission_is_told_the_cmdlet() -> Result<()> {
    let scene = Scene::start("no-permission").await?;
    scene.microsoft.revoke_mailbox_permission().await?;
    let route = workload::delivering("notifications", scene.namespace.name());
    meets(
        scene,
        &route,
        "Authenticated",
        "ExchangeRejectedToken",
        "Add-MailboxPermission -Identity noreply@contoso.com",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_auth_disabled_for_the_mailbox_is_told_the_cmdlet() -> Result<()> {
    let scene = Scene::start("smtp-auth-off").await?;
    scene.microsoft.disable_smtp_auth_of_the_mailbox().await?;
    let route = workload::delivering("notifications", scene.namespace.name());
    let remedy = "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false";
    meets(scene, &route, "Authenticated", "SmtpAuthDisabledMailbox", remedy).await
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_auth_disabled_for_the_tenant_is_told_the_cmdlet() -> Result<()> {
    let scene = Scene::start("smtp-auth-off-tenant").await?;
    scene.microsoft.disable_smtp_auth_of_the_tenant().await?;
    let route = workload::delivering("notifications", scene.namespace.name());
    meets(scene, &route, "Authenticated", "SmtpAuthDisabledTenant", "Set-TransportConfig").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_name_is_refused_with_the_names_that_exist() -> Result<()> {
    let scene = Scene::start("unknown-route").await?;
    scene.route(&workload::delivering("notifications", scene.namespace.name())).await?;
    let job = workload::job("send", "notificatoins", &workload::pod_spec("true"));
    scene.apply::<Job>(&job).await?;

    // The person who applied the Job finds the denial in its Events.
    let events = scene.api::<Event>();
    let denial = |event: &Event| event.reason.as_deref() == Some("FailedCreate") && event.message.is_some();
    let all = wait_for_all(events, "", |all| all.iter().any(denial), PATIENCE).await?;
    let text = all.into_iter().find(denial).and_then(|event| event.message).unwrap_or_default();
    ensure!(text.contains("notificatoins") && text.contains("notifications"), "the Event says: {text}");
    scene.finish()
}
