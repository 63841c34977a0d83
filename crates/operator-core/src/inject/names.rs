//! The names that injection puts into a pod, or finds there: annotations, the container, volumes, a sysctl.

/// Processor time that is set aside, over `spec.sidecar.resources.requests.cpu`.
pub const CPU_REQUEST: &str = "mailroute.dev/sidecar-cpu-request";
/// Processor time that may be used, over `spec.sidecar.resources.limits.cpu`.
pub const CPU_LIMIT: &str = "mailroute.dev/sidecar-cpu-limit";
/// Memory that is set aside, over `spec.sidecar.resources.requests.memory`.
pub const MEMORY_REQUEST: &str = "mailroute.dev/sidecar-memory-request";
/// Memory that may be used, over `spec.sidecar.resources.limits.memory`.
pub const MEMORY_LIMIT: &str = "mailroute.dev/sidecar-memory-limit";
/// Least level that the sidecar logs.
pub const LOG_LEVEL: &str = "mailroute.dev/sidecar-log-level";
/// Where the application connects, over `spec.listen.port`.
pub const PORT: &str = "mailroute.dev/sidecar-port";
/// Image of the sidecar, where the platform lets pods choose it.
pub const IMAGE: &str = "mailroute.dev/sidecar-image";
/// Accepts that containers which share the pod's processes could reach the sidecar's credential.
pub const SHARED_PROCESSES: &str = "mailroute.dev/allow-shared-processes";

/// Label of a pod, or pod template: with the value `false` the pod does not get the route that its namespace's label names.
pub const INJECT_LABEL: &str = "mailroute.dev/inject";
/// Records what was injected. Written by the webhook; see [`InjectionRecord`](super::annotations::InjectionRecord).
pub const INJECTED: &str = "mailroute.dev/injected";
/// With the value `true`: the pod may start without its sidecar. For an emergency in which no operator answers, so the
/// webhook is not even asked about such a pod, and the chart's admission policy lets it pass.
pub const ALLOW_WITHOUT: &str = "mailroute.dev/allow-without-sidecar";
/// Names, separated by commas, of the volumes on a node's disk that do not keep a cluster autoscaler from evicting the pod.
/// Source: kubernetes/autoscaler, cluster-autoscaler FAQ.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// Name of the container.
pub const CONTAINER: &str = "mailroute";
/// The sysctl that says from which port on a program without privileges may listen. Safe: Kubernetes lets every pod
/// set it, under Pod Security `restricted` too.
pub const PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";

/// Volume of the rendered route.
pub const ROUTE_VOLUME: &str = "mailroute-route";
/// Volume of the projected tokens.
pub const TOKENS_VOLUME: &str = "mailroute-tokens";
/// Volume of the credential or the certificate.
pub const CREDENTIAL_VOLUME: &str = "mailroute-credential";
/// Volume of kept messages, and of large ones that pass through.
pub const SPOOL_VOLUME: &str = "mailroute-spool";
/// Volume of the CA bundle for the token authority.
pub const AUTHORITY_CA_VOLUME: &str = "mailroute-authority-ca";
/// Volume of the CA bundle for the upstream.
pub const ENDPOINT_CA_VOLUME: &str = "mailroute-endpoint-ca";
/// Volume of the CA bundle for the upstream of Graph's fallback.
pub const FALLBACK_CA_VOLUME: &str = "mailroute-fallback-ca";

/// Every annotation key of ours that a person may write on a pod.
pub const KEYS: [&str; 9] = [
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
    LOG_LEVEL,
    PORT,
    IMAGE,
    SHARED_PROCESSES,
    ALLOW_WITHOUT,
];
/// Every volume name of ours.
pub const VOLUMES: [&str; 7] = [
    ROUTE_VOLUME,
    TOKENS_VOLUME,
    CREDENTIAL_VOLUME,
    SPOOL_VOLUME,
    AUTHORITY_CA_VOLUME,
    ENDPOINT_CA_VOLUME,
    FALLBACK_CA_VOLUME,
];
/// Options that the owner of a gateway may set in its container, each as `--name=value`: what a gateway is for others, and what a person reads or waits for.
/// Those that name files of the webhook's, the control service, or where mail goes are not among them.
pub const GATEWAY_OPTIONS: [&str; 11] = [
    "--spool-size",
    "--smtp-listen",
    "--smtp-tls",
    "--smtp-users",
    "--smtp-token-namespaces",
    "--smtp-client-sessions",
    "--smtp-client-messages",
    "--session-wait",
    "--reply-timeout",
    "--log-format",
    "--log-level",
];

/// The option without a value that the owner may set.
pub const WITHOUT_AUTH: &str = "--smtp-without-auth";
