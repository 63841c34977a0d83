//! A route's gateway on a node: what sidecars hand over at their end, what it survives, and mail of pods without a sidecar.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::scene::gateway::GATEWAY;
use e2e::scene::{PATIENCE, Scene, sidecar, workload};
use e2e::wait::wait_gone;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use mailroute_route::paths::gateway_audience;
use serde_json::{Value, json};

/// A scene with a gateway of so many pods for a route of port 25, which no mailbox limits.
async fn scene(name: &str, durability: &str, replicas: u32) -> Result<Scene> {
    let scene = Scene::start(name).await?;
    let route = workload::direct("notifications", scene.namespace.name());
    scene.route(&workload::with_gateway(route, durability)).await?;
    scene.gateway(replicas, &[]).await?;
    scene.route_condition("notifications", "GatewayReady", "True").await?;
    Ok(scene)
}

/// How many messages wait in the gateway, as the route's status has it.
async fn gateway_queues(scene: &Scene, messages: u64) -> Result<()> {
    scene
        .gateway_queues("notifications", |queued| queued == messages)
        .await
        .with_context(|| format!("it did not get to {messages}"))
}

/// Ends a Job that has sent during an outage, and says how long its pod lived on after the application.
async fn job_in_an_outage(scene: &Scene, name: &str, numbers: std::ops::Range<u32>) -> Result<Duration> {
    let script = workload::send_numbers(numbers, "alice@contoso.com");
    scene.apply::<Job>(&workload::job(name, "notifications", &workload::pod_spec(&script))).await?;
    let pod = scene.pod_appears(&format!("batch.kubernetes.io/job-name={name}")).await?;
    let pod = scene.pod_succeeds(&pod).await?;
    let (application, end) = (sidecar::application_ended(&pod), sidecar::end(&pod));
    let end = end.and_then(|end| end.finished_at.as_ref()).context("the sidecar has ended")?.0;
    let lived_on = end.duration_since(application.context("the application has ended")?);
    Ok(Duration::try_from(lived_on)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_hands_over_in_seconds_what_an_outage_keeps_and_it_outlives_gateway_and_pod() -> Result<()> {
    let scene = scene("handover", "Pod", 1).await?;
    scene.microsoft.go_down_entirely().await?;
    let lived_on = job_in_an_outage(&scene, "send", 0..5).await?;
    // A pod has 60 seconds more than its own, and without a gateway its sidecar uses 55 of them.
    ensure!(lived_on < Duration::from_secs(15), "the pod lived on for {lived_on:?} after its application");
    gateway_queues(&scene, 5).await?;
    scene.route_queues("notifications", 5).await?;

    let pod = format!("{GATEWAY}-0");
    scene.kill_gateway(&pod).await?;
    let listed = scene.sidecar_command(&pod, &["queue", "list"]).await?;
    ensure!(listed.matches("alice@contoso.com").count() == 5 || listed.lines().count() > 5, "{listed}");
    // To nothing and back: the claim stays.
    scene.scale_gateway(0).await?;
    scene.route_reason("notifications", "GatewayReady", "GatewayMissing").await?;
    scene.scale_gateway(1).await?;
    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_numbers(0..5).await?;
    gateway_queues(&scene, 0).await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_durability_gateway_a_pod_that_is_killed_has_nothing_to_lose() -> Result<()> {
    let scene = scene("durable", "Gateway", 2).await?;
    scene.microsoft.go_down_entirely().await?;
    scene.waiting_pod("shop").await?;
    let told = scene.run("shop", &workload::send_numbers(0..8, "alice@contoso.com")).await?;
    ensure!(told.matches("accepted").count() == 8, "the application was told: {told}");
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    scene.api::<Pod>().delete("shop", &at_once).await?;
    wait_gone(scene.api::<Pod>(), "shop", PATIENCE).await?;
    gateway_queues(&scene, 8).await?;

    // A gateway that is scaled away gives the others what it has.
    scene.scale_gateway(1).await?;
    gateway_queues(&scene, 8).await?;
    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_numbers(0..8).await?;

    // Without a gateway the application is told, and nothing is pretended.
    scene.scale_gateway(0).await?;
    scene.microsoft.go_down_entirely().await?;
    scene.waiting_pod("late").await?;
    let script = workload::send_numbers(8..9, "alice@contoso.com");
    let refused = scene.run("late", &script).await.map_err(|error| error.to_string());
    let refused = refused.expect_err("no gateway, no 250");
    ensure!(refused.contains("refused 8 451"), "the application was told: {refused}");
    scene.route_condition("notifications", "Ready", "False").await?;
    scene.finish()
}

/// A pod without the route's label, with tokens of its own: one for gateways of its namespace, and one for this gateway alone.
fn foreign_pod(name: &str, namespace: &str) -> Value {
    let mut spec = workload::pod_spec(workload::WAIT);
    let token =
        |audience: &str, path: &str| json!({"serviceAccountToken": {"audience": audience, "path": path}});
    let named = gateway_audience(namespace, "notifications");
    spec["volumes"].as_array_mut().expect("a list").push(json!({
        "name": "token",
        "projected": {"sources": [token("mailroute.dev", "token"), token(&named, "named")]},
    }));
    spec["containers"][0]["volumeMounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "token", "mountPath": "/token"}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// Sends one message through the gateway's Service, with STARTTLS and what Python calls with, and prints the answer.
fn send_by_service(namespace: &str, login: &str, number: u32) -> String {
    format!(
        r#"python3 - <<'END'
import smtplib, ssl
context = ssl.create_default_context(cafile="/mail/ca.crt")
with smtplib.SMTP("{GATEWAY}-smtp.{namespace}.svc", 587, timeout=60) as s:
    s.starttls(context=context)
    try:
        {login}
        s.sendmail("noreply@contoso.com", ["alice@contoso.com"], "Subject: {number}\r\n\r\nmail\r\n")
        print("accepted")
    except smtplib.SMTPException as e:
        print("refused:", e)
END"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_have_a_sidecar_sends_through_the_service_and_a_stranger_does_not() -> Result<()> {
    let scene = Scene::start("service").await?;
    let namespace = scene.namespace.name().to_owned();
    let route = workload::direct("notifications", &namespace);
    scene.route(&workload::with_gateway(route, "Pod")).await?;
    let name = format!("{GATEWAY}-smtp.{namespace}.svc");
    let certified = rcgen::generate_simple_self_signed([name])?;
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "smtp-tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    scene.apply::<k8s_openapi::api::core::v1::Secret>(&secret).await?;
    let ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mail"}, "data": {"ca.crt": certificate},
    });
    scene.apply::<k8s_openapi::api::core::v1::ConfigMap>(&ca).await?;
    let values = ["--set", "smtp.enabled=true", "--set", "smtp.tls.secretName=smtp-tls", "--set"];
    scene.gateway(1, &[&values[..], &["smtp.serviceAccounts.enabled=true"]].concat()).await?;

    scene.apply::<Pod>(&foreign_pod("foreign", &namespace)).await?;
    scene.pod_ready("foreign").await?;
    let nobody = scene.run("foreign", &send_by_service(&namespace, "pass", 0)).await?;
    ensure!(nobody.contains("refused:") && nobody.contains("530"), "without a login: {nobody}");
    let wrong = send_by_service(&namespace, "s.login('token', 'wrong')", 0);
    let wrong = scene.run("foreign", &wrong).await?;
    ensure!(wrong.contains("refused:") && wrong.contains("535"), "with a wrong password: {wrong}");
    for (number, file) in [(0, "named"), (1, "token")] {
        let login = format!("s.login('token', open('/token/{file}').read())");
        let told = scene.run("foreign", &send_by_service(&namespace, &login, number)).await?;
        ensure!(told.contains("accepted"), "with its own token: {told}");
    }
    scene.microsoft.wait_for_numbers(0..2).await?;
    scene.finish()
}
