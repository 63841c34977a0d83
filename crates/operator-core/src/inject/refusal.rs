//! Why a pod is refused a sidecar: one table with the reason, the sentence and the remedy of each.
//!
//! A person reads the text in three places: as the API server's answer to `kubectl`, as the `FailedCreate` Event of
//! the ReplicaSet or Job, and as an Event on the MailRoute. The reason alone is a metric label, so the set is closed.

use std::borrow::Cow;
use std::fmt;

use kube::ResourceExt;
use mailroute_route::paths::{ADMIN_PORT, AUTO_IMAGE, GATEWAY_PORT, SIDECAR_USER};
use mailroute_route::text::shortened;

use super::names::{
    CONTAINER, GATEWAY_OPTIONS, IMAGE, KEYS, PORT, PORT_START, ROUTE_VOLUME, SHARED_PROCESSES, SPOOL_VOLUME,
    WITHOUT_AUTH,
};
use crate::crd::MailRoute;
use crate::kubernetes_version::{NativeSidecars, OLDEST, Version};
use crate::resolve::{Invalid, ResolvedRoute, RouteResolution};

/// Routes named in one message, at most.
const NAMED: usize = 10;

/// What the value of an annotation has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Processor time.
    Cpu,
    /// Bytes.
    Memory,
    /// A level of the log.
    Level,
    /// A TCP port.
    Port,
    /// A reference of an image.
    Image,
    /// Yes or no.
    Flag,
}

impl Wanted {
    /// In words, after "has to be".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "a CPU amount such as 500m or 0.5",
            Self::Memory => "an amount of memory such as 128Mi",
            Self::Level => "error, warn, info, debug or trace",
            Self::Port => "a port from 1 to 65535 other than 9025",
            Self::Image => "the reference of an image such as registry.example/sidecar@sha256:…",
            Self::Flag => "\"true\" or \"false\"",
        }
    }
}

/// Longest part of a text that a refusal repeats, bytes: the longest name that Kubernetes has.
const LONGEST_QUOTE: usize = 253;

/// Longest part that it repeats of what is wrong with a route, bytes.
const LONGEST_MESSAGE: usize = 768;

/// The beginning of what the author of a pod or of a route wrote. The API server checks how long a pod's names, labels and
/// annotations are only after this.
fn cut(text: &str) -> Cow<'_, str> {
    shortened(text, LONGEST_QUOTE)
}

/// The beginning of what the author of a pod wrote, in one line.
pub(super) fn in_one_line(text: &str) -> String {
    let escaped = cut(text).escape_debug().to_string();
    cut(&escaped).into_owned()
}

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
    /// The pod would be a gateway and have a sidecar.
    TwoRoles,
    /// The pod of a gateway has no volume claim for its messages.
    GatewaySpool,
    /// The container of a gateway has an argument that is not the owner's to set.
    GatewayArgument {
        /// The argument.
        argument: String,
    },
    /// The container of a gateway has something that the webhook would not give it.
    GatewayChanged {
        /// The first such field.
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
    /// Messages are kept on a volume claim, which the sidecar could not write to.
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
        /// The field of the pod that shares them.
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

/// The table of refusals, a row each: the variant, whose name is the reason, with the fields that the texts name; the sentence; the
/// remedy. Both are arguments of `format!`.
macro_rules! refusals {
    ($($variant:ident { $($field:ident),* }: ($($sentence:tt)+), ($($remedy:tt)+);)+) => {
        impl Refusal {
            /// Every reason that a refusal can have: the closed set of the metric's label.
            pub const REASONS: &[&str] = &[$(stringify!($variant)),+];

            /// The constant for metrics and Events.
            pub const fn reason(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }

            /// What to do about it, in one sentence.
            pub fn remedy(&self) -> String {
                match self {
                    $(#[allow(unused_variables, reason = "not every remedy names every field")]
                    Self::$variant { $($field,)* .. } => format!($($remedy)+),)+
                }
            }
        }

        impl fmt::Display for Refusal {
            /// The sentence, without the remedy.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(#[allow(unused_variables, reason = "not every sentence names every field")]
                    Self::$variant { $($field,)* .. } => write!(f, $($sentence)+),)+
                }
            }
        }
    };
}

refusals! {
    UnknownRoute { route, namespace, known }:
        ("There is no MailRoute {:?} in namespace {:?}{}.", cut(route), cut(namespace), others(known)),
        ("{}", name_a_route(namespace, known));
    InvalidRoute { route, message }:
        ("The MailRoute {:?} is not valid: {}.", cut(route), shortened(message, LONGEST_MESSAGE)),
        ("Correct the route; see kubectl describe mailroute {}.", cut(route));
    UnreadableRoute { route, error }:
        (
            "The MailRoute {:?} cannot be read by this version of the operator: {}.",
            cut(route),
            shortened(error, LONGEST_MESSAGE)
        ),
        ("Apply the MailRoute again as the current schema requires: kubectl explain mailroute.spec");
    HostNetwork {}:
        ("The pod uses the node's network (hostNetwork: true)."),
        ("Remove hostNetwork: the sidecar's port would be open to every program of the node.");
    Windows {}:
        ("The pod is for a Windows node, and the sidecar runs on Linux."),
        ("Run the pod on Linux, or remove the label mailroute.dev/route.");
    ContainerName {}:
        ("The pod has a container {CONTAINER:?} that is not the mail sidecar."),
        (
            "Rename that container; if it is the sidecar, another webhook changed it (restartPolicy Always and the mount of \
             {ROUTE_VOLUME:?} must stay)."
        );
    SidecarChanged { field }:
        ("The pod already has a container {CONTAINER:?} whose {field} differs from the mail sidecar's."),
        (
            "Remove the container {CONTAINER:?} from the pod, and the webhook adds it; if another webhook rewrites images, set \
             the chart value sidecar.image.repository to the rewritten name."
        );
    TwoRoles {}:
        ("The pod has more than one container {CONTAINER:?}: it cannot be a gateway and have the mail sidecar."),
        ("Remove the init container {CONTAINER:?}; a gateway needs no sidecar.");
    GatewaySpool {}:
        ("The gateway's pod has no volume claim {SPOOL_VOLUME:?}, so its messages would be lost with the pod."),
        (
            "Install the gateway with the chart mailroute-gateway, or give its StatefulSet a volumeClaimTemplate \
             {SPOOL_VOLUME:?}."
        );
    GatewayArgument { argument }:
        ("The gateway's container has the argument {:?}, which its pod template may not set.", cut(argument)),
        (
            "Remove it. Arguments that the template may set, as --name=value: {}; and {WITHOUT_AUTH}.",
            GATEWAY_OPTIONS.join(", ")
        );
    GatewayChanged { field }:
        ("The gateway's container {CONTAINER:?} has {field} otherwise than the webhook sets it."),
        (
            "Remove {field} from the container and set its image to {AUTO_IMAGE:?}; if another webhook rewrites images, set the \
             chart value sidecar.image.repository to the rewritten name."
        );
    VolumeName { volume }:
        ("The pod has a volume {:?}, which is the name of a volume of the mail sidecar.", cut(volume)),
        ("Rename that volume.");
    VolumeMounted { volume, container }:
        ("The container {:?} mounts {:?}, which is only for the mail sidecar.", cut(container), cut(volume)),
        ("Remove that mount: the application's containers must not have credentials for mail.");
    PortInUse { container, port }:
        ("The container {:?} declares port {port}, on which the mail sidecar listens.", cut(container)),
        ("Use another port in that container{}.", why_or_where(*port));
    Sysctl { value, port }:
        ("The pod sets {PORT_START}={:?}, so the sidecar may not listen on port {port}.", cut(value)),
        ("Remove that sysctl or set it to {port} or lower, or set spec.listen.port of the route to 1024 or more.");
    FsGroup {}:
        (
            "Messages are stored on a volume of a storage class, which the sidecar or the gateway can write to only if the pod has \
             an fsGroup."
        ),
        (
            "Set spec.securityContext.fsGroup of the pod, to {SIDECAR_USER} for example; for a sidecar, or remove \
             spec.sidecar.spool.storageClassName from the route."
        );
    UnknownAnnotation { key }:
        ("The pod has the annotation {:?}, which does not exist.", cut(key)),
        ("Remove it or correct it; the annotations are: {}.", KEYS.join(", "));
    InvalidAnnotation { key, value, wanted }:
        ("The annotation {key} is {:?}, but must be {}.", cut(value), wanted.as_str()),
        ("Write {}, in quotes; the annotations are: {}.", wanted.as_str(), KEYS.join(", "));
    ImageNotAllowed {}:
        ("The pod sets the sidecar's image ({IMAGE}), which the platform does not allow."),
        ("Remove {IMAGE}; the platform team can allow it with the chart value sidecar.allowImageOverride.");
    RequestOverLimit { resource, request, limit }:
        ("The sidecar's {resource} request ({}) is more than its limit ({}).", cut(request), cut(limit)),
        (
            "Set both annotations, mailroute.dev/sidecar-{resource}-request and mailroute.dev/sidecar-{resource}-limit, or \
             spec.sidecar.resources of the route."
        );
    SharedProcesses { field }:
        (
            "Containers of the pod see the processes of the mail sidecar ({field}: true), so one that runs as root could read \
             the sidecar's credential."
        ),
        ("Remove {field}, or accept it with the annotation {SHARED_PROCESSES}: \"true\".");
    KubernetesTooOld { version }:
        (
            "The cluster is Kubernetes {version}, and the mail sidecar needs {OLDEST} or newer, where native sidecars are \
             stable."
        ),
        (
            "Upgrade the cluster, which the operator notices within five minutes, or remove the label mailroute.dev/route."
        );
    Malformed { field }:
        ("The pod's {field} is missing or has the wrong type."),
        ("Check the manifest with kubectl apply --dry-run=server.");
}

/// The other routes of the namespace.
fn others(known: &[String]) -> String {
    if known.is_empty() {
        return ", and no other MailRoute".to_owned();
    }
    let names: Vec<_> = known.iter().take(NAMED).map(|name| cut(name)).collect();
    let more = if known.len() > NAMED { ", …" } else { "" };
    format!(". Existing ones: {}{more}", names.join(", "))
}

fn name_a_route(namespace: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("Apply a MailRoute of that name in namespace {:?} first.", cut(namespace));
    }
    "Correct the label mailroute.dev/route, or apply a MailRoute of that name.".to_owned()
}

/// The sidecar can listen elsewhere for mail, but not for probes.
fn why_or_where(port: u16) -> String {
    match port {
        ADMIN_PORT => ": the sidecar serves its health and metrics there".to_owned(),
        GATEWAY_PORT => ": the gateway takes messages over there".to_owned(),
        _ => format!(", or set spec.listen.port of the route or the pod's {PORT}"),
    }
}

impl std::error::Error for Refusal {}

/// The resolved route, if its pods can be injected. A route that lacks a permission is injectable: its pods start, and its status says
/// why they send nothing.
///
/// # Errors
/// What is wrong with the route.
pub fn injectable<'a>(
    route: &MailRoute,
    resolution: &'a RouteResolution,
) -> Result<&'a ResolvedRoute, Refusal> {
    let invalid =
        |error: &Invalid| Refusal::InvalidRoute { route: route.name_any(), message: error.to_string() };
    resolution.route.as_ref().map_err(invalid)
}

/// Refuses to give a sidecar to an API server that is too old.
///
/// # Errors
/// [`Refusal::KubernetesTooOld`].
pub const fn check_kubernetes(standing: NativeSidecars) -> Result<(), Refusal> {
    match standing {
        NativeSidecars::TooOld(version) => Err(Refusal::KubernetesTooOld { version }),
        NativeSidecars::Unknown | NativeSidecars::Fit => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_both_versions_and_what_to_do() {
        let refusal = check_kubernetes(NativeSidecars::TooOld(Version { major: 1, minor: 31 })).unwrap_err();
        let told = format!("{refusal} {}", refusal.remedy());
        assert!(told.contains("1.31") && told.contains("1.33") && told.contains("Upgrade"), "{told}");
        let fit = [NativeSidecars::Fit, NativeSidecars::Unknown].map(check_kubernetes);
        assert_eq!(fit, [Ok(()), Ok(())]);
    }
}
