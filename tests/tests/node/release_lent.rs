//! The operator's identity on a node of its own: the chart mounts it, pods of another namespace send with it, and hold nothing
//! themselves that Entra would take.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, release, workload};
use e2e::{Cluster, Tier};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::paths::{CONTROL_AUDIENCE, ENTRA_AUDIENCE};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn pods_send_with_the_operators_identity_and_have_none_of_their_own() -> Result<()> {
    let cluster = Cluster::start(Tier::Node).await?;
    release::ensure_installed(&cluster).await?;
    let scene = Scene::on(cluster, "lent").await?;
    scene.microsoft.trust_service_account(release::NAMESPACE, release::NAME).await?;

    // Closed by default: the route says whom to ask.
    scene.apply::<MailRoute>(&route(&scene)).await?;
    let refused = scene.route_reason("notifications", "Accepted", "OperatorIdentityNotAllowed").await?;
    ensure!(refused.metadata.name.is_some());
    allow(&scene).await?;
    scene.route_condition("notifications", "Accepted", "True").await?;

    let spec = workload::pod_spec(&workload::send_with_smtplib("lent"));
    scene.apply::<Job>(&workload::job("lent", "notifications", &spec)).await?;
    scene.job_completes("lent").await?;
    scene.microsoft.wait_for_messages(1).await?;
    scene.route_condition("notifications", "Authenticated", "True").await?;

    only_the_operator_was_shown_to_entra(&scene).await?;
    the_pod_has_no_token_for_entra(&scene).await?;
    the_grant_is_in_the_operators_log(&scene).await?;
    ensure!(scene.microsoft.violations().await?.is_empty());
    scene.finish()
}

fn route(scene: &Scene) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications"},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": workload::tenant(scene.namespace.name())},
            "clientSubmission": {
                "mailbox": workload::MAILBOX,
                "credential": {"type": "WorkloadIdentity", "subject": "Operator", "clientId": workload::CLIENT_ID},
            },
            "delivery": {"mode": "Deliver"},
        },
    })
}

/// As a platform team does it: values of the chart.
async fn allow(scene: &Scene) -> Result<()> {
    let (namespace, ca) = (scene.namespace.name(), scene.microsoft.ca_pem().await?);
    let values = json!({"dns": {"preflight": false}, "broker": {"applications": [{
        "tenantId": workload::tenant(namespace),
        "clientId": workload::CLIENT_ID,
        "authority": {"host": format!("login.{namespace}.svc.cluster.local"), "caPem": ca},
        "endpoint": {"host": format!("smtp.{namespace}.svc.cluster.local"), "caPem": ca},
        "allow": [{"namespaces": [namespace], "mailboxes": [workload::MAILBOX]}],
    }]}});
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    fs::write(&file, values.to_string())?;
    release::upgrade(&scene.cluster, &["--values", &file.display().to_string()]).await
}

async fn only_the_operator_was_shown_to_entra(scene: &Scene) -> Result<()> {
    let operator = format!("system:serviceaccount:{}:{}", release::NAMESPACE, release::NAME);
    let exchanges = scene.microsoft.exchanges().await?;
    ensure!(!exchanges.is_empty());
    for exchange in &exchanges {
        ensure!(exchange.assertion_subject.as_deref() == Some(&operator), "{exchange:?}");
    }
    Ok(())
}

async fn the_pod_has_no_token_for_entra(scene: &Scene) -> Result<()> {
    let pods =
        scene.api::<Pod>().list(&ListParams::default().labels("mailroute.dev/route=notifications")).await?;
    let pod = serde_json::to_string(pods.items.first().context("the pod of the job")?)?;
    ensure!(pod.contains(CONTROL_AUDIENCE) && !pod.contains(ENTRA_AUDIENCE), "{pod}");
    Ok(())
}

async fn the_grant_is_in_the_operators_log(scene: &Scene) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.client(), release::NAMESPACE);
    let mut granted = Vec::new();
    for pod in pods.list(&ListParams::default()).await? {
        let name = pod.metadata.name.context("a stored pod has a name")?;
        let log = pods.logs(&name, &LogParams::default()).await?;
        granted.extend(log.lines().filter(|line| line.contains("token granted")).map(str::to_owned));
        // Three parts in base64, the first of which begins like this: a JSON Web Token.
        ensure!(!log.contains("eyJ"), "a token is in the log of {name}");
    }
    let line: Value = serde_json::from_str(granted.first().context("no grant in the log")?)?;
    ensure!(line["namespace"] == scene.namespace.name() && line["route"] == "notifications", "{line}");
    Ok(())
}
