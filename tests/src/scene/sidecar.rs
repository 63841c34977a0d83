//! The sidecar of a pod, from outside: how often it started, how it ended, its commands, its sudden death.

use anyhow::{Context, Result};
use hyper::Request;
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

    /// The kubelet's liveness probes of the sidecar of a pod so far.
    ///
    /// # Errors
    /// When the pod or the kubelet's page cannot be read.
    pub async fn liveness_probes(&self, pod: &str) -> Result<Probes> {
        let pod = self.api::<Pod>().get(pod).await?;
        let node = pod.spec.and_then(|spec| spec.node_name).context("the pod has a node")?;
        let page = format!("/api/v1/nodes/{node}/proxy/metrics/probes");
        let page = self.client().request_text(Request::get(page).body(Vec::new())?).await?;
        Ok(Probes::read(&page, pod.metadata.uid.as_deref().unwrap_or_default()))
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

/// The kubelet's liveness probes of a sidecar since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Those that found it alive.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
}

impl Probes {
    /// As the kubelet counts them for a pod, from the page where it shows all of its probes.
    fn read(page: &str, uid: &str) -> Self {
        let mut probes = Self::default();
        let (container, uid) = (format!("container=\"{CONTAINER}\""), format!("pod_uid=\"{uid}\""));
        let is_ours = |line: &&str| {
            let labels = ["prober_probe_total{", "probe_type=\"Liveness\"", &container, &uid];
            labels.iter().all(|label| line.contains(label))
        };
        for line in page.lines().filter(is_ours) {
            let count: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
            if line.contains("result=\"successful\"") {
                probes.passed += count;
            } else {
                probes.failed += count;
            }
        }
        probes
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

/// How the application's container of a pod ended, if it has.
pub fn application_end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let application = containers.iter().find(|container| container.name == "app")?;
    application.state.as_ref()?.terminated.as_ref()
}

/// When it ended, to the second.
pub fn application_ended(pod: &Pod) -> Option<Timestamp> {
    Some(application_end(pod)?.finished_at.as_ref()?.0)
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    let containers = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == CONTAINER)
}

#[cfg(test)]
mod tests {
    use super::Probes;

    #[test]
    fn probes_of_the_sidecar_are_told_from_all_others() {
        let of = |container, kind, result, count| {
            format!(
                "prober_probe_total{{container=\"{container}\",namespace=\"shop\",pod=\"a\",pod_uid=\"7\",\
                 probe_type=\"{kind}\",result=\"{result}\"}} {count}\n"
            )
        };
        let page = of("mailroute", "Liveness", "successful", 4)
            + &of("mailroute", "Liveness", "failed", 1)
            + &of("mailroute", "Startup", "failed", 2)
            + &of("app", "Liveness", "successful", 8);
        assert_eq!(Probes::read(&page, "7"), Probes { passed: 4, failed: 1 });
        assert_eq!(Probes::read(&page, "8"), Probes::default());
    }
}
