//! What has to be added to one pod, or why nothing can be: a function of the pod, its route and the platform.
//!
//! Invariants: deterministic; only additions; a pod that has everything needs nothing, also after other webhooks have
//! added to it or reordered it; no container of the application is touched or given anything to mount.

use serde_json::Value;

use super::annotations::{self, INJECTED};
use super::refusal::Refusal;
use super::sidecar::{CONTAINER, PORT_START, Platform, ROUTE_VOLUME, Sidecar, VOLUMES};
use super::view::{PodView, items, name_of};
use crate::crd::MailRoute;
use mailroute_route::paths;

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

/// What is missing in a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The container, and its place among the init containers.
    pub container: Option<(usize, Value)>,
    /// The volumes.
    pub volumes: Vec<Value>,
    /// Whether [`PORT_START`] has to be set to 0.
    pub port_start: bool,
    /// The value of the annotation [`INJECTED`].
    pub annotation: Option<String>,
}

impl Plan {
    /// Whether the pod has everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Plans the injection of the route's sidecar into the pod.
///
/// # Errors
/// When the pod cannot have a sidecar, with what to change.
pub fn plan(pod: &Value, route: &MailRoute, platform: &Platform) -> Result<Plan, Refusal> {
    let pod = PodView::new(pod)?;
    let sidecar = Sidecar::of(route, platform);
    annotations::check(&pod)?;
    check_node(&pod)?;
    let present = check_container(&pod)?;
    check_ports(&pod, &sidecar)?;
    check_mounts(&pod)?;
    let port_start = check_port_start(&pod, &sidecar)?;
    let volumes = missing_volumes(&pod, &sidecar)?;
    let record = !present || pod.annotation(INJECTED).is_none();
    Ok(Plan {
        annotation: record.then(|| sidecar.record.to_json()),
        container: (!present).then_some((place(&pod), sidecar.container)),
        volumes,
        port_start,
    })
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

/// Whether the sidecar is there already.
fn check_container(pod: &PodView<'_>) -> Result<bool, Refusal> {
    let named = pod.all_containers().filter(|container| name_of(container) == Some(CONTAINER)).count();
    let ours = pod.init_containers().iter().filter(|container| is_ours(container)).count();
    match (named, ours) {
        (0, _) => Ok(false),
        (1, 1) => Ok(true),
        _ => Err(Refusal::ContainerName),
    }
}

/// The sidecar is known by what no other container has: the name, its restart policy and the mount of the route. Other
/// webhooks may have added environment and mounts to it.
fn is_ours(container: &Value) -> bool {
    let mounts_route = items(container.get("volumeMounts")).iter().any(|mount| {
        name_of(mount) == Some(ROUTE_VOLUME)
            && mount.get("mountPath").and_then(Value::as_str) == Some(paths::ROUTE_DIR)
    });
    name_of(container) == Some(CONTAINER)
        && container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
        && mounts_route
}

fn others<'a>(pod: &PodView<'a>) -> impl Iterator<Item = (&'a Value, String)> + use<'a> {
    pod.all_containers()
        .filter(|container| name_of(container) != Some(CONTAINER))
        .map(|container| (container, name_of(container).unwrap_or_default().to_owned()))
}

fn check_ports(pod: &PodView<'_>, sidecar: &Sidecar) -> Result<(), Refusal> {
    for (container, name) in others(pod) {
        for declared in items(container.get("ports")) {
            let is_tcp = declared.get("protocol").and_then(Value::as_str).is_none_or(|p| p == "TCP");
            let number = declared.get("containerPort").and_then(Value::as_u64);
            let clash =
                [sidecar.port, paths::ADMIN_PORT].into_iter().find(|port| Some(u64::from(*port)) == number);
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
fn check_port_start(pod: &PodView<'_>, sidecar: &Sidecar) -> Result<bool, Refusal> {
    if !sidecar.is_port_privileged() {
        return Ok(false);
    }
    match pod.sysctl(PORT_START) {
        None => Ok(true),
        Some(value) if value.trim().parse::<u16>().is_ok_and(|start| start <= sidecar.port) => Ok(false),
        Some(value) => Err(Refusal::Sysctl { value: value.to_owned(), port: sidecar.port }),
    }
}

fn missing_volumes(pod: &PodView<'_>, sidecar: &Sidecar) -> Result<Vec<Value>, Refusal> {
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

/// Whether the volume that is there has the content of the one that is wanted. The API server fills defaults in and may
/// write a quantity differently, so what is compared is where the content comes from.
fn means_the_same(wanted: &Value, present: &Value) -> bool {
    let part = |pointer: &str| (wanted.pointer(pointer), present.pointer(pointer));
    if wanted.get("emptyDir").is_some() {
        return present.get("emptyDir").is_some();
    }
    if wanted.get("configMap").is_some() {
        let (name, present_name) = part("/configMap/name");
        let (items, present_items) = part("/configMap/items");
        return name == present_name && items == present_items;
    }
    let (sources, present_sources) = part("/projected/sources");
    let (sources, present_sources) = (items(sources), items(present_sources));
    sources.len() == present_sources.len() && sources.iter().all(|source| present_sources.contains(source))
}

/// After the meshes that come first, before everything else.
fn place(pod: &PodView<'_>) -> usize {
    let is_mesh = |container: &&Value| name_of(container).is_some_and(|name| MESH.contains(&name));
    pod.init_containers().iter().take_while(is_mesh).count()
}
