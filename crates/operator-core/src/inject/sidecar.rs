//! The sidecar of a route, and its gateway: the container and the volumes that every pod of the route gets, whatever the pod.
//!
//! The container meets Pod Security `restricted` by itself. It has a startup and a liveness probe on its own listener
//! and nothing else: a readiness probe would take the application out of its Service when Microsoft 365 has an outage,
//! and a preStop hook would stop the listener while the application still sends. A gateway is its pod's own application and has
//! a readiness probe, on its own listener too: sidecars look up the gateways that are ready.

use std::net::{Ipv6Addr, SocketAddr};

use mailroute_route::identity::Role;
use mailroute_route::paths;
use serde_json::{Value, json};

use super::annotations::InjectionRecord;
use super::names::{CONTAINER, SPOOL_VOLUME};
use super::overrides::Overrides;
use super::platform::SidecarSettings;
use super::view::name_of;
use super::volumes::{mounts, volumes};
use crate::resolve::ResolvedRoute;

/// Ports below are privileged unless [`PORT_START`](super::names::PORT_START) says otherwise.
pub const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Seconds that a pod is given beyond its own grace period, when messages may wait in the sidecar: the kubelet stops the
/// sidecar when the application has ended, with what is left of the period. At Exchange's 30 messages a minute it is enough
/// for what a mailbox may send in that time.
pub const DRAIN_SECONDS: i64 = 60;
/// The last of the seconds that a container has to end: it ends by itself, before the kubelet ends it.
pub(super) const END_SECONDS: i64 = 5;
/// How much of the drain the sidecar uses.
const DRAIN_SHARE_SECONDS: i64 = DRAIN_SECONDS - END_SECONDS;
/// Name of the port of health and metrics; a port name has at most 15 characters.
const ADMIN_PORT_NAME: &str = "mailroute-admin";
/// Name of the port on which a gateway takes messages over.
const GATEWAY_PORT_NAME: &str = "handover";

/// Everything that a pod of one route gets.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectedSidecar {
    /// What the pod does for the route.
    pub role: Role,
    /// The native sidecar for `spec.initContainers`, or what a gateway's container is completed with.
    pub container: Value,
    /// The volumes for `spec.volumes`. A gateway's pod has its spool already, as a claim.
    pub volumes: Vec<Value>,
    /// Where the application connects.
    pub port: u16,
    /// Seconds by which the pod's grace period has to grow; of a gateway the least that it has to be.
    pub drain_seconds: i64,
    /// Whether a volume is writable only for a group that the pod has to name.
    pub needs_fs_group: bool,
    /// For the annotation.
    pub record: InjectionRecord,
}

impl InjectedSidecar {
    /// What a pod of a route gets on a platform in this role, with these overrides.
    pub fn of(role: Role, route: &ResolvedRoute, platform: &SidecarSettings, overrides: &Overrides) -> Self {
        let image = overrides.image.as_ref().unwrap_or(&platform.image);
        let port = overrides.port.unwrap_or(route.file.listen.port);
        let (container, mut volumes) = (container(role, route, platform, image, overrides), volumes(route));
        let added = match role {
            // The port itself is not in it: a sidecar follows its route to another one, as long as the pod lets it.
            Role::Sidecar => json!({
                "container": container, "volumes": volumes, "portStart": port < FIRST_UNPRIVILEGED_PORT,
            }),
            Role::Gateway => {
                volumes.retain(|volume| name_of(volume) != Some(SPOOL_VOLUME));
                // The resources are the owner's, where the pod template has any.
                let mut container = container.clone();
                container["resources"].take();
                json!({"container": container, "volumes": volumes})
            }
        };
        let keeps = role == Role::Gateway || route.file.delivery.mode.keeps();
        let claims = role == Role::Gateway || route.sidecar.spool.storage_class_name.is_some();
        let record = InjectionRecord {
            image: image.clone(),
            route: route.file.name.clone(),
            generation: route.file.generation,
            hash: fingerprint(&added),
            termination_grace_period_seconds: None,
        };
        Self {
            role,
            container,
            volumes,
            port,
            drain_seconds: if keeps { DRAIN_SECONDS } else { 0 },
            needs_fs_group: claims && !platform.assigns_users,
            record,
        }
    }

    /// Whether the pod needs [`PORT_START`](super::names::PORT_START) lowered. In a gateway's pod nothing listens below.
    pub fn is_port_privileged(&self) -> bool {
        self.role == Role::Sidecar && self.port < FIRST_UNPRIVILEGED_PORT
    }

    /// The ports that no other container of the pod may listen on.
    pub const fn ports(&self) -> [u16; 2] {
        match self.role {
            Role::Sidecar => [self.port, paths::ADMIN_PORT],
            Role::Gateway => [paths::GATEWAY_PORT, paths::ADMIN_PORT],
        }
    }
}

/// Sixteen hexadecimal digits of SHA-256 over the JSON, whose object keys are sorted.
fn fingerprint(value: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn container(
    role: Role,
    route: &ResolvedRoute,
    platform: &SidecarSettings,
    image: &str,
    overrides: &Overrides,
) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let mut container = json!({
        "name": CONTAINER,
        "image": image,
        "ports": [port(ADMIN_PORT_NAME, paths::ADMIN_PORT)],
        "resources": overrides.resources(json!(route.sidecar.resources)),
        // The next container starts when mail is accepted, and not later than two minutes after.
        "startupProbe": probe(&["alive"], 1, 120),
        // After a minute and a half without an answer from its own listener a restart is better than waiting.
        "livenessProbe": probe(&["alive"], 30, 3),
        "securityContext": security_context(platform),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(route),
    });
    match role {
        // What makes an init container a sidecar: it runs beside the others and does not keep a Job from completing.
        Role::Sidecar => container["restartPolicy"] = "Always".into(),
        Role::Gateway => {
            container["readinessProbe"] = probe(&["alive", "--ready"], 10, 3);
            container["ports"] = json!([
                port(ADMIN_PORT_NAME, paths::ADMIN_PORT),
                port(GATEWAY_PORT_NAME, paths::GATEWAY_PORT)
            ]);
        }
    }
    let options = options(role, route, platform, overrides);
    if !options.is_empty() {
        container["args"] = options.into();
    }
    if let Some(policy) = platform.pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    container
}

fn security_context(platform: &SidecarSettings) -> Value {
    let mut context = json!({
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if !platform.assigns_users {
        context["runAsUser"] = paths::SIDECAR_USER.into();
        context["runAsGroup"] = paths::SIDECAR_USER.into();
    }
    context
}

/// The arguments. Never environment variables: the kubelet sets some in every container, and a Service named `mailroute`
/// makes one of them `MAILROUTE_PORT`.
///
/// The control service is named here, because the webhook sets a pod's arguments, whereas anybody who may write ConfigMaps in the
/// namespace can change its ConfigMap.
fn options(
    role: Role,
    route: &ResolvedRoute,
    platform: &SidecarSettings,
    overrides: &Overrides,
) -> Vec<String> {
    let is_gateway = role == Role::Gateway;
    let keeps = is_gateway || route.file.delivery.mode.keeps();
    let gateway = SocketAddr::from((Ipv6Addr::UNSPECIFIED, paths::GATEWAY_PORT));
    let port = overrides.port.filter(|_| !is_gateway);
    [
        platform.control_address.as_ref().map(|address| format!("--control={address}")),
        keeps.then(|| format!("--grace={DRAIN_SHARE_SECONDS}")),
        is_gateway.then(|| format!("--gateway={gateway}")),
        port.map(|port| format!("--port={port}")),
        overrides.log_level.map(|level| format!("--log-level={level}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A probe that runs inside the container: in a pod of a mesh whose proxy is an ordinary container, a probe over the network would wait
/// for that proxy, and the proxy for this container to start.
fn probe(arguments: &[&str], period_seconds: u32, failures: u32) -> Value {
    let command: Vec<_> = std::iter::once(paths::PROGRAM).chain(arguments.iter().copied()).collect();
    json!({
        "exec": {"command": command},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_runs_as_the_user_that_the_webhook_names() {
        let dockerfile = include_str!("../../../../sidecar/Dockerfile");
        assert!(dockerfile.contains(&format!("USER {0}:{0}", paths::SIDECAR_USER)), "{dockerfile}");
    }
}
