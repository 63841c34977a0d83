//! A route that changes under running pods: they take it up as they are, and the status counts them.

use anyhow::{Result, ensure};
use e2e::scene::{PATIENCE, Scene, sidecar, workload};
use e2e::{wait_for, wait_for_all};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mailroute_operator_core::crd::MailRoute;
use serde_json::json;

/// What the sidecar says of the largest message that it takes, and of the route that it uses.
const ASK: &str = r#"python3 - <<'END'
import smtplib, urllib.request
with smtplib.SMTP("localhost", 25, timeout=60) as s:
    s.ehlo()
    print("SIZE", s.esmtp_features["size"])
for line in urllib.request.urlopen("http://localhost:9025/metrics", timeout=60).read().decode().splitlines():
    if line.startswith("mailroute_config_generation_number"):
        print("generation", line.split()[-1])
END"#;

const PODS: u32 = 2;

/// The status, once it says of that generation how many sidecars are there, ready and use it.
async fn converged(scene: &Scene, generation: i64) -> Result<MailRoute> {
    let all = |route: &MailRoute| {
        let status = route.status.as_ref().filter(|it| it.observed_generation == Some(generation));
        status.is_some_and(|it| {
            let pods = it.sidecars;
            [pods.injected, pods.ready, pods.converged] == [PODS; 3] && pods.outdated + pods.missing == 0
        })
    };
    wait_for(scene.api::<MailRoute>(), "notifications", all, PATIENCE).await
}

/// Every pod has taken the route of that generation up.
async fn ensure_in_use(scene: &Scene, pods: &[Pod], generation: i64, size: u64) -> Result<()> {
    converged(scene, generation).await?;
    for pod in pods {
        let told = scene.run(&pod.name_any(), ASK).await?;
        let expected = format!("SIZE {size}\ngeneration {generation}\n");
        ensure!(told == expected, "{} says {told:?}, not {expected:?}", pod.name_any());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_route_is_in_use_in_every_pod_without_a_restart_and_counted() -> Result<()> {
    let scene = Scene::start("changes").await?;
    let mut route = workload::route("notifications", scene.namespace.name());
    route["spec"]["limits"] = json!({"maxMessageBytes": 100_000});
    scene.route(&route).await?;
    let mut shop = workload::deployment("shop", "notifications", &workload::pod_spec(workload::WAIT));
    shop["spec"]["replicas"] = json!(PODS);
    scene.apply::<Deployment>(&shop).await?;
    let are_ready =
        |pods: &[Pod]| pods.iter().filter(|pod| e2e::scene::is_ready(pod)).count() == PODS as usize;
    let pods = wait_for_all(scene.api::<Pod>(), "app=shop", are_ready, PATIENCE).await?;
    ensure_in_use(&scene, &pods, 1, 100_000).await?;

    route["spec"]["limits"]["maxMessageBytes"] = json!(200_000);
    scene.apply::<MailRoute>(&route).await?;
    ensure_in_use(&scene, &pods, 2, 200_000).await?;

    let now = wait_for_all(scene.api::<Pod>(), "app=shop", are_ready, PATIENCE).await?;
    let uids = |pods: &[Pod]| pods.iter().map(ResourceExt::uid).collect::<Vec<_>>();
    ensure!(uids(&now) == uids(&pods), "a pod was replaced");
    ensure!(now.iter().all(|pod| sidecar::restarts(pod) == 0), "a sidecar was restarted");
    scene.finish()
}
