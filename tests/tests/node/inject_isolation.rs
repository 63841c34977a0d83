//! What an injected pod looks like: the credential is the sidecar's alone, and the pod stays within `restricted`.

use anyhow::{Context, Result, ensure};
use e2e::replica::until;
use e2e::scene::{Scene, workload};
use k8s_openapi::api::core::v1::{Container, Pod};

/// A script that prints all the application can see of credentials, then waits.
const LOOK: &str = "env | sort; id -u; ls -R /var/run/secrets /etc/mailroute 2>/dev/null || true; \
    echo looked; exec sleep infinity";

async fn injected_pod(name: &str) -> Result<(Scene, Pod)> {
    let scene = Scene::start(name).await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(LOOK))).await?;
    let pod = scene.pod_ready("shop").await?;
    Ok((scene, pod))
}

fn sidecar(pod: &Pod) -> Result<&Container> {
    let containers = pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).context("init containers")?;
    containers.iter().find(|c| c.name == "mailroute").context("the pod has no container mailroute")
}

fn mounts(container: &Container) -> Vec<&str> {
    container.volume_mounts.iter().flatten().map(|m| m.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_holds_no_token_and_no_azure_variable_and_the_sidecar_does() -> Result<()> {
    let (scene, pod) = injected_pod("isolation").await?;
    let spec = pod.spec.as_ref().context("spec")?;
    for container in &spec.containers {
        let strange: Vec<_> = mounts(container).into_iter().filter(|m| m.starts_with("mailroute")).collect();
        ensure!(strange.is_empty(), "{} mounts {strange:?}", container.name);
    }
    ensure!(mounts(sidecar(&pod)?).contains(&"mailroute-tokens"), "the sidecar has no tokens");

    until(async || {
        let seen = scene.log("shop", "app").await?;
        ensure!(seen.contains("looked"), "the script has not run: {seen}");
        Ok(())
    })
    .await?;
    let seen = scene.log("shop", "app").await?;
    ensure!(!seen.contains("AZURE_") && !seen.contains("mailroute"), "the application sees {seen}");

    // The kubelet projects into the sidecar's mount what the application cannot see: it authenticates with it.
    scene.route_reason("notifications", "CredentialReady", "TokenAcquired").await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_meets_restricted_on_its_own_and_is_a_native_sidecar() -> Result<()> {
    let (scene, pod) = injected_pod("restricted").await?;
    let sidecar = sidecar(&pod)?;
    ensure!(
        sidecar.restart_policy.as_deref() == Some("Always"),
        "restartPolicy {:?}",
        sidecar.restart_policy
    );
    ensure!(
        sidecar.readiness_probe.is_none() && sidecar.lifecycle.is_none(),
        "no readiness probe and no preStop"
    );
    let security = sidecar.security_context.as_ref().context("security context")?;
    ensure!(
        security.run_as_non_root == Some(true) && security.run_as_user.is_some_and(|u| u > 0),
        "{security:?}"
    );
    ensure!(security.read_only_root_filesystem == Some(true), "{security:?}");
    ensure!(security.allow_privilege_escalation == Some(false), "{security:?}");
    let dropped = security.capabilities.as_ref().and_then(|c| c.drop.clone()).unwrap_or_default();
    ensure!(dropped == ["ALL"], "drops {dropped:?}");
    let resources = sidecar.resources.as_ref().context("resources")?;
    ensure!(resources.requests.is_some() && resources.limits.is_some(), "{resources:?}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_is_not_reachable_from_another_pod() -> Result<()> {
    let (scene, pod) = injected_pod("loopback").await?;
    let ip = pod.status.and_then(|s| s.pod_ip).context("pod address")?;
    // The admin port of the same container answers, so it is the listener that is closed, and not the way to it.
    let script = format!(
        "curl --fail --silent --max-time 20 http://{ip}:9025/livez >/dev/null; \
         curl --silent --max-time 20 telnet://{ip}:25 </dev/null && code=0 || code=$?; echo connect $code"
    );
    let mut other = workload::job("knock", "notifications", &workload::pod_spec(&script));
    other["spec"]["template"]["metadata"]["labels"] = serde_json::json!({"app": "other"});
    scene.apply::<k8s_openapi::api::batch::v1::Job>(&other).await?;
    let log = scene.job_completes("knock").await?;
    // CURLE_COULDNT_CONNECT; an open port is 0, and silence 28.
    ensure!(log.contains("connect 7"), "{log}");
    scene.finish()
}
