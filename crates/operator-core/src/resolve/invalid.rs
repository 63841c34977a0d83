//! Why a route cannot be used as it is written.

use mailroute_route::paths::ENTRA_AUDIENCES;

use crate::crd::cloud::Cloud;
use crate::crd::method::{CredentialType, Method};

/// Why a route cannot be rendered. The text names the field and what to put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The API server gives every object these; without them nothing can be owned.
    #[error("the object has no name, namespace or uid")]
    Unidentified,
    /// The method's own block is missing.
    #[error("spec.{0}: the method requires this block")]
    BlockMissing(&'static str),
    /// The method goes by domains.
    #[error("spec.tenant.acceptedDomains: the method {0:?} requires at least one")]
    AcceptedDomainsMissing(Method),
    /// High Volume Email delivers within the tenant.
    #[error("spec.tenant.acceptedDomains: the service HighVolumeEmail requires at least one")]
    InternalDomainsMissing,
    /// No preset and no override.
    #[error("spec.{0}.host: Microsoft publishes no SMTP host for the cloud {1:?}; set it")]
    HostMissing(&'static str, Cloud),
    /// The platform's to set.
    #[error("spec.{0}: leave it out with credential.subject Operator; the platform sets it")]
    SetByPlatform(&'static str),
    /// No preset, and nothing in the platform's settings.
    #[error(
        "spec.tenant.cloud: Microsoft publishes no SMTP host for the cloud {0:?}, and the platform has set none under \
         broker.applications"
    )]
    PlatformHostMissing(Cloud),
    /// A log-in would go without TLS.
    #[error("spec.endpoint.tls: {0:?} requires the value Required, because it logs in")]
    LogInWithoutTls(Method),
    /// A certificate would be of no use.
    #[error("spec.endpoint.tls: relay by certificate requires the value Required")]
    CertificateWithoutTls,
    /// Tokens are asked for by an application.
    #[error("spec.{0}.credential.clientId: the type {1:?} requires it")]
    ClientIdMissing(&'static str, CredentialType),
    /// A credential that is a secret.
    #[error("spec.{0}.credential.secretRef: the type {1:?} requires it")]
    SecretMissing(&'static str, CredentialType),
    /// The one key of a Secret that holds it.
    #[error("spec.{0}.credential.secretRef.key: the type {1:?} requires it")]
    SecretKeyMissing(&'static str, CredentialType),
    /// Graph's tokens are an application's.
    #[error(
        "spec.graph.credential.type: Graph accepts no passwords; use WorkloadIdentity, ClientCertificate or ClientSecret"
    )]
    PasswordByGraph,
    /// One log-in for several mailboxes.
    #[error(
        "spec.clientSubmission.mailboxes: needs the service ExchangeOnline, and a credential of the type WorkloadIdentity, \
         ClientCertificate or ClientSecret"
    )]
    MailboxesOfOneLogin,
    /// More than a sidecar has lanes for.
    #[error(
        "spec.clientSubmission.mailboxes: a route has at most 16 mailboxes, clientSubmission.mailbox included"
    )]
    TooManyMailboxes,
    /// Exchange would refuse it.
    #[error("spec.clientSubmission.mailboxes: the domain of {0} is not one of tenant.acceptedDomains")]
    MailboxOfAnotherDomain(String),
    /// The operator requests tokens of one scope.
    #[error(
        "spec.{0}.credential.subject: Operator is for ClientSubmission with the service ExchangeOnline; use Pod"
    )]
    OperatorOfAnotherScope(&'static str),
    /// A notification has the null sender.
    #[error(
        "spec.delivery.deadLetter.notifySender: Graph cannot send notifications; set graph.fallback to ClientSubmission"
    )]
    NotificationByGraph,
    /// Messages would be stored in a gateway that nobody names.
    #[error(
        "spec.gateway: delivery.durability Gateway requires it; name the gateway's headless Service in serviceName"
    )]
    GatewayMissing,
    /// There would be nothing to store.
    #[error(
        "spec.delivery.durability: Gateway requires the mode DeliverOrQueue or Queue, because Deliver stores nothing"
    )]
    DurabilityWithoutQueue,
    /// It would have no effect.
    #[error("spec.delivery.gatewayUnavailable: Pod requires durability Gateway")]
    GatewayNotUsed,
    /// It becomes part of a DNS name.
    #[error("spec.gateway.serviceName: {0:?} is not the name of a Service")]
    ServiceName(String),
    /// Rewriting needs a mailbox to write.
    #[error("spec.senders.onViolation: Rewrite requires the method ClientSubmission or Graph; use Reject")]
    RewriteWithoutMailbox,
    /// Messages would go nowhere.
    #[error(
        "spec.recipients.redirectTo: onViolation Redirect requires it; name the address that gets the messages"
    )]
    RedirectToNobody,
    /// The method reaches recipients of certain domains alone.
    #[error(
        "spec.{0}: the route's method reaches only recipients in tenant.acceptedDomains; name an address in one of them"
    )]
    OutOfReach(&'static str),
    /// Each message has the archive as a recipient.
    #[error(
        "spec.limits.maxRecipients: archive.bcc is one of the recipients of each message; allow at least 2"
    )]
    NoRoomForArchive,
    /// A header field that is not the application's own, or no name at all.
    #[error("spec.headers: {0:?} is not a name, or one of a field that cannot be changed")]
    HeaderName(String),
    /// More than one line, or characters that a header cannot hold.
    #[error("spec.headers: the value of {0} is not one line of printable ASCII")]
    HeaderValue(String),
    /// The token would be good for somebody else than Entra.
    #[error(
        "spec.tenant.authority.audience: {0:?} is neither an audience of Entra ({known}) nor listed in entra.audiences of \
         the chart's values",
        known = ENTRA_AUDIENCES.join(", ")
    )]
    Audience(String),
    /// Not a duration.
    #[error("spec.delivery.{field}: {value:?} is not a duration such as 48h")]
    Duration {
        /// Which.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not an amount of bytes.
    #[error("spec.{field}: {value:?} is not a size such as 1Gi")]
    Size {
        /// Which.
        field: &'static str,
        /// What stands there.
        value: String,
    },
}
