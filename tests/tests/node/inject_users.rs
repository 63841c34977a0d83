//! The kubelet gives projected tokens an owner and a mode that depend on who the pod's containers run as. The sidecar reads
//! its tokens in every such pod, beside applications that are not told of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, workload};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// The sidecar's own user.
const SIDECAR: i64 = mailroute_route::paths::SIDECAR_USER;

/// The kinds of pods: name, user of the application's container, and the security context of the pod.
fn kinds() -> [(&'static str, i64, Value); 3] {
    [
        // Every container has the same user: a token belongs to that user, mode 0600.
        ("one-user", SIDECAR, json!({})),
        // A group for volumes: a token belongs to the group, mode 0640.
        ("a-group", 10001, json!({"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 2000})),
        // Several users and no group: a token belongs to root, mode 0644.
        ("other-users", 10002, json!({"supplementalGroups": [3000]})),
    ]
}

fn pod(name: &str, user: i64, security: &Value) -> Value {
    let script = format!("{}\nexec sleep infinity", workload::send_with_smtplib(name));
    let mut spec = workload::pod_spec(&script);
    spec["containers"][0]["securityContext"]["runAsUser"] = json!(user);
    spec["securityContext"] = security.clone();
    workload::pod(name, "notifications", &spec)
}

fn subjects(messages: &[mailroute_m365::Message]) -> BTreeSet<&str> {
    let headers = messages.iter().flat_map(|message| &message.headers);
    headers.filter(|header| header.name == "Subject").map(|header| header.value.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_reads_its_tokens_whoever_the_application_runs_as() -> Result<()> {
    let scene = Scene::start("users").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    for (name, user, security) in kinds() {
        scene.apply::<Pod>(&pod(name, user, &security)).await?;
    }
    for (name, ..) in kinds() {
        scene.log_shows(name, "app", "accepted").await.with_context(|| format!("the pod {name}"))?;
    }
    scene.microsoft.wait_for_messages(kinds().len()).await?;
    let messages = scene.microsoft.messages().await?;
    let expected: BTreeSet<_> = kinds().map(|(name, ..)| name).into();
    ensure!(subjects(&messages) == expected, "from {:?} arrived", subjects(&messages));

    // Every sidecar reads its other token too: each has reported, and none met trouble.
    let all_reported = |route: &mailroute_operator_core::crd::MailRoute| {
        route.status.as_ref().is_some_and(|status| status.usage.recipients_last_24h == 3)
    };
    let route = e2e::wait_for(scene.api(), "notifications", all_reported, e2e::scene::PATIENCE).await?;
    let credential = e2e::scene::condition_of(&route, "CredentialReady").context("CredentialReady")?;
    ensure!(credential.reason == "TokenAcquired", "{credential:?}");
    scene.finish()
}
