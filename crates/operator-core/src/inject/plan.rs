//! What has to be added to one pod, or why nothing can be: a function of the pod, its route and the platform.
//!
//! Invariants: deterministic; only additions, and a grace period that only grows; a pod that has everything needs nothing, also after other webhooks have
//! added to it or reordered it; no container of the application is touched or given anything to mount. The one container that is
//! changed is that of a gateway, which asks for it.

use serde_json::{Value, json};

use super::annotations::{self, InjectionRecord};
use super::gateway::{GatewayContainer, check_claim};
use super::grace::grace_period;
use super::names::{CONTAINER, INJECTED, PORT_START, SAFE_TO_EVICT, SPOOL_VOLUME, VOLUMES};
use super::overrides::Overrides;
use super::platform::SidecarSettings;
use super::present::{self, mounts_route};
use super::quality::is_guaranteed;
use super::refusal::Refusal;
use super::sidecar::InjectedSidecar;
use super::view::{PodView, items, name_of};
use super::volumes::{means_the_same, with_local_storage};
use crate::crd::units;
use crate::resolve::ResolvedRoute;
use mailroute_route::identity::Role;

/// Init containers of meshes and of Azure workload identity. Where they come first, the sidecar comes after them: they
/// set up the network that it uses.
const MESH: [&str; 8] = [
    "istio-validation",
    "istio-init",
    "istio-proxy",
    "linkerd-network-validator",
    "linkerd-init",
    "linkerd-proxy",
    "azwi-proxy-init",
    "azwi-proxy",
];

/// Longest list of volumes that is made longer, bytes.
const LONGEST_LIST: usize = 4096;

/// What is missing in a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InjectionPlan {
    /// The container, and its place among the init containers.
    pub container: Option<(usize, Value)>,
    /// The gateway's container, completed, and its place among the containers.
    pub completed: Option<(usize, Value)>,
    /// The volumes.
    pub volumes: Vec<Value>,
    /// The Secrets to pull the sidecar's image with, as `{name}`.
    pub pull_secrets: Vec<Value>,
    /// Whether [`PORT_START`] has to be set to 0.
    pub port_start: bool,
    /// The pod's new grace period, longer than the one it has.
    pub grace_period: Option<i64>,
    /// The value of the annotation [`INJECTED`].
    pub annotation: Option<String>,
    /// The value of the annotation [`SAFE_TO_EVICT`].
    pub safe_to_evict: Option<String>,
}

impl InjectionPlan {
    /// Whether the pod has everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Plans the injection of the route's sidecar into the pod, or the completion of its gateway.
///
/// # Errors
/// When the pod cannot have a sidecar or be a gateway, with what to change.
pub fn plan(
    pod: &Value,
    route: &ResolvedRoute,
    platform: &SidecarSettings,
) -> Result<InjectionPlan, Refusal> {
    let pod = PodView::new(pod)?;
    annotations::check(&pod)?;
    let overrides = Overrides::read(pod.annotations(), platform)?;
    let gateway = GatewayContainer::find(&pod)?;
    let role = if gateway.is_some() { Role::Gateway } else { Role::Sidecar };
    let sidecar = InjectedSidecar::of(role, route, platform, &overrides);
    check_node(&pod)?;
    check_processes(&pod, &overrides)?;
    let present = match &gateway {
        Some(gateway) => gateway.is_complete,
        None => check_container(&pod, &sidecar)?,
    };
    check_ports(&pod, &sidecar)?;
    check_mounts(&pod)?;
    let port_start = check_port_start(&pod, &sidecar)?;
    let volumes = missing_volumes(&pod, &sidecar)?;
    if gateway.is_some() {
        check_claim(&pod)?;
    }
    check_fs_group(&pod, &sidecar)?;
    let recorded = pod.annotation(INJECTED).and_then(InjectionRecord::parse);
    let grace = grace_period(&pod, &sidecar, recorded.as_ref(), present);
    let completed =
        gateway.map(|it| it.completed(&sidecar, &overrides, grace.seconds)).transpose()?.flatten();
    check_resources(completed.as_ref().map_or(&sidecar.container, |(_, container)| container))?;
    let is_new = !present || pod.annotation(INJECTED).is_none();
    let record = InjectionRecord { termination_grace_period_seconds: grace.recorded, ..sidecar.record };
    Ok(InjectionPlan {
        annotation: is_new.then(|| record.to_json()),
        safe_to_evict: if role == Role::Sidecar { safe_to_evict(&pod, route) } else { None },
        container: (role == Role::Sidecar && !present)
            .then(|| (place(&pod), container(&pod, route, &overrides, sidecar.container))),
        completed,
        volumes,
        pull_secrets: missing_pull_secrets(&pod, platform),
        port_start,
        grace_period: grace.raised,
    })
}

/// Why every pod of the route is refused that changes nothing by its annotations: what is wrong is in the route itself.
pub fn refusal_of(route: &ResolvedRoute, platform: &SidecarSettings) -> Option<Refusal> {
    let pod = json!({"metadata": {}, "spec": {"containers": [], "securityContext": {"fsGroup": 1}}});
    plan(&pod, route, platform).err()
}

/// The container as this pod needs it: within its bounds of local disk, and of its quality of service.
fn container(pod: &PodView<'_>, route: &ResolvedRoute, overrides: &Overrides, container: Value) -> Value {
    let container = with_local_storage(container, pod, route);
    if is_guaranteed(pod) { overrides.guaranteed(container) } else { container }
}

/// The list with our spool in it, where it keeps no message after its answer: cluster autoscalers then move the pod as they
/// would without the sidecar. A pod with volumes of its own lists them, or is not moved either way.
fn safe_to_evict(pod: &PodView<'_>, route: &ResolvedRoute) -> Option<String> {
    let keeps = route.file.delivery.mode.keeps() || route.sidecar.spool.storage_class_name.is_some();
    let listed = pod.annotation(SAFE_TO_EVICT).unwrap_or_default();
    // The patch repeats it.
    if listed.len() > LONGEST_LIST {
        return None;
    }
    if keeps || listed.split(',').any(|volume| volume.trim() == SPOOL_VOLUME) {
        return None;
    }
    Some(if listed.trim().is_empty() { SPOOL_VOLUME.to_owned() } else { format!("{listed},{SPOOL_VOLUME}") })
}

fn check_node(pod: &PodView<'_>) -> Result<(), Refusal> {
    let spec = pod.spec();
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(Refusal::HostNetwork);
    }
    let os = spec.get("os").and_then(name_of);
    let selected = spec.get("nodeSelector").and_then(|selector| selector.get("kubernetes.io/os")?.as_str());
    if [os, selected].contains(&Some("windows")) {
        return Err(Refusal::Windows);
    }
    Ok(())
}

/// A container that sees another's processes reaches its files through `/proc`, as root or as the same user.
fn check_processes(pod: &PodView<'_>, overrides: &Overrides) -> Result<(), Refusal> {
    let is_set = |field: &&str| pod.spec().get(*field) == Some(&Value::Bool(true));
    let shared = ["shareProcessNamespace", "hostPID"].into_iter().find(is_set);
    match shared.filter(|_| !overrides.allows_shared_processes) {
        Some(field) => Err(Refusal::SharedProcesses { field }),
        None => Ok(()),
    }
}

/// The API server refuses such a container too, and names a field that nobody wrote.
fn check_resources(container: &Value) -> Result<(), Refusal> {
    let amount = |kind: &str, resource: &str| {
        let text = container.pointer(&format!("/resources/{kind}/{resource}"))?.as_str()?;
        Some((text.to_owned(), units::thousandths(text)?))
    };
    for resource in ["cpu", "memory"] {
        let Some(((request, asked), (limit, allowed))) =
            amount("requests", resource).zip(amount("limits", resource))
        else {
            continue;
        };
        if asked > allowed {
            return Err(Refusal::RequestOverLimit { resource, request, limit });
        }
    }
    Ok(())
}

/// Whether the sidecar is there already, as the webhook would add it.
fn check_container(pod: &PodView<'_>, sidecar: &InjectedSidecar) -> Result<bool, Refusal> {
    let named = pod.all_containers().filter(|container| name_of(container) == Some(CONTAINER)).count();
    let mut ours = pod.init_containers().iter().filter(|container| is_ours(container));
    match (named, ours.next(), ours.next()) {
        (0, ..) => Ok(false),
        (1, Some(container), None) => match present::difference(container, &sidecar.container) {
            None => Ok(true),
            Some(field) => Err(Refusal::SidecarChanged { field }),
        },
        _ => Err(Refusal::ContainerName),
    }
}

/// The sidecar is known by what no other container has: the name, its restart policy and the mount of the route. Other
/// webhooks may have added environment and mounts to it.
fn is_ours(container: &Value) -> bool {
    name_of(container) == Some(CONTAINER)
        && container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
        && mounts_route(container)
}

fn others<'a>(pod: &PodView<'a>) -> impl Iterator<Item = (&'a Value, String)> + use<'a> {
    pod.all_containers()
        .filter(|container| name_of(container) != Some(CONTAINER))
        .map(|container| (container, name_of(container).unwrap_or_default().to_owned()))
}

fn check_ports(pod: &PodView<'_>, sidecar: &InjectedSidecar) -> Result<(), Refusal> {
    for (container, name) in others(pod) {
        for declared in items(container.get("ports")) {
            let is_tcp = declared.get("protocol").and_then(Value::as_str).is_none_or(|p| p == "TCP");
            let number = declared.get("containerPort").and_then(Value::as_u64);
            let clash = sidecar.ports().into_iter().find(|port| Some(u64::from(*port)) == number);
            if let Some(port) = clash.filter(|_| is_tcp) {
                return Err(Refusal::PortInUse { container: name, port });
            }
        }
    }
    Ok(())
}

fn check_mounts(pod: &PodView<'_>) -> Result<(), Refusal> {
    for (container, name) in others(pod) {
        let mounted = items(container.get("volumeMounts")).iter().filter_map(name_of);
        if let Some(volume) = mounted.into_iter().find(|volume| VOLUMES.contains(volume)) {
            return Err(Refusal::VolumeMounted { volume: volume.to_owned(), container: name });
        }
    }
    Ok(())
}

/// Whether the sysctl has to be set.
fn check_port_start(pod: &PodView<'_>, sidecar: &InjectedSidecar) -> Result<bool, Refusal> {
    if !sidecar.is_port_privileged() {
        return Ok(false);
    }
    match pod.sysctl(PORT_START) {
        None => Ok(true),
        Some(value) if value.trim().parse::<u16>().is_ok_and(|start| start <= sidecar.port) => Ok(false),
        Some(value) => Err(Refusal::Sysctl { value: value.to_owned(), port: sidecar.port }),
    }
}

fn missing_volumes(pod: &PodView<'_>, sidecar: &InjectedSidecar) -> Result<Vec<Value>, Refusal> {
    let mut missing = Vec::new();
    for wanted in &sidecar.volumes {
        let name = name_of(wanted);
        match pod.volumes().iter().find(|volume| name_of(volume) == name) {
            None => missing.push(wanted.clone()),
            Some(present) if means_the_same(wanted, present) => {}
            Some(_) => return Err(Refusal::VolumeName { volume: name.unwrap_or_default().to_owned() }),
        }
    }
    Ok(missing)
}

fn missing_pull_secrets(pod: &PodView<'_>, platform: &SidecarSettings) -> Vec<Value> {
    let present = items(pod.spec().get("imagePullSecrets"));
    let is_missing = |name: &&String| !present.iter().any(|secret| name_of(secret) == Some(name.as_str()));
    platform.pull_secrets.iter().filter(is_missing).map(|name| json!({"name": name})).collect()
}

/// A volume of a storage class belongs to root when it is new, so the sidecar can write to it only by a group.
fn check_fs_group(pod: &PodView<'_>, sidecar: &InjectedSidecar) -> Result<(), Refusal> {
    if sidecar.needs_fs_group && pod.fs_group().is_none() { Err(Refusal::FsGroup) } else { Ok(()) }
}

/// After the meshes that come first, before everything else.
fn place(pod: &PodView<'_>) -> usize {
    let is_mesh = |container: &&Value| name_of(container).is_some_and(|name| MESH.contains(&name));
    pod.init_containers().iter().take_while(is_mesh).count()
}
