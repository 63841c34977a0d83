//! The injected container: what it may use, where it keeps messages, what it logs. `spec.sidecar`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use mailroute_route::file::LogAddresses;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{AMOUNT, SIZE, has_form};

/// The injected container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Resource requests and limits of the container.
    pub resources: Resources,
    /// The volume for queued messages, and for large ones while they pass through.
    pub spool: Spool,
    /// How much of a mail address log lines show. Domain: only the part after the @. Hidden: nothing.
    pub log_addresses: LogAddresses,
}

/// What becomes of pods whose sidecar is not as a new pod would get it: another image, or settings that only a new pod gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rollout {
    /// They are counted and named.
    #[default]
    Report,
    /// They are evicted, politely.
    Restart,
}

/// The volume of kept messages. It belongs to one pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spool {
    /// Size of the volume, such as `1Gi`, or a number of bytes. Messages, including dead letters, may use nine tenths of it;
    /// beyond that, applications get 452.
    #[serde(default = "Spool::default_size")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new(has_form(SIZE))
        .message("must be a size such as 1Gi or 500M, or a number of bytes"))]
    pub size_limit: Quantity,
    /// StorageClass of the volume. Without it, the volume is an emptyDir on the node's disk. With it, the volume is a
    /// generic ephemeral volume of that class, which Kubernetes releases with the pod: remaining messages outlive the pod
    /// only if the class's reclaim policy is Retain. The pod then needs an fsGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a StorageClass: lower-case letters, digits, - and ."))]
    pub storage_class_name: Option<String>,
}

impl Spool {
    /// Six of the largest messages that Exchange Online takes at all (150 MB).
    fn default_size() -> Quantity {
        Quantity("1Gi".to_owned())
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self { size_limit: Self::default_size(), storage_class_name: None }
    }
}

/// What a container asks for and may use, with the meaning of `resources` of a container in a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler reserves.
    pub requests: ResourceList,
    /// What the container may not exceed.
    pub limits: ResourceList,
}

impl Default for Resources {
    fn default() -> Self {
        let quantity = |text: &str| Some(Quantity(text.to_owned()));
        Self {
            requests: ResourceList {
                cpu: quantity("10m"),
                memory: quantity("32Mi"),
                ephemeral_storage: None,
            },
            limits: ResourceList {
                cpu: quantity("500m"),
                memory: quantity("128Mi"),
                ephemeral_storage: None,
            },
        }
    }
}

/// Amounts of compute resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ResourceList {
    /// CPU, in cores: 500m is half a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new(has_form(AMOUNT))
        .message("must be a number of CPU cores, such as 0.5 or 500m"))]
    pub cpu: Option<Quantity>,
    /// Memory, in bytes: 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new(has_form(AMOUNT))
        .message("must be a memory size such as 128Mi, or a number of bytes"))]
    pub memory: Option<Quantity>,
    /// Local disk, in bytes.
    #[serde(rename = "ephemeral-storage", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new(has_form(AMOUNT))
        .message("must be a disk size such as 1Gi, or a number of bytes"))]
    pub ephemeral_storage: Option<Quantity>,
}
