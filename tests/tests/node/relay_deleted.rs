//! A MailRoute that is deleted while pods use it: what they were answered 250 for is sent all the same.

use anyhow::{Context, Result, ensure};
use e2e::scene::{PATIENCE, Scene, workload};
use e2e::{wait_for_all, wait_gone};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::DeleteParams;
use mailroute_operator_core::crd::MailRoute;
use serde_json::Value;

/// Messages that are sent in one go, more than half of what a mailbox may send in a minute.
const MESSAGES: u32 = 22;

/// A shell script that sends them, says so, and ends when it is asked to.
fn script() -> String {
    let send = workload::send_numbers(0..MESSAGES, "ada@contoso.com");
    format!("trap 'exit 0' TERM\n{send}\n{}", workload::WAIT)
}

/// Writes a chart with these objects.
fn chart(folder: &std::path::Path, objects: &[Value]) -> Result<()> {
    let templates = folder.join("templates");
    std::fs::create_dir(&templates)?;
    std::fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 0.1.0\n")?;
    for (number, object) in objects.iter().enumerate() {
        std::fs::write(templates.join(format!("{number}.yaml")), object.to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_uninstall_of_a_chart_with_route_and_deployment_loses_no_message() -> Result<()> {
    let scene = Scene::start("uninstalled").await?;
    let namespace = scene.namespace.name();
    let folder = tempfile::tempdir()?;
    let spec = workload::pod_spec(&script());
    let route = workload::route("notifications", namespace);
    chart(folder.path(), &[route, workload::deployment("shop", "notifications", &spec)])?;
    let path = folder.path().to_str().context("a path of text")?;
    scene.cluster.helm(&["install", "shop", path, "--namespace", namespace]).await?;
    let pod = scene.pod_appears("app=shop").await?;
    scene.log_shows(&pod, "app", &format!("accepted {}", MESSAGES - 1)).await?;
    scene.cluster.helm(&["uninstall", "shop", "--namespace", namespace, "--wait"]).await?;
    wait_gone(scene.api::<Pod>(), &pod, PATIENCE).await?;
    scene.microsoft.wait_for_numbers(0..MESSAGES).await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_on_without_its_route_and_what_it_leaves_is_an_event_on_the_pod() -> Result<()> {
    let scene = Scene::start("orphaned").await?;
    scene.route(&workload::queueing("notifications", scene.namespace.name())).await?;
    let pod = "shop";
    scene.waiting_pod(pod).await?;
    scene.api::<MailRoute>().delete("notifications", &DeleteParams::default()).await?;
    wait_gone(scene.api::<ConfigMap>(), "mailroute-notifications", PATIENCE).await?;
    scene.log_shows(pod, "mailroute", "The MailRoute of this pod was deleted").await?;
    scene.run(pod, &workload::send_numbers(0..3, "ada@contoso.com")).await?;
    scene.microsoft.wait_for_numbers(0..3).await?;

    scene.microsoft.go_down().await?;
    scene.run(pod, &workload::send_numbers(3..5, "ada@contoso.com")).await?;
    scene.api::<Pod>().delete(pod, &DeleteParams::default()).await?;
    wait_gone(scene.api::<Pod>(), pod, PATIENCE).await?;
    let told = |event: &Event| {
        event.reason.as_deref() == Some("MessagesLeft")
            && event.involved_object.kind.as_deref() == Some("Pod")
    };
    let events =
        wait_for_all(scene.api::<Event>(), "", |all: &[Event]| all.iter().any(told), PATIENCE).await?;
    let note = events.into_iter().find(told).and_then(|event| event.message).unwrap_or_default();
    ensure!(note.starts_with("2 messages were left") && note.contains("notifications was deleted"), "{note}");
    scene.finish()
}
