//! Why a pod is not given a sidecar: each reason once, with a sentence and a remedy, for a person to read.
//!
//! The text reaches that person by three ways: as the API server's answer to `kubectl`, as the `FailedCreate` Event of
//! the ReplicaSet or Job, and as an Event on the MailRoute. The reason alone is a metric label, so the set is closed.

use std::fmt;

use mailroute_route::paths::{ADMIN_PORT, SIDECAR_USER};

use super::annotations::KEYS;
use super::overrides::{IMAGE, PORT, SHARED_PROCESSES, Wanted};
use super::sidecar::{CONTAINER, PORT_START};
use crate::kubernetes::{OLDEST, Version};

/// Routes named in one message, at most.
const NAMED: usize = 10;

/// Why a labelled pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The label names a route that does not exist in the pod's namespace.
    UnknownRoute {
        /// The name on the label.
        route: String,
        /// The pod's namespace.
        namespace: String,
        /// The routes that exist there.
        known: Vec<String>,
    },
    /// The route exists and cannot be used as it is written.
    InvalidRoute {
        /// Its name.
        route: String,
        /// What is wrong, with the field.
        message: String,
    },
    /// The route is stored in a shape that this version cannot read.
    UnreadableRoute {
        /// Its name.
        route: String,
        /// What is wrong with it.
        error: String,
    },
    /// The pod shares the node's network.
    HostNetwork,
    /// The pod is for a Windows node.
    Windows,
    /// A container has the sidecar's name and is not the sidecar.
    ContainerName,
    /// The pod brings the sidecar along, and not as the webhook adds it.
    SidecarChanged {
        /// The first field of the container that differs.
        field: &'static str,
    },
    /// A volume has a name of ours and is not ours.
    VolumeName {
        /// Its name.
        volume: String,
    },
    /// A container of the application mounts a volume that is for the sidecar alone.
    VolumeMounted {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
    },
    /// A container of the application declares a port that the sidecar listens on.
    PortInUse {
        /// The container.
        container: String,
        /// The port.
        port: u16,
    },
    /// The pod sets the sysctl so that the sidecar may not listen on its port.
    Sysctl {
        /// The pod's value.
        value: String,
        /// The port.
        port: u16,
    },
    /// The route keeps messages on a volume of a storage class, which the sidecar could not write to.
    FsGroup,
    /// An annotation under our group that does not exist.
    UnknownAnnotation {
        /// Its key.
        key: String,
    },
    /// The value of one of our annotations is not of its type.
    InvalidAnnotation {
        /// Its key.
        key: String,
        /// Its value, or the beginning of it.
        value: String,
        /// What it has to be.
        wanted: Wanted,
    },
    /// The pod chooses the sidecar's image, and the platform does not let it.
    ImageNotAllowed,
    /// The sidecar asks for more of a resource than it may use.
    RequestOverLimit {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// What it asks for.
        request: String,
        /// What it may use.
        limit: String,
    },
    /// The containers of the pod see the sidecar's processes, and so could reach its credential.
    SharedProcesses {
        /// The field of the pod that has it so.
        field: &'static str,
    },
    /// The API server may not know native sidecars.
    KubernetesTooOld {
        /// What it is.
        version: Version,
    },
    /// The object is not shaped like a pod.
    Malformed {
        /// The first field that is not.
        field: &'static str,
    },
}

/// Every reason, and which refusal has it: each is called as its variant is.
macro_rules! reasons {
    ($($variant:ident),+ $(,)?) => {
        impl Refusal {
            /// Every reason that a refusal can have: the closed set of the metric's label.
            pub const REASONS: &[&str] = &[$(stringify!($variant)),+];

            /// The constant for metrics and Events.
            pub const fn reason(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}

reasons! {
    UnknownRoute,
    InvalidRoute,
    UnreadableRoute,
    HostNetwork,
    Windows,
    ContainerName,
    SidecarChanged,
    VolumeName,
    VolumeMounted,
    PortInUse,
    Sysctl,
    FsGroup,
    UnknownAnnotation,
    InvalidAnnotation,
    ImageNotAllowed,
    RequestOverLimit,
    SharedProcesses,
    KubernetesTooOld,
    Malformed,
}

impl Refusal {
    /// What to do about it, in one sentence.
    pub fn remedy(&self) -> String {
        match self {
            Self::UnknownRoute { namespace, known, .. } if known.is_empty() => {
                format!("Apply a MailRoute of that name in namespace {namespace:?} first.")
            }
            Self::UnknownRoute { .. } => {
                "Correct the label mailroute.dev/route, or apply a MailRoute of that name.".to_owned()
            }
            Self::InvalidRoute { route, .. } => {
                format!("Correct the route; see kubectl describe mailroute {route}.")
            }
            Self::UnreadableRoute { .. } => {
                "Apply the MailRoute again as the current schema wants it: kubectl explain mailroute.spec"
                    .to_owned()
            }
            Self::HostNetwork => {
                "Remove hostNetwork: the sidecar's port would be open to every program of the node."
                    .to_owned()
            }
            Self::Windows => "Run the pod on Linux, or remove the label mailroute.dev/route.".to_owned(),
            Self::ContainerName => format!(
                "Rename that container; if it is the sidecar, another webhook changed it (restartPolicy Always and the \
                 mount of {:?} must stay).",
                super::volumes::ROUTE_VOLUME
            ),
            Self::SidecarChanged { .. } => format!(
                "Remove the container {CONTAINER:?} from the pod, and the webhook adds it; if another webhook rewrites images, \
                 set the chart value sidecar.image.repository to what it makes of them."
            ),
            Self::VolumeName { .. } => "Rename that volume.".to_owned(),
            Self::VolumeMounted { .. } => {
                "Remove that mount: credentials for mail stay out of the application's containers.".to_owned()
            }
            Self::PortInUse { port: ADMIN_PORT, .. } => {
                "Use another port in that container: the sidecar serves its health and metrics there."
                    .to_owned()
            }
            Self::PortInUse { .. } => {
                format!(
                    "Use another port in that container, or set spec.listen.port of the route or the pod's {PORT}."
                )
            }
            Self::Sysctl { port, .. } => format!(
                "Remove that sysctl or set it to {port} or lower, or set spec.listen.port of the route to 1024 or more."
            ),
            Self::FsGroup => format!(
                "Set spec.securityContext.fsGroup of the pod, to {SIDECAR_USER} for example, or take \
                 spec.sidecar.spool.storageClassName out of the route."
            ),
            Self::UnknownAnnotation { .. } => {
                format!("Remove it or correct it; the annotations are: {}.", KEYS.join(", "))
            }
            Self::InvalidAnnotation { wanted, .. } => {
                format!("Write {}, in quotes; the annotations are: {}.", wanted.as_str(), KEYS.join(", "))
            }
            Self::ImageNotAllowed => format!(
                "Remove {IMAGE}; whoever runs the operator can allow it (chart value sidecar.allowImageOverride)."
            ),
            Self::RequestOverLimit { resource, .. } => format!(
                "Set both annotations, mailroute.dev/sidecar-{resource}-request and mailroute.dev/sidecar-{resource}-limit, \
                 or spec.sidecar.resources of the route."
            ),
            Self::SharedProcesses { field } => {
                format!("Remove {field}, or accept it with the annotation {SHARED_PROCESSES}: \"true\".")
            }
            Self::KubernetesTooOld { .. } => {
                "Upgrade the cluster, which the operator sees within five minutes, or remove the \
                                              label mailroute.dev/route."
                    .to_owned()
            }
            Self::Malformed { .. } => "Check the manifest with kubectl apply --dry-run=server.".to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    /// The sentence, without the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoute { route, namespace, known } => {
                write!(f, "There is no MailRoute {route:?} in namespace {namespace:?}")?;
                match known.len() {
                    0 => write!(f, ", nor any other."),
                    many => {
                        let names =
                            known.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                        let more = if many > NAMED { ", …" } else { "" };
                        write!(f, "; there is: {names}{more}.")
                    }
                }
            }
            Self::InvalidRoute { route, message } => {
                write!(f, "The MailRoute {route:?} cannot be used as it is written: {message}.")
            }
            Self::UnreadableRoute { route, error } => {
                write!(f, "The MailRoute {route:?} is stored and cannot be read: {error}.")
            }
            Self::HostNetwork => write!(f, "The pod uses the node's network (hostNetwork: true)."),
            Self::Windows => write!(f, "The pod is for a Windows node, and the sidecar runs on Linux."),
            Self::ContainerName => {
                write!(f, "The pod has a container {CONTAINER:?} that is not the mail sidecar.")
            }
            Self::SidecarChanged { field } => write!(
                f,
                "The pod brings a container {CONTAINER:?} along whose {field} is not that of the mail sidecar."
            ),
            Self::VolumeName { volume } => {
                write!(
                    f,
                    "The pod has a volume {volume:?}, which is the name of a volume of the mail sidecar."
                )
            }
            Self::VolumeMounted { volume, container } => {
                write!(
                    f,
                    "The container {container:?} mounts {volume:?}, which is for the mail sidecar alone."
                )
            }
            Self::PortInUse { container, port } => {
                write!(
                    f,
                    "The container {container:?} declares port {port}, on which the mail sidecar listens."
                )
            }
            Self::Sysctl { value, port } => write!(
                f,
                "The pod sets {PORT_START}={value}, with which the sidecar may not listen on port {port}."
            ),
            Self::FsGroup => write!(
                f,
                "The route keeps messages on a volume of a storage class, which only an fsGroup makes writable, and the pod \
                 has none."
            ),
            Self::UnknownAnnotation { key } => {
                write!(f, "The pod has the annotation {key:?}, which does not exist.")
            }
            Self::InvalidAnnotation { key, value, wanted } => {
                write!(f, "The annotation {key} is {value:?} and has to be {}.", wanted.as_str())
            }
            Self::ImageNotAllowed => {
                write!(f, "The pod names the sidecar's image ({IMAGE}), which pods may not do here.")
            }
            Self::RequestOverLimit { resource, request, limit } => {
                write!(f, "The sidecar would ask for more {resource} ({request}) than it may use ({limit}).")
            }
            Self::SharedProcesses { field } => write!(
                f,
                "Containers of the pod see the processes of the mail sidecar ({field}: true), so one that runs as root could \
                 read the sidecar's credential."
            ),
            Self::KubernetesTooOld { version } => write!(
                f,
                "The cluster is Kubernetes {version}, and the mail sidecar needs {OLDEST} or newer, where native sidecars are \
                 stable."
            ),
            Self::Malformed { field } => write!(f, "The pod's {field} is missing or not of the right type."),
        }
    }
}

impl std::error::Error for Refusal {}
