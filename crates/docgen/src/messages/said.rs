//! One value for each sentence, and the sentences of which there is no value.

use mailroute_operator::controller::apply;
use mailroute_operator_core::crd::cloud::Cloud;
use mailroute_operator_core::crd::method::{CredentialType, Method};
use mailroute_operator_core::inject::Refusal;
use mailroute_operator_core::inject::refusal::Wanted;
use mailroute_operator_core::kubernetes_version::Version;
use mailroute_operator_core::resolve::Invalid;
use mailroute_operator_core::resolve::mailbox_rules::MailboxNotAllowed;
use mailroute_operator_core::resolve::operator_identity::IdentityNotAllowed;
use mailroute_operator_core::webhook_configuration::ConfigurationFinding;

/// Why a route cannot be used as it is written.
pub fn invalid() -> Vec<Invalid> {
    vec![
        Invalid::Unidentified,
        Invalid::BlockMissing("clientSubmission"),
        Invalid::AcceptedDomainsMissing(Method::SmtpRelay),
        Invalid::InternalDomainsMissing,
        Invalid::HostMissing("endpoint", Cloud::USGovernmentDoD),
        Invalid::SetByPlatform("endpoint"),
        Invalid::PlatformHostMissing(Cloud::USGovernmentDoD),
        Invalid::LogInWithoutTls(Method::ClientSubmission),
        Invalid::CertificateWithoutTls,
        Invalid::ClientIdMissing("clientSubmission", CredentialType::WorkloadIdentity),
        Invalid::SecretMissing("clientSubmission", CredentialType::ClientSecret),
        Invalid::SecretKeyMissing("clientSubmission", CredentialType::ClientSecret),
        Invalid::PasswordByGraph,
        Invalid::OperatorOfAnotherScope("graph"),
        Invalid::MailboxesOfOneLogin,
        Invalid::TooManyMailboxes,
        Invalid::MailboxOfAnotherDomain("orders@fabrikam.com".into()),
        Invalid::NotificationByGraph,
        Invalid::GatewayMissing,
        Invalid::DurabilityWithoutQueue,
        Invalid::GatewayNotUsed,
        Invalid::ServiceName("<service>".into()),
        Invalid::RewriteWithoutMailbox,
        Invalid::RedirectToNobody,
        Invalid::OutOfReach("recipients.redirectTo"),
        Invalid::NoRoomForArchive,
        Invalid::HeaderName("Received".into()),
        Invalid::HeaderValue("X-Example".into()),
        Invalid::Audience("<audience>".into()),
        Invalid::Duration { field: "maxAge", value: "2d".into() },
        Invalid::Size { field: "sidecar.spool.sizeLimit", value: "1GB".into() },
    ]
}

/// Why a route may not use the operator's identity.
pub fn not_allowed() -> Vec<IdentityNotAllowed> {
    let (client_id, namespace) = ("<client id>".to_owned(), "<namespace>".to_owned());
    let (tenant, mailbox) = ("<tenant>".to_owned(), "<mailbox>".to_owned());
    vec![
        IdentityNotAllowed::Closed,
        IdentityNotAllowed::Application { client_id: client_id.clone(), tenant, cloud: Cloud::Global },
        IdentityNotAllowed::Namespace { namespace: namespace.clone(), client_id: client_id.clone() },
        IdentityNotAllowed::Mailbox { namespace, mailbox, client_id },
    ]
}

/// Why the platform does not let a route name its mailbox.
pub fn mailbox_not_allowed() -> MailboxNotAllowed {
    MailboxNotAllowed { namespace: "<namespace>".into(), mailbox: "<mailbox>".into() }
}

/// Why the configuration of the sidecars is not written, where it is not the API server's answer.
pub fn unwritten() -> Vec<apply::Error> {
    vec![apply::Error::Foreign("mailroute-<route>".into())]
}

/// Why a pod is refused.
pub fn refusals() -> Vec<Refusal> {
    let (route, namespace, container) =
        ("<route>".to_owned(), "<namespace>".to_owned(), "<container>".to_owned());
    let unknown = |known: &[&str]| Refusal::UnknownRoute {
        route: route.clone(),
        namespace: namespace.clone(),
        known: known.iter().map(|name| (*name).to_owned()).collect(),
    };
    let wrong = |key: &str, wanted| Refusal::InvalidAnnotation {
        key: format!("mailroute.dev/{key}"),
        value: "<value>".into(),
        wanted,
    };
    vec![
        unknown(&[]),
        unknown(&["<another>"]),
        Refusal::InvalidRoute { route: route.clone(), message: "<see the list above>".into() },
        Refusal::UnreadableRoute { route: route.clone(), error: "<field and type>".into() },
        Refusal::HostNetwork,
        Refusal::Windows,
        Refusal::ContainerName,
        Refusal::SidecarChanged { field: "image" },
        Refusal::TwoRoles,
        Refusal::GatewaySpool,
        Refusal::GatewayArgument { argument: "--route=<file>".into() },
        Refusal::GatewayChanged { field: "command" },
        Refusal::VolumeName { volume: "mailroute-tokens".into() },
        Refusal::VolumeMounted { volume: "mailroute-tokens".into(), container: container.clone() },
        Refusal::PortInUse { container: container.clone(), port: 25 },
        Refusal::PortInUse { container, port: 9025 },
        Refusal::Sysctl { value: "80".into(), port: 25 },
        Refusal::FsGroup,
        Refusal::UnknownAnnotation { key: "mailroute.dev/<key>".into() },
        wrong("sidecar-cpu-limit", Wanted::Cpu),
        wrong("sidecar-memory-limit", Wanted::Memory),
        wrong("sidecar-log-level", Wanted::Level),
        wrong("sidecar-port", Wanted::Port),
        wrong("sidecar-image", Wanted::Image),
        wrong("allow-shared-processes", Wanted::Flag),
        Refusal::ImageNotAllowed,
        Refusal::RequestOverLimit { resource: "memory", request: "256Mi".into(), limit: "128Mi".into() },
        Refusal::SharedProcesses { field: "shareProcessNamespace" },
        Refusal::SharedProcesses { field: "hostPID" },
        Refusal::KubernetesTooOld { version: Version { major: 1, minor: 32 } },
        Refusal::Malformed { field: "spec.volumes" },
    ]
}

/// What is wrong with the webhook configuration.
pub fn findings() -> Vec<ConfigurationFinding> {
    vec![
        ConfigurationFinding::EntryMissing,
        ConfigurationFinding::NotOurService,
        ConfigurationFinding::PodsNotCovered,
        ConfigurationFinding::TooWide,
        ConfigurationFinding::TooNarrow,
        ConfigurationFinding::NamespaceLabels(["<label>".to_owned()].into()),
        ConfigurationFinding::NamespacesExcluded(["<namespace>".to_owned()].into()),
        ConfigurationFinding::FailureIgnored,
        ConfigurationFinding::NamespaceEntryMissing,
        ConfigurationFinding::NamespaceEntryTooWide,
        ConfigurationFinding::NamespaceEntryIneffective,
    ]
}

/// What the chart's policies answer, and what to do. The words are those of the templates.
pub const POLICIES: &[(&str, &str)] = &[
    (
        "MailRoute: the pod has the label mailroute.dev/route but not the sidecar, so nothing would listen on \
         localhost:25. …",
        "The webhook was not called, or its sidecar was removed again: [does the pod have the \
         sidecar?](../guides/wrong-setup.md#1-does-the-pod-have-the-sidecar)",
    ),
    (
        "MailRoute: the image \"auto\" of the gateway's container was not replaced, because the operator was not asked about the \
         pod. …",
        "The webhook is missing, or the namespace is excluded from it: [does the pod have the \
         sidecar?](../guides/wrong-setup.md#1-does-the-pod-have-the-sidecar)",
    ),
    (
        "MailRoute: its pods will be refused, because …",
        "A warning about an annotation in a workload's template: [annotations](annotations.md#annotations) lists keys and \
         values.",
    ),
    (
        "MailRoute: credential.type Password is deprecated, …",
        "A warning about a MailRoute. It works as long as Microsoft accepts passwords: [passwords](../faq.md#passwords)",
    ),
    (
        "MailRoute: limits.messagesPerMinute is more than the 30 that Exchange Online accepts from a mailbox. …",
        "A warning about a MailRoute: [limits](../guides/limits.md)",
    ),
];

/// What whoever applies a workload is warned of.
pub const WARNINGS: &[(&str, &str)] = &[
    (
        "MailRoute: its pods will be refused. …",
        "A warning of `kubectl apply` about a workload's template; one of the messages above follows, with its remedy.",
    ),
    (
        "MailRoute: the label mailroute.dev/route is on the workload itself, where it has no effect. …",
        "A warning of `kubectl apply`: pods get only the labels of `spec.template.metadata.labels`.",
    ),
];

/// What the API server says when nobody looked at the pod.
pub const NOT_ASKED: &[(&str, &str)] = &[
    (
        "failed calling webhook \"inject.mailroute.dev\"",
        "No operator answers: `kubectl get pods --namespace mailroute-system`. The pod's controller tries again by itself; pods without the label are not affected. \
         [MailRouteOperatorDown](../runbooks/MailRouteOperatorDown.md)",
    ),
    (
        "MailRoute: the operator has just started and does not know the MailRoutes yet; Kubernetes tries again",
        "Nothing to do. If the problem persists, the operator cannot list MailRoutes; its log says why.",
    ),
];

/// Events by reason, apart from those that have a reason of a condition, a refusal or a finding: what they are on, and what
/// they mean.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (
        "ReconcileFailed",
        "the MailRoute",
        "Its ConfigMap or status could not be written, or a pod could not be evicted; the text has all causes, down to the \
         API server's answer. The operator tries again at increasing intervals. \
         [MailRouteReconcileFailing](../runbooks/MailRouteReconcileFailing.md)",
    ),
    (
        "Malformed",
        "the MailRoute",
        "This version of the operator cannot read the stored route and ignores it; running pods continue with their last configuration. Apply it again as `kubectl explain mailroute.spec` describes. \
         [MailRouteRouteUnreadable](../runbooks/MailRouteRouteUnreadable.md)",
    ),
    (
        "DeadLetters",
        "the MailRoute",
        "Messages were given up after they were answered 250, and are stored in the pods that the text names: \
         [the queue](../guides/queue.md). [MailRouteDeadLetters](../runbooks/MailRouteDeadLetters.md)",
    ),
    (
        "MessagesLeft",
        "the MailRoute, or on the pod if its route was deleted",
        "A pod ended with mail in its queue; with an `emptyDir` it is lost ([when the pod \
         ends](../guides/delivery.md#when-the-pod-ends)). There is one Event for each pod, with up to ten Message-IDs. \
         [MailRouteMessagesLost](../runbooks/MailRouteMessagesLost.md)",
    ),
    (
        "MessagesOnClaim",
        "the pod of a gateway whose route was deleted",
        "Messages wait on the volume claim of the gateway's pod. The pod continues to deliver them with the last configuration; if it \
         ends before, the claim keeps them, and apply the MailRoute again, so that the next pod delivers them.",
    ),
    (
        "PodEvicted",
        "the MailRoute",
        "The route says `rollout: Restart`, and the pod's sidecar was outdated: [upgrade](../guides/upgrade.md).",
    ),
    (
        "CaBundleRepaired",
        "the MutatingWebhookConfiguration",
        "The text names who changed the `caBundle`: [certificates](../guides/certificates.md#what-others-change).",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Holds a list against all variants of its type. A new variant does not compile until it is named here, and fails until
    /// it has a value above.
    macro_rules! has_every_variant {
        ($list:expr, $kind:path: $($variant:ident),+ $(; but $passed_on:ident)? $(,)?) => {{
            use $kind as Kind;
            let name = |value: &Kind| match value {
                $(Kind::$variant { .. } => stringify!($variant),)+
                $(Kind::$passed_on { .. } => stringify!($passed_on),)?
            };
            let listed: BTreeSet<_> = $list.iter().map(name).collect();
            assert_eq!(listed, BTreeSet::from([$(stringify!($variant)),+]));
        }};
    }

    #[test]
    fn every_way_in_which_a_route_cannot_be_used_is_said() {
        has_every_variant!(invalid(), Invalid:
            Unidentified, BlockMissing, AcceptedDomainsMissing, InternalDomainsMissing, HostMissing, SetByPlatform, PlatformHostMissing, LogInWithoutTls, CertificateWithoutTls, ClientIdMissing, SecretMissing, SecretKeyMissing, PasswordByGraph, OperatorOfAnotherScope, MailboxesOfOneLogin, TooManyMailboxes, MailboxOfAnotherDomain, NotificationByGraph, GatewayMissing, DurabilityWithoutQueue, GatewayNotUsed, ServiceName, RewriteWithoutMailbox, RedirectToNobody, OutOfReach, NoRoomForArchive, HeaderName, HeaderValue, Audience, Duration, Size);
        has_every_variant!(not_allowed(), IdentityNotAllowed: Closed, Application, Namespace, Mailbox);
        // The other one passes on what the API server says.
        has_every_variant!(unwritten(), apply::Error: Foreign; but Api);
    }
}
