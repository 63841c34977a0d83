//! What is kept of a pod, and what it says of its sidecar. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodSpec, PodStatus};
use kube::ResourceExt;

use crate::crd::{ROUTE_LABEL, SIDECAR_CONTAINER};

/// What a pod says of its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarPod {
    /// Uid of the pod.
    pub uid: String,
    /// Image of the sidecar, as the pod asks for it.
    pub image: Option<String>,
    /// Whether the sidecar accepts mail: its startup probe has passed and it runs.
    pub ready: bool,
    /// When the pod was created.
    pub created: Option<Timestamp>,
}

/// Takes out of a pod all that nobody here looks at, as thousands are kept in memory.
pub fn prune(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.owner_references = None;
    if let Some(labels) = &mut pod.metadata.labels {
        labels.retain(|key, _| key == ROUTE_LABEL);
    }
    if let Some(spec) = pod.spec.take() {
        let mut containers = spec.init_containers.unwrap_or_default();
        containers.retain(|container| container.name == SIDECAR_CONTAINER);
        pod.spec = Some(PodSpec { init_containers: Some(containers), ..Default::default() });
    }
    if let Some(status) = pod.status.take() {
        let mut containers = status.init_container_statuses.unwrap_or_default();
        containers.retain(|container| container.name == SIDECAR_CONTAINER);
        pod.status = Some(PodStatus {
            phase: status.phase,
            init_container_statuses: Some(containers),
            ..Default::default()
        });
    }
}

/// The sidecar of a pod; none when the pod came out without one, or has ended.
pub fn sidecar(pod: &Pod) -> Option<SidecarPod> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = pod.spec.as_ref()?.init_containers.as_deref().unwrap_or_default();
    let container = containers.iter().find(|container| container.name == SIDECAR_CONTAINER)?;
    let statuses = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let ready = statuses.iter().any(|status| {
        status.name == SIDECAR_CONTAINER && status.started == Some(true) && !has_ended(status.state.as_ref())
    });
    let created = pod.creation_timestamp().map(|time| time.0);
    Some(SidecarPod { uid: pod.uid()?, image: container.image.clone(), ready, created })
}

fn has_ended(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn pruning_keeps_what_is_said_of_the_sidecar() {
        let whole = samples::pod("web-1", "mailroute.dev/sidecar:0.1.0");
        let mut pruned = whole.clone();
        prune(&mut pruned);
        assert_eq!(sidecar(&pruned), sidecar(&whole));
        assert_eq!(pruned.labels().len(), 1);
        let json = serde_json::to_string(&pruned).unwrap();
        assert!(!json.contains("shop/") && !json.contains("annotations"), "{json}");
    }

    #[test]
    fn a_started_sidecar_is_ready() {
        let said = sidecar(&samples::pod("web-1", "mailroute.dev/sidecar:0.1.0")).unwrap();
        let image = Some("mailroute.dev/sidecar:0.1.0".to_owned());
        let created = Some("2026-11-01T00:00:00Z".parse().unwrap());
        assert_eq!(said, SidecarPod { uid: "web-1-uid".into(), image, ready: true, created });
    }

    #[test]
    fn a_sidecar_that_has_not_passed_its_startup_probe_is_not_ready() {
        let mut pod = samples::pod("web-1", "image");
        for status in pod.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap() {
            status.started = Some(false);
        }
        assert!(!sidecar(&pod).unwrap().ready);
    }

    #[test]
    fn a_terminating_pod_still_has_its_sidecar() {
        let mut pod = samples::pod("web-1", "image");
        pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
        assert!(sidecar(&pod).unwrap().ready);
    }

    #[test]
    fn a_pod_without_the_container_or_at_its_end_has_no_sidecar() {
        let mut bare = samples::pod("web-1", "image");
        bare.spec.as_mut().unwrap().init_containers = None;
        assert_eq!(sidecar(&bare), None);
        let mut ended = samples::pod("web-1", "image");
        ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
        assert_eq!(sidecar(&ended), None);
    }
}
