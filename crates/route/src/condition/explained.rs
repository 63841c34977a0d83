//! What is said of conditions and reasons wherever they are explained: on the pages of the documentation, and by
//! `kubectl mailroute explain`.

use super::{ConditionType, Reason, Subject};

/// What stands for a route's own values where there is no route.
pub const PLACEHOLDERS: Subject<'_> = Subject {
    route: "<route>",
    mailbox: "<mailbox>",
    client_id: "<client id>",
    tenant: "<tenant>",
    endpoint: "<endpoint>",
    authority: "<authority>",
    secret: "<secret>",
    key: "<key>",
};

impl ConditionType {
    /// Every condition: those that several steps of a delivery meet first, in the order of these steps.
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::CertificateValid,
        Self::CredentialReady,
        Self::UpstreamReachable,
        Self::Authenticated,
        Self::SendersAccepted,
        Self::GatewayReady,
        Self::Ready,
        Self::SidecarsReporting,
        Self::SidecarsCurrent,
        Self::DnsPublished,
        Self::FederationFits,
        Self::Stalled,
        Self::Reconciling,
    ];

    /// What it means when it is True.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Accepted => "The route is valid and its configuration is rendered for the sidecars.",
            Self::CredentialReady => "The route's credential yields an access token.",
            Self::CertificateValid => "The route's certificate exists, matches its key and is valid.",
            Self::UpstreamReachable => "The upstream answers over verified TLS.",
            Self::Authenticated => {
                "The upstream knows who is sending: the mailbox by its login, or the tenant by its connector."
            }
            Self::SendersAccepted => "The upstream accepts mail from the mailbox and the senders in use.",
            Self::DnsPublished => {
                "The accepted domains publish in DNS that they send through Microsoft 365. This is only advice: Ready and mail do not depend on it. It is Unknown while name servers do not answer, and absent if the operator runs with \
             `--dns-preflight=false` or the route has no domain of its own."
            }
            Self::Ready => {
                "The operator has done its part, and nothing is known to be wrong. If one of the conditions above is False, Ready is \
             False with that condition's reason. It is True also before a pod has shown that mail can flow, so that \
             `helm upgrade --wait` and other tools that wait for it end; the reason then is NoPods or WaitingForReports. What \
             pods have shown is in the conditions above: wait for Authenticated (ClientSubmission, Graph) or UpstreamReachable \
             (SmtpRelay, DirectSend) where that matters. Its reason also reports pods that do not report or are refused while \
             mail from the others flows; it is Unknown if no running pod has reported for five minutes."
            }
            Self::Stalled => {
                "The route cannot be accepted as it is, and waiting does not help; the reason is that of Accepted. Shown only then. \
             Tools that wait (Helm 4, Flux, whatever uses kstatus) fail at once."
            }
            Self::Reconciling => {
                "The operator could not do its part for this generation of the route, and tries again; the reason is that of \
             Accepted. Shown only then. Tools that wait continue to wait."
            }
            Self::SidecarsReporting => {
                "Every running sidecar reports to the operator. Shown if some have not reported for five minutes or more; \
             Ready then has the same reason."
            }
            Self::FederationFits => {
                "Entra allows as many federated credentials for the route's application as its pods in this cluster need: one \
             for each ServiceAccount of each namespace. Shown if there is little room. It does not affect Ready."
            }
            Self::GatewayReady => {
                "The route's gateway is there and takes messages over. Shown if the route has `spec.gateway`; the message says \
             how many messages wait in the gateway. It affects Ready only with `spec.delivery.durability: Gateway`."
            }
            Self::SidecarsCurrent => {
                "Every pod has the sidecar that a new pod would get. It does not affect Ready, because an older sidecar \
             continues to deliver. `spec.rollout` determines what happens to outdated ones."
            }
        }
    }
}

impl Reason {
    /// What the condition is with this reason.
    pub const fn status(self) -> &'static str {
        match self {
            Self::DnsUnavailable => "Unknown",
            Self::NoPods | Self::WaitingForReports => "True, although no pod has shown that mail can flow",
            _ if self.warns() => "True, with a warning",
            _ if self.holds() => "True",
            _ => "False",
        }
    }
}
