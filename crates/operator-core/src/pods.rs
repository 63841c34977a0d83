//! What a pod says about its sidecar, or about the gateway that it is, and what of that is kept ([`watched`]). Pure.

pub mod watched;

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
use mailroute_route::paths::AUTO_IMAGE;

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

/// What a pod says of its sidecar, or of the gateway that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarPod {
    /// What it does for its route.
    pub role: Role,
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
    /// Whether the sidecar accepts mail: its startup probe has passed and it runs. Of a gateway: its container is ready.
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Removes all that the operator does not use from a pod, so that what is kept of it is bounded.
fn prune(pod: &mut Pod) {
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
        let is_ours = |c: &Container| c.name == CONTAINER;
        let sidecar = spec.init_containers.into_iter().flatten().filter(is_ours);
        let gateway = spec.containers.into_iter().filter(is_ours).take(1);
        let bare = |c: Container| {
            let proxy = c.env.into_iter().flatten().find(|variable| variable.name == TOKEN_PROXY);
            let env = proxy.map(|proxy| vec![EnvVar { name: proxy.name, ..Default::default() }]);
            let image = c.image.filter(|image| image.len() <= LONGEST_IMAGE);
            Container { name: c.name, image, env, ..Default::default() }
        };
        pod.spec = Some(PodSpec {
            init_containers: Some(sidecar.map(bare).collect()),
            containers: gateway.map(bare).collect(),
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
    let ours = |containers: Option<Vec<ContainerStatus>>| {
        containers.into_iter().flatten().filter(|container| container.name == CONTAINER).take(1)
    };
    let (sidecar, gateway) = (ours(status.init_container_statuses), ours(status.container_statuses));
    let bare = |container: ContainerStatus| ContainerStatus {
        name: container.name,
        started: container.started,
        ready: container.ready,
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
        container_statuses: Some(gateway.map(bare).collect()),
        ..Default::default()
    }
}

/// A pod that has not ended and has no sidecar in spite of its label, nor is a gateway; none for one that could not have any.
fn without_sidecar(pod: &Pod) -> Option<BarePod> {
    let is_bare = !has_run(pod) && container(pod).is_none() && !pod.annotations().contains_key(MIRROR);
    is_bare.then(|| BarePod { name: pod.name_any(), owner: owner(pod) })
}

/// The sidecar of a pod, or the gateway that it is; none if the pod has none or has ended.
pub fn sidecar(pod: &Pod) -> Option<SidecarPod> {
    if has_run(pod) {
        return None;
    }
    let (status, spec, (container, role)) = (pod.status.as_ref(), pod.spec.as_ref()?, container(pod)?);
    let record = pod.annotations().get(INJECTED).and_then(|json| InjectionRecord::parse(json));
    let written = pod.annotations().iter().filter(|(key, _)| *key != INJECTED && is_ours(key));
    Some(SidecarPod {
        role,
        name: pod.name_any(),
        uid: pod.uid()?,
        owner: owner(pod),
        image: container.image.clone(),
        hash: record.map(|record| record.hash),
        annotations: written.map(|(key, value)| (key.clone(), value.clone())).collect(),
        ready: status.is_some_and(|status| takes_mail(status, role)),
        is_pod_ready: status.is_some_and(is_ready),
        is_ending: pod.metadata.deletion_timestamp.is_some(),
        runs_on: spec.restart_policy.as_deref().is_none_or(|policy| policy == "Always"),
        created: pod.creation_timestamp().map(|time| time.0),
    })
}

/// Whether the sidecar shows its ServiceAccount's token to the proxy of an AKS identity binding, and not to Entra.
fn has_identity_binding(pod: &Pod) -> bool {
    let env = container(pod).and_then(|(container, _)| container.env.as_deref()).unwrap_or_default();
    env.iter().any(|variable| variable.name == TOKEN_PROXY)
}

/// The addresses of the pod.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    addresses.filter_map(|address| address.ip.parse().ok())
}

/// Whether all of its containers have ended for good.
fn has_run(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What the pod does for the route on its label: it has the native sidecar, or its container is a gateway that the webhook has
/// completed.
fn role(pod: &Pod) -> Option<Role> {
    container(pod).map(|(_, role)| role)
}

/// The container that runs our program for the route on the pod's label; none of another route, as in a pod whose label was
/// changed later.
fn container(pod: &Pod) -> Option<(&Container, Role)> {
    let record = pod.annotations().get(INJECTED).and_then(|json| InjectionRecord::parse(json));
    if record.is_some_and(|record| pod.labels().get(ROUTE_LABEL) != Some(&record.route)) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    if let Some(sidecar) = spec.init_containers.iter().flatten().find(|it| it.name == CONTAINER) {
        return Some((sidecar, Role::Sidecar));
    }
    let gateway = spec.containers.iter().find(|it| it.name == CONTAINER)?;
    (gateway.image.as_deref() != Some(AUTO_IMAGE)).then_some((gateway, Role::Gateway))
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

fn takes_mail(status: &PodStatus, role: Role) -> bool {
    let (statuses, is_gateway) = match role {
        Role::Sidecar => (&status.init_container_statuses, false),
        Role::Gateway => (&status.container_statuses, true),
    };
    statuses.iter().flatten().any(|status| {
        let runs = status.started == Some(true) && !has_ended(status.state.as_ref());
        status.name == CONTAINER && runs && (status.ready || !is_gateway)
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

#[cfg(test)]
mod tests;
