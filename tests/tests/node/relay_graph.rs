//! Microsoft Graph from a pod: SMTP to localhost, HTTPS to Microsoft, and client submission for what Graph cannot carry.

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, condition_of, workload};
use k8s_openapi::api::batch::v1::Job;
use mailroute_m365::Face;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sends_by_graph_and_by_smtp_what_graph_cannot_carry() -> Result<()> {
    let scene = Scene::start("graph").await?;
    let mut route = workload::by_graph("notifications", scene.namespace.name());
    scene.route(&route).await?;
    send(&scene, "first", "by Graph").await?;
    let arrived = scene.microsoft.messages().await?;
    ensure!(arrived.len() == 1 && arrived[0].connection.face == Face::Graph, "{arrived:#?}");
    ensure!(arrived[0].header("Subject") == Some("by Graph"), "{arrived:#?}");
    let shown = scene.route_condition("notifications", "Authenticated", "True").await?;
    let status = shown.status.as_ref().context("a status")?;
    ensure!(status.sender.as_deref() == Some(workload::MAILBOX), "{status:?}");
    let endpoint = format!("graph.{}.svc.cluster.local:443", scene.namespace.name());
    ensure!(status.endpoint.as_deref() == Some(&endpoint), "{status:?}");
    let ready = condition_of(&shown, "Ready").context("Ready")?;
    ensure!(ready.status == "True", "{ready:?}");

    // Nothing fits Graph any more, and a new pod has the second way, with a CA bundle of its own.
    let ca = json!({"name": "m365-ca", "key": "ca.crt"});
    let host = format!("smtp.{}.svc.cluster.local", scene.namespace.name());
    route["spec"]["graph"]["maxMessageBytes"] = json!("1Ki");
    route["spec"]["graph"]["fallback"] = json!("ClientSubmission");
    route["spec"]["graph"]["fallbackEndpoint"] = json!({"host": host, "caBundleRef": ca});
    scene.route(&route).await?;
    send(&scene, "second", &"by SMTP ".repeat(200)).await?;
    scene.microsoft.wait_for_messages(2).await?;
    let faces: Vec<_> = scene.microsoft.messages().await?.iter().map(|it| it.connection.face).collect();
    ensure!(faces == [Face::Graph, Face::Submission], "{faces:?}");
    let violations = scene.microsoft.violations().await?;
    ensure!(violations.is_empty(), "Microsoft would refuse: {violations:?}");
    scene.finish()
}

/// A Job that sends one message and completes.
async fn send(scene: &Scene, name: &str, subject: &str) -> Result<()> {
    let spec = workload::pod_spec(&workload::send_with_smtplib(subject));
    scene.apply::<Job>(&workload::job(name, "notifications", &spec)).await?;
    scene.job_completes(name).await.map(drop)
}
