//! The sidecar of a pod, from outside: how often it started, how it ended, its commands, its sudden death.

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use super::{PATIENCE, Scene};
use crate::wait_for;

/// Name of the sidecar's container.
const CONTAINER: &str = "mailroute";

/// The program in its image.
const PROGRAM: &str = "/mailroute-sidecar";

impl Scene {
    /// Runs a command of the sidecar's program beside the one that serves, and returns what it printed.
    ///
    /// # Errors
    /// When its exit code is not 0; the error shows what it printed.
    pub async fn sidecar_command(&self, pod: &str, arguments: &[&str]) -> Result<String> {
        self.exec(pod, CONTAINER, &[&[PROGRAM], arguments].concat()).await
    }

    /// Kills the sidecar of a pod without a warning, and waits until the kubelet has started it again.
    ///
    /// # Errors
    /// When it runs not, or not again in time.
    pub async fn kill_sidecar(&self, pod: &str) -> Result<()> {
        let before = self.api::<Pod>().get(pod).await?;
        let id = status(&before).and_then(|status| status.container_id.as_deref());
        self.cluster.kill_container(id.context("the sidecar runs")?).await?;
        let killed = restarts(&before);
        let again = |pod: &Pod| {
            status(pod).is_some_and(|status| status.restart_count > killed && status.started == Some(true))
        };
        wait_for(self.api::<Pod>(), pod, again, PATIENCE)
            .await
            .context("the sidecar does not start again")?;
        Ok(())
    }
}

/// How often the sidecar of a pod was started again.
pub fn restarts(pod: &Pod) -> i32 {
    status(pod).map_or(0, |status| status.restart_count)
}

/// How the sidecar of a pod ended, if it has.
pub fn end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    status(pod)?.state.as_ref()?.terminated.as_ref()
}

/// When the application's container of a pod ended, to the second, if it has.
pub fn application_ended(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let application = containers.iter().find(|container| container.name == "app")?;
    Some(application.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    let containers = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == CONTAINER)
}
