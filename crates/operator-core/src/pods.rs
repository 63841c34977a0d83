//! What is stored of a pod, and what that says about its sidecar. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, EnvVar, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use mailroute_route::identity::Role;

use crate::crd::ROUTE_LABEL;
use crate::inject::annotations::{InjectionRecord, is_ours};
use crate::inject::names::{CONTAINER, INJECTED};
use crate::inject::selection::MIRROR;

/// Label by which a Deployment tells the pods of its ReplicaSets apart; the ReplicaSet's name ends with it.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Set in the sidecar by the webhook of Azure workload identity when the pod has an AKS identity binding.
const TOKEN_PROXY: &str = "AZURE_KUBERNETES_TOKEN_PROXY";

/// Names and values of annotations that are kept of a pod, bytes: the record of an injection, and a person's few. The API server
/// takes 256 KiB.
const MOST_ANNOTATIONS: usize = 2 * 1024;

/// Longest name of an image that is kept; the API server has no limit. A name has 255, with a tag of 128 or a digest.
const LONGEST_IMAGE: usize = 512;

/// Longest kind and name of an owner together that are kept, bytes.
const LONGEST_OWNER: usize = 512;

/// Addresses that are kept of a pod: one of each family.
const MOST_ADDRESSES: usize = 2;

/// Longest address that is kept, bytes: that of an IPv6 address that ends with an IPv4 one.
const LONGEST_ADDRESS: usize = 45;

/// The phases that there are. Source: Kubernetes, Pod Lifecycle.
const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];

/// What a pod says of its sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarPod {
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// What makes the pod again when it is gone; none for a pod that a person made.
    pub owner: Option<PodOwner>,
    /// Image of the sidecar, as the pod asks for it.
    pub image: Option<String>,
    /// Fingerprint of what was added to the pod; none when the record of it is gone.
    pub hash: Option<String>,
    /// The annotations of ours that a person wrote.
    pub annotations: BTreeMap<String, String>,
    /// Whether the sidecar accepts mail: its startup probe has passed and it runs.
    pub ready: bool,
    /// Whether the pod as a whole is ready.
    pub is_pod_ready: bool,
    /// Whether it was asked to end.
    pub is_ending: bool,
    /// Whether its containers are started again when they end: it is no Job.
    pub runs_on: bool,
    /// When the pod was created.
    pub created: Option<Timestamp>,
}

/// A pod that carries the label of a route and has no sidecar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BarePod {
    /// What makes the pod again.
    pub owner: Option<PodOwner>,
    /// Name of the pod.
    pub name: String,
}

/// What makes a pod again: the Deployment behind a ReplicaSet, where it shows, else the controller itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOwner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Removes all that the operator does not use from a pod, since thousands are in memory.
pub fn prune(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.finalizers = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        prune_annotations(annotations);
    }
    if let Some(owners) = &mut pod.metadata.owner_references {
        let is_short = |owner: &OwnerReference| owner.kind.len() + owner.name.len() <= LONGEST_OWNER;
        owners.retain(|owner| owner.controller == Some(true) && is_short(owner));
        owners.truncate(1);
        for owner in owners {
            owner.api_version.clear();
        }
    }
    if let Some(labels) = &mut pod.metadata.labels {
        labels.retain(|key, _| key == ROUTE_LABEL || key == TEMPLATE_HASH);
    }
    if let Some(spec) = pod.spec.take() {
        let sidecar = spec.init_containers.into_iter().flatten().filter(|c| c.name == CONTAINER);
        let bare = |c: Container| {
            let proxy = c.env.into_iter().flatten().find(|variable| variable.name == TOKEN_PROXY);
            let env = proxy.map(|proxy| vec![EnvVar { name: proxy.name, ..Default::default() }]);
            let image = c.image.filter(|image| image.len() <= LONGEST_IMAGE);
            Container { name: c.name, image, env, ..Default::default() }
        };
        pod.spec = Some(PodSpec {
            init_containers: Some(sidecar.map(bare).collect()),
            restart_policy: spec.restart_policy,
            service_account_name: spec.service_account_name,
            ..Default::default()
        });
    }
    pod.status = pod.status.take().map(pruned_status);
}

/// Keeps the record of the injection first, so that other annotations cannot crowd it out.
fn prune_annotations(annotations: &mut BTreeMap<String, String>) {
    let record = annotations.remove_entry(INJECTED);
    let mut room = MOST_ANNOTATIONS;
    let mut fits = |(key, value): &(String, String)| {
        let left = room.checked_sub(key.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    let others = std::mem::take(annotations).into_iter().filter(|(key, _)| is_ours(key) || key == MIRROR);
    annotations.extend(record.into_iter().chain(others).filter(|it| fits(it)));
}

/// Whoever may write the status of pods may write anything into it, so only known fields are copied.
fn pruned_status(status: PodStatus) -> PodStatus {
    let containers = status.init_container_statuses.unwrap_or_default().into_iter();
    let sidecar = containers.filter(|container| container.name == CONTAINER).take(1);
    let bare = |container: ContainerStatus| ContainerStatus {
        name: container.name,
        started: container.started,
        state: container.state.map(|state| ContainerState {
            running: state.running.map(|_| Default::default()),
            terminated: state.terminated.map(|_| Default::default()),
            waiting: state.waiting.map(|_| Default::default()),
        }),
        ..Default::default()
    };
    let ready = status.conditions.unwrap_or_default().into_iter().filter(|it| it.type_ == "Ready").take(1);
    let is_true = |condition: PodCondition| PodCondition {
        type_: condition.type_,
        status: if condition.status == "True" { condition.status } else { "False".to_owned() },
        ..Default::default()
    };
    let addresses = status.pod_ips.unwrap_or_default().into_iter();
    let addresses = addresses.filter(|address| address.ip.len() <= LONGEST_ADDRESS).take(MOST_ADDRESSES);
    PodStatus {
        phase: status.phase.filter(|phase| PHASES.contains(&phase.as_str())),
        pod_ips: Some(addresses.collect()),
        conditions: Some(ready.map(is_true).collect()),
        init_container_statuses: Some(sidecar.map(bare).collect()),
        ..Default::default()
    }
}

/// A pod that has not ended and has no sidecar in spite of its label; none for one that could not have any.
pub fn without_sidecar(pod: &Pod) -> Option<BarePod> {
    let is_bare = !has_run(pod) && container(pod).is_none() && !pod.annotations().contains_key(MIRROR);
    is_bare.then(|| BarePod { name: pod.name_any(), owner: owner(pod) })
}

/// The sidecar of a pod; none if the pod has none or has ended.
pub fn sidecar(pod: &Pod) -> Option<SidecarPod> {
    if has_run(pod) {
        return None;
    }
    let (status, spec, container) = (pod.status.as_ref(), pod.spec.as_ref()?, container(pod)?);
    let record = pod.annotations().get(INJECTED).and_then(|json| InjectionRecord::parse(json));
    let written = pod.annotations().iter().filter(|(key, _)| *key != INJECTED && is_ours(key));
    Some(SidecarPod {
        name: pod.name_any(),
        uid: pod.uid()?,
        owner: owner(pod),
        image: container.image.clone(),
        hash: record.map(|record| record.hash),
        annotations: written.map(|(key, value)| (key.clone(), value.clone())).collect(),
        ready: status.is_some_and(is_started),
        is_pod_ready: status.is_some_and(is_ready),
        is_ending: pod.metadata.deletion_timestamp.is_some(),
        runs_on: spec.restart_policy.as_deref().is_none_or(|policy| policy == "Always"),
        created: pod.creation_timestamp().map(|time| time.0),
    })
}

/// Whether the sidecar shows its ServiceAccount's token to the proxy of an AKS identity binding, and not to Entra.
pub fn has_identity_binding(pod: &Pod) -> bool {
    let env = container(pod).and_then(|container| container.env.as_deref()).unwrap_or_default();
    env.iter().any(|variable| variable.name == TOKEN_PROXY)
}

/// The addresses of the pod.
pub fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    addresses.filter_map(|address| address.ip.parse().ok())
}

/// Whether all of its containers have ended for good.
pub fn has_run(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod has the sidecar of the route on its label.
pub fn has_sidecar(pod: &Pod) -> bool {
    container(pod).is_some()
}

/// The sidecar of the route on the pod's label; none of another route, as in a pod whose label was changed later.
fn container(pod: &Pod) -> Option<&Container> {
    let record = pod.annotations().get(INJECTED).and_then(|json| InjectionRecord::parse(json));
    if record.is_some_and(|record| pod.labels().get(ROUTE_LABEL) != Some(&record.route)) {
        return None;
    }
    let containers = pod.spec.as_ref()?.init_containers.as_deref().unwrap_or_default();
    containers.iter().find(|container| container.name == CONTAINER)
}

fn owner(pod: &Pod) -> Option<PodOwner> {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let behind = || {
        let hash = pod.labels().get(TEMPLATE_HASH)?;
        controller.name.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
    };
    let deployment = if controller.kind == "ReplicaSet" { behind() } else { None };
    Some(match deployment {
        Some(name) => PodOwner { kind: "Deployment".to_owned(), name: name.to_owned() },
        None => PodOwner { kind: controller.kind.clone(), name: controller.name.clone() },
    })
}

fn is_started(status: &PodStatus) -> bool {
    status.init_container_statuses.iter().flatten().any(|status| {
        status.name == CONTAINER && status.started == Some(true) && !has_ended(status.state.as_ref())
    })
}

fn is_ready(status: &PodStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_ended(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
}

/// What the pod does for the route on its label; none without its container.
pub fn role(pod: &Pod) -> Option<Role> {
    if has_sidecar(pod) {
        return Some(Role::Sidecar);
    }
    let containers = pod.spec.as_ref()?.containers.iter();
    containers.into_iter().any(|container| container.name == CONTAINER).then_some(Role::Gateway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use serde_json::json;

    #[test]
    fn pruning_keeps_what_is_said_of_the_sidecar() {
        let whole = samples::pod("web-1", "mailroute.dev/sidecar:0.1.0");
        let mut pruned = whole.clone();
        prune(&mut pruned);
        assert_eq!(sidecar(&pruned), sidecar(&whole));
        assert_eq!((pruned.labels().len(), pruned.annotations().len()), (2, 2));
        let json = serde_json::to_string(&pruned).unwrap();
        for gone in ["shop/", "note", "node-1", "restartPolicy\":\"Always\",\"v", "PodScheduled"] {
            assert!(!json.contains(gone), "{gone} in {json}");
        }
    }

    #[test]
    fn what_an_author_fills_a_pod_with_is_bounded() {
        let mut pod = samples::pod("web-1", &"i".repeat(100_000));
        let filled = (0..50).map(|n| (format!("mailroute.dev/filled-{n}"), "x".repeat(5000)));
        pod.metadata.annotations.as_mut().unwrap().extend(filled);
        for container in pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap() {
            let value = Some("x".repeat(100_000));
            container.env = Some(vec![EnvVar { name: TOKEN_PROXY.into(), value, ..Default::default() }]);
        }
        prune(&mut pod);
        let size = serde_json::to_string(&pod).unwrap().len();
        assert!(size < MOST_ANNOTATIONS + 2048, "{size}");
        assert!(has_identity_binding(&pod));
    }

    #[test]
    fn what_is_written_into_the_status_or_the_owner_of_a_pod_is_bounded() {
        let (whole, long) = (samples::pod("web-1", "image"), "x".repeat(100_000));
        let mut filled = whole.clone();
        let status = json!({
            "name": CONTAINER, "started": true, "ready": true, "restartCount": 0, "image": long, "imageID": long,
            "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": long}},
        });
        filled.status = serde_json::from_value(json!({
            "phase": "Running",
            "podIPs": vec![json!({"ip": "10.0.0.7"}); 1000],
            "conditions": vec![json!({"type": "Ready", "status": "True", "reason": long, "message": long}); 100],
            "initContainerStatuses": vec![status; 100],
        }))
        .unwrap();
        let owner = filled.metadata.owner_references.as_mut().unwrap();
        owner.push(OwnerReference { name: long, controller: Some(true), ..Default::default() });
        prune(&mut filled);
        let size = serde_json::to_string(&filled).unwrap().len();
        assert!(size < 4096, "{size}");
        assert_eq!(sidecar(&filled), sidecar(&whole));
    }

    #[test]
    fn no_other_annotation_takes_the_place_of_the_record() {
        let mut pod = samples::pod("web-1", "image");
        let filled = ("mailroute.dev/a".to_owned(), "x".repeat(MOST_ANNOTATIONS - 100));
        pod.metadata.annotations.as_mut().unwrap().extend([filled]);
        prune(&mut pod);
        assert!(sidecar(&pod).unwrap().hash.is_some());
    }

    #[test]
    fn pruning_keeps_the_addresses() {
        let mut pod = samples::pod("web-1", "image");
        let ips = serde_json::from_value(serde_json::json!([{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]));
        pod.status.as_mut().unwrap().pod_ips = ips.unwrap();
        prune(&mut pod);
        let expected = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(addresses(&pod).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pod_says_what_was_added_and_what_it_asked_for() {
        let said = sidecar(&samples::pod("web-1", "mailroute.dev/sidecar:0.1.0")).unwrap();
        let expected = SidecarPod {
            name: "web-1".into(),
            uid: "web-1-uid".into(),
            owner: Some(PodOwner { kind: "Deployment".into(), name: "web".into() }),
            image: Some("mailroute.dev/sidecar:0.1.0".into()),
            hash: Some("00ff".into()),
            annotations: [("mailroute.dev/sidecar-log-level".to_owned(), "debug".to_owned())].into(),
            ready: true,
            is_pod_ready: true,
            is_ending: false,
            runs_on: true,
            created: Some("2026-11-01T00:00:00Z".parse().unwrap()),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn the_owner_is_what_a_person_would_restart() {
        let owned = |kind: &str, name: &str, controller| {
            let mut pod = samples::pod("web-1", "image");
            pod.metadata.owner_references = Some(vec![OwnerReference {
                kind: kind.into(),
                name: name.into(),
                controller,
                ..Default::default()
            }]);
            sidecar(&pod).unwrap().owner.map(|owner| owner.to_string())
        };
        assert_eq!(owned("ReplicaSet", "web-5d4f", Some(true)).as_deref(), Some("Deployment web"));
        assert_eq!(owned("ReplicaSet", "by-hand", Some(true)).as_deref(), Some("ReplicaSet by-hand"));
        assert_eq!(owned("StatefulSet", "db-5d4f", Some(true)).as_deref(), Some("StatefulSet db-5d4f"));
        assert_eq!(owned("Thing", "x", None), None, "it would not make the pod again");
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
        let said = sidecar(&pod).unwrap();
        assert!(said.ready && said.is_ending);
    }

    #[test]
    fn a_pod_of_a_job_does_not_run_on() {
        let mut pod = samples::pod("report-1", "image");
        pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
        assert!(!sidecar(&pod).unwrap().runs_on);
    }

    #[test]
    fn a_pod_whose_label_was_changed_later_has_no_sidecar_of_that_route() {
        let mut pod = samples::pod("web-1", "image");
        assert!(has_sidecar(&pod) && sidecar(&pod).is_some());
        pod.metadata.labels.as_mut().unwrap().insert(ROUTE_LABEL.into(), "invoices".into());
        assert!(!has_sidecar(&pod) && sidecar(&pod).is_none() && !has_identity_binding(&pod));
        assert!(without_sidecar(&pod).is_some(), "it has to be made anew");
    }

    #[test]
    fn a_pod_without_the_container_or_at_its_end_has_no_sidecar() {
        let mut bare = samples::pod("web-1", "image");
        assert_eq!(without_sidecar(&bare), None);
        bare.spec.as_mut().unwrap().init_containers = None;
        assert_eq!(sidecar(&bare), None);
        let owner = Some(PodOwner { kind: "Deployment".into(), name: "web".into() });
        assert_eq!(without_sidecar(&bare), Some(BarePod { name: "web-1".into(), owner }));
        let mut mirror = bare.clone();
        mirror.metadata.annotations = Some([(MIRROR.to_owned(), "x".to_owned())].into());
        prune(&mut mirror);
        assert_eq!(without_sidecar(&mirror), None, "it could not have one");
        bare.status.as_mut().unwrap().phase = Some("Failed".into());
        assert_eq!(without_sidecar(&bare), None);
        let mut ended = samples::pod("web-1", "image");
        ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
        assert_eq!(sidecar(&ended), None);
    }
}
