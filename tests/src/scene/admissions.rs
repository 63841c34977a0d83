//! A steady load of admissions, while something happens to those who answer them: none may be refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::{Scene, workload};

/// From one pod to the next.
const PACE: Duration = Duration::from_millis(50);

/// Pods that are asked for without being made, one after the other, until [`Admissions::end`].
pub struct Admissions {
    stop: watch::Sender<bool>,
    asking: JoinHandle<Result<u32>>,
}

impl Admissions {
    /// Begins to ask for pods of a route in a scene's namespace.
    ///
    /// # Errors
    /// When the first one is not admitted.
    pub async fn begin(scene: &Scene, route: &str) -> Result<Self> {
        let mut pod = workload::pod("", route, &workload::pod_spec("true"));
        pod["metadata"]["name"] = serde_json::Value::Null;
        pod["metadata"]["generateName"] = "load-".into();
        let (api, pod) = (scene.api::<Pod>(), serde_json::from_value(pod)?);
        admit(&api, &pod).await?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { stop, asking: tokio::spawn(ask(api, pod, stopped)) })
    }

    /// Ends the load, and counts what was admitted.
    ///
    /// # Errors
    /// The first refusal, or the first pod that came out without its sidecar.
    pub async fn end(self) -> Result<u32> {
        self.stop.send_replace(true);
        self.asking.await?
    }
}

async fn ask(api: Api<Pod>, pod: Pod, stopped: watch::Receiver<bool>) -> Result<u32> {
    let (mut moments, mut admitted) = (interval(PACE), 0);
    while !*stopped.borrow() {
        moments.tick().await;
        admit(&api, &pod).await.with_context(|| format!("after {admitted} admissions"))?;
        admitted += 1;
    }
    Ok(admitted)
}

/// Asks for the pod in a dry run, which goes through all of admission.
async fn admit(api: &Api<Pod>, pod: &Pod) -> Result<()> {
    let asked = PostParams { dry_run: true, ..PostParams::default() };
    let made = api.create(&asked, pod).await?;
    let containers = made.spec.as_ref().and_then(|spec| spec.init_containers.as_deref());
    let has_it = containers.unwrap_or_default().iter().any(|container| container.name == "mailroute");
    ensure!(has_it, "came out without the sidecar");
    Ok(())
}
