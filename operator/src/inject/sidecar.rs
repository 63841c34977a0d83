//! The sidecar of a route: the container and the volumes that every pod of the route gets, whatever the pod.
//!
//! The container meets Pod Security `restricted` by itself. It has a startup and a liveness probe on its own listener
//! and nothing else: a readiness probe would take the application out of its Service when Microsoft 365 is in trouble,
//! and a preStop hook would close the door while the application still sends.
//!
//! Files it has to read are readable for it in every pod: the kubelet writes projected tokens with mode 0644, unless all
//! containers share one user, who then owns them (0600), or the pod has an fsGroup, which is then also a group of this
//! container. Who can read is bounded by who mounts: the sidecar alone.

use std::fmt;
use std::str::FromStr;

use mailroute_route::paths;
use serde_json::{Value, json};

use super::annotations::Record;
use crate::crd::mail_route::CaBundleRef;
use crate::crd::{MailRoute, config_map_name};

/// Name of the container.
pub const CONTAINER: &str = "mailroute";
/// Volume of the rendered route.
pub const ROUTE_VOLUME: &str = "mailroute-route";
/// Volume of the projected tokens.
pub const TOKENS_VOLUME: &str = "mailroute-tokens";
/// Volume of message bodies.
pub const SPOOL_VOLUME: &str = "mailroute-spool";
/// Volume of the CA bundle for the token authority.
pub const AUTHORITY_CA_VOLUME: &str = "mailroute-authority-ca";
/// Volume of the CA bundle for the upstream.
pub const ENDPOINT_CA_VOLUME: &str = "mailroute-endpoint-ca";
/// Every volume name of ours.
pub const VOLUMES: [&str; 5] =
    [ROUTE_VOLUME, TOKENS_VOLUME, SPOOL_VOLUME, AUTHORITY_CA_VOLUME, ENDPOINT_CA_VOLUME];

/// The sysctl that says from which port on a program without privileges may listen. Safe: Kubernetes lets every pod
/// set it, under Pod Security `restricted` too.
pub const PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";
/// Ports below are privileged unless [`PORT_START`] says otherwise.
pub const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// User and group of the container, as the image has them.
const USER: i64 = 65532;
/// Life of a projected token, seconds; the kubelet renews it when a fifth is left. An hour is what Entra's guide uses.
const TOKEN_SECONDS: i64 = 3600;
/// Bound on the spool volume: six of the largest messages that Exchange Online takes at all (150 MB).
const SPOOL_SIZE: &str = "1Gi";
/// Name of the port of health and metrics; a port name has at most 15 characters.
const ADMIN_PORT_NAME: &str = "mailroute-admin";

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a pull policy.
#[derive(Debug, thiserror::Error)]
#[error("must be Always, IfNotPresent or Never")]
pub struct ParsePullPolicyError;

impl FromStr for PullPolicy {
    type Err = ParsePullPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::IfNotPresent, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or(ParsePullPolicyError)
    }
}

/// What the installation chooses for every sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Image of the sidecar.
    pub image: String,
    /// When to pull it; `None` leaves it to Kubernetes, which goes by the tag.
    pub pull_policy: Option<PullPolicy>,
}

/// Everything that a pod of one route gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The native sidecar for `spec.initContainers`.
    pub container: Value,
    /// The volumes for `spec.volumes`.
    pub volumes: Vec<Value>,
    /// Where the application connects.
    pub port: u16,
    /// For the annotation.
    pub record: Record,
}

impl Sidecar {
    /// The sidecar of a route on a platform.
    pub fn of(route: &MailRoute, platform: &Platform) -> Self {
        let (container, volumes) = (container(route, platform), volumes(route));
        let name = route.metadata.name.clone().unwrap_or_default();
        let record = Record {
            image: platform.image.clone(),
            route: name,
            generation: route.metadata.generation.unwrap_or_default(),
            hash: fingerprint(&json!({"container": container, "volumes": volumes})),
        };
        Self { container, volumes, port: route.spec.listen.port, record }
    }

    /// Whether the pod needs [`PORT_START`] lowered.
    pub const fn is_port_privileged(&self) -> bool {
        self.port < FIRST_UNPRIVILEGED_PORT
    }
}

/// Sixteen hexadecimal digits of SHA-256 over the JSON, whose object keys are sorted.
fn fingerprint(value: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn container(route: &MailRoute, platform: &Platform) -> Value {
    let mut container = json!({
        "name": CONTAINER,
        "image": platform.image,
        // What makes an init container a sidecar: it runs beside the others and does not keep a Job from completing.
        "restartPolicy": "Always",
        "ports": [{"name": ADMIN_PORT_NAME, "containerPort": paths::ADMIN_PORT, "protocol": "TCP"}],
        "resources": route.spec.sidecar.resources,
        // The next container starts when mail is accepted, and not later than two minutes after.
        "startupProbe": probe(1, 2, 120),
        // A minute of silence on the own listener; only then is a restart better than waiting.
        "livenessProbe": probe(10, 5, 6),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(route),
    });
    if let Some(policy) = platform.pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    container
}

fn probe(period_seconds: u32, timeout_seconds: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/livez", "port": paths::ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": timeout_seconds,
        "failureThreshold": failures,
    })
}

fn mounts(route: &MailRoute) -> Vec<Value> {
    let read_only = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![
        read_only(ROUTE_VOLUME, paths::ROUTE_DIR),
        read_only(TOKENS_VOLUME, paths::TOKENS_DIR),
        json!({"name": SPOOL_VOLUME, "mountPath": paths::SPOOL_DIR}),
    ];
    if authority_ca(route).is_some() {
        mounts.push(read_only(AUTHORITY_CA_VOLUME, paths::AUTHORITY_CA_DIR));
    }
    if endpoint_ca(route).is_some() {
        mounts.push(read_only(ENDPOINT_CA_VOLUME, paths::ENDPOINT_CA_DIR));
    }
    mounts
}

fn volumes(route: &MailRoute) -> Vec<Value> {
    let name = route.metadata.name.as_deref().unwrap_or_default();
    let mut volumes = vec![
        json!({"name": ROUTE_VOLUME, "configMap": {"name": config_map_name(name)}}),
        json!({"name": TOKENS_VOLUME, "projected": {"sources": [
            token(entra_audience(route), paths::ENTRA_TOKEN_FILE),
            token(paths::CONTROL_AUDIENCE, paths::CONTROL_TOKEN_FILE),
        ]}}),
        json!({"name": SPOOL_VOLUME, "emptyDir": {"sizeLimit": SPOOL_SIZE}}),
    ];
    volumes.extend(authority_ca(route).map(|ca| ca_volume(AUTHORITY_CA_VOLUME, ca)));
    volumes.extend(endpoint_ca(route).map(|ca| ca_volume(ENDPOINT_CA_VOLUME, ca)));
    volumes
}

fn token(audience: &str, path: &str) -> Value {
    json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": path}})
}

/// Optional, so that a missing bundle is a condition that names it and not a pod that hangs.
fn ca_volume(volume: &str, ca: &CaBundleRef) -> Value {
    let items = [json!({"key": ca.key, "path": paths::CA_FILE})];
    json!({"name": volume, "configMap": {"name": ca.name, "items": items, "optional": true}})
}

fn entra_audience(route: &MailRoute) -> &str {
    let authority = route.spec.tenant.authority.as_ref();
    authority.and_then(|authority| authority.audience.as_deref()).unwrap_or(paths::ENTRA_AUDIENCE)
}

fn authority_ca(route: &MailRoute) -> Option<&CaBundleRef> {
    route.spec.tenant.authority.as_ref()?.ca_bundle_ref.as_ref()
}

fn endpoint_ca(route: &MailRoute) -> Option<&CaBundleRef> {
    route.spec.endpoint.as_ref()?.ca_bundle_ref.as_ref()
}
