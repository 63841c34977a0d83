//! Every condition and every reason, defined once: a CamelCase constant, a sentence, and what to do about it.
//!
//! Both programs speak of trouble in these words: the sidecar in its logs, metrics, reports and SMTP replies, the
//! operator in `status.conditions` and Events. Reasons are a closed set, so they may be metric labels.

mod explained;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::explained::PLACEHOLDERS;

/// A condition of a `MailRoute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The resource makes sense and its configuration is rendered for the sidecars.
    Accepted,
    /// The route's credential yields an access token.
    CredentialReady,
    /// The route's certificate exists, matches its key and is valid.
    CertificateValid,
    /// The upstream answers over verified TLS.
    UpstreamReachable,
    /// The upstream knows who is sending: the mailbox by its login, or the tenant by its connector.
    Authenticated,
    /// The upstream accepts mail from the mailbox and the senders in use.
    SendersAccepted,
    /// Receivers find in DNS that the accepted domains send through Microsoft 365. Advice, which is no part of Ready: no mail
    /// waits for it.
    DnsPublished,
    /// The operator has done its part, and nothing is known to be wrong: the sum of the others, apart from those that say that they
    /// do not touch it. True also before a pod has shown that mail can flow.
    Ready,
    /// Every pod has the sidecar that a new pod would get. Does not touch Ready.
    SidecarsCurrent,
    /// Every pod reports. Shown when some have not reported for minutes; Ready then names them, too.
    SidecarsReporting,
    /// Entra takes as many federated credentials as the application's pods need. Shown when there is little room. Does not
    /// touch Ready.
    FederationFits,
    /// The route's gateway takes messages over. Shown while the route names one; touches Ready with durability Gateway alone.
    GatewayReady,
    /// The route cannot be accepted as it is, and waiting does not help. Shown only then; kstatus reads it.
    Stalled,
    /// The operator has not done its part for this generation of the route, and tries again. Shown only then; kstatus reads it.
    Reconciling,
}

impl ConditionType {
    /// The conditions a sidecar can observe, in the order in which they are met on the way to Microsoft 365. When
    /// several fail, the first is the cause to name.
    pub const OBSERVED: [Self; 5] = [
        Self::CertificateValid,
        Self::CredentialReady,
        Self::UpstreamReachable,
        Self::Authenticated,
        Self::SendersAccepted,
    ];

    /// The name in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::CredentialReady => "CredentialReady",
            Self::CertificateValid => "CertificateValid",
            Self::UpstreamReachable => "UpstreamReachable",
            Self::Authenticated => "Authenticated",
            Self::SendersAccepted => "SendersAccepted",
            Self::DnsPublished => "DnsPublished",
            Self::Ready => "Ready",
            Self::SidecarsCurrent => "SidecarsCurrent",
            Self::SidecarsReporting => "SidecarsReporting",
            Self::FederationFits => "FederationFits",
            Self::GatewayReady => "GatewayReady",
            Self::Stalled => "Stalled",
            Self::Reconciling => "Reconciling",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names a remedy may mention. Nothing here is secret.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the route.
    pub route: &'a str,
    /// The mailbox of the route.
    pub mailbox: &'a str,
    /// Application (client) id.
    pub client_id: &'a str,
    /// Tenant, GUID or domain.
    pub tenant: &'a str,
    /// `host:port` of the upstream.
    pub endpoint: &'a str,
    /// `host` of the token authority.
    pub authority: &'a str,
    /// Name of the Secret with the credential or certificate.
    pub secret: &'a str,
    /// Key in it.
    pub key: &'a str,
}

macro_rules! reasons {
    ($($name:ident: $condition:ident, $sentence:literal, $remedy:literal;)*) => {
        /// Why a condition holds or does not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $sentence] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The constant in `status.conditions[].reason`, in metrics and in logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The condition this reason belongs to.
            pub const fn condition(self) -> ConditionType {
                match self { $(Self::$name => ConditionType::$condition,)* }
            }

            /// What it means, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            const fn remedy_template(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

// Placeholders of a remedy: {route} {mailbox} {client_id} {tenant} {endpoint} {authority} {secret} {key}. An empty remedy: nothing to do.
// Sources: Microsoft Learn, "Authenticate an IMAP, POP or SMTP connection using OAuth", "Enable or disable SMTP AUTH in
// Exchange Online", "Microsoft Entra authentication and authorization error codes", "Non-delivery reports in Exchange
// Online".
reasons! {
    // Accepted
    Accepted: Accepted, "The route is valid and its configuration is rendered.", "";
    Invalid: Accepted, "The route is not valid.",
        "Change the field that the message names.";
    OperatorIdentityNotAllowed: Accepted, "The platform does not allow this route to use the operator's identity.",
        "Ask the platform team to list the namespace, the application {client_id} and the mailbox {mailbox} under broker.applications in the chart's values; or set spec.clientSubmission.credential.subject to Pod.";
    MailboxNotAllowed: Accepted, "The platform does not allow this namespace to send as the mailbox.",
        "Ask the platform team to list the namespace with {mailbox} under mailboxes in the chart's values; until then the route's pods get no share of the mailbox's limits.";
    RenderFailed: Accepted, "The route is valid but its ConfigMap could not be written.",
        "Read the API server's answer in the Event on this MailRoute.";

    // CredentialReady
    TokenAcquired: CredentialReady, "Entra issued an access token.", "";
    AssertionUnavailable: CredentialReady, "The sidecar cannot read the projected ServiceAccount token.",
        "Check the pod's volume mailroute-tokens (kubectl describe pod). A new pod is injected again. Deleting the old pod loses its queued messages unless its spool outlives it; list them first: kubectl exec <pod> -c mailroute -- /mailroute-sidecar queue list";
    TenantNotFound: CredentialReady, "Entra does not know the tenant, or the tenant is in another cloud.",
        "Check spec.tenant.id ({tenant}) and spec.tenant.cloud: az account show --query tenantId";
    ApplicationNotFound: CredentialReady, "The tenant has no such application, or it is disabled.",
        "Check spec.clientSubmission.credential.clientId: az ad sp show --id {client_id}. If the application is registered but this finds nothing, create its service principal: az ad sp create --id {client_id}";
    FederationNotTrusted: CredentialReady, "No federated credential of the application matches the ServiceAccount.",
        "Create one with exactly the issuer, subject and audience in the message: az ad app federated-credential create --id {client_id} --parameters credential.json";
    WaitingForPropagation: CredentialReady, "No federated credential matches yet; a new one takes some minutes to take effect.",
        "If there is none yet, create it with the issuer, subject and audience in the message: az ad app federated-credential create --id {client_id} --parameters credential.json. If there is one, wait up to 15 minutes, then check that all three are exactly the same.";
    AssertionRejected: CredentialReady, "Entra rejected the assertion itself (not valid at this time, malformed, or signed by an unknown key).",
        "Check the clocks of the nodes; for workload identity, also check that the cluster's OIDC issuer publishes its current keys.";
    OperatorRefused: CredentialReady, "The operator refuses to issue a token to this pod.",
        "Check the condition Accepted of this MailRoute, and that the pod has its label mailroute.dev/route; the operator logs each refusal.";
    OperatorUnavailable: CredentialReady, "The operator, whose identity the route uses, cannot be reached or answers with an error.",
        "Check that the operator runs, that pods can reach its control service (NetworkPolicy, port 8444), and that the operator can reach the API server (see its log); a token in use stays valid until it expires.";
    OperatorIdentityMissing: CredentialReady, "The operator cannot read its own ServiceAccount token.",
        "Install the chart with broker.applications, which mounts the token into the operator.";
    SecretMissing: CredentialReady, "The Secret with the credential does not exist, or lacks the key.",
        "Create it in the route's namespace: kubectl create secret generic {secret} --from-file={key}=<file with the secret>; pods see it within two minutes.";
    SecretRejected: CredentialReady, "Entra does not know the client secret.",
        "Put the value of a client secret (not its id) into the Secret {secret}; to create a new one: az ad app credential reset --id {client_id} --append";
    SecretExpired: CredentialReady, "The client secret has expired.",
        "Create a new one and put it into the Secret {secret}: az ad app credential reset --id {client_id} --append";
    CertificateNotRegistered: CredentialReady, "The application does not know the certificate that signed the assertion, or no longer accepts it.",
        "Register the certificate of the Secret {secret}, whose thumbprint is in the message: az ad app credential reset --id {client_id} --append --cert @tls.crt";
    PasswordMounted: CredentialReady, "The mailbox's password is mounted; Microsoft is phasing out passwords.",
        "Change to credential.type WorkloadIdentity: by default Exchange Online stops accepting passwords for SMTP at the end of December 2026.";
    TokenProxyInvalid: CredentialReady, "The sidecar's variables for the token proxy of an AKS identity binding are incomplete or malformed.",
        "Correct whatever sets the variable in the message, and recreate the pod; to exclude the sidecar from Azure's workload identity webhook, annotate the pod with azure.workload.identity/skip-containers: mailroute";
    IssuerUnreachable: CredentialReady, "Entra cannot fetch the cluster's OIDC discovery document.",
        "Make the ServiceAccount issuer reachable from the internet; on AKS: az aks update --resource-group <group> --name <cluster> --enable-oidc-issuer, then recreate the pods. If the issuer cannot be public, use credential.type ClientCertificate.";
    ScopeRejected: CredentialReady, "Entra refuses the scope, or the tenant has no Exchange Online.",
        "Remove spec.tenant.authority.scope, and check that the tenant ({tenant}) has Exchange Online.";
    AccessBlocked: CredentialReady, "A Conditional Access policy or security defaults block the application.",
        "Exclude the application {client_id} from the policy for workload identities.";
    CredentialRejected: CredentialReady, "Entra rejected the credential.",
        "Look up the message's AADSTS code at https://login.microsoftonline.com/error";
    AuthorityCaBundleMissing: CredentialReady, "The CA bundle for the token endpoint does not exist, or contains no certificate.",
        "Create the ConfigMap that spec.tenant.authority.caBundleRef names, with that key, in the route's namespace: kubectl create configmap <name> --from-file=<key>=<bundle.pem>; pods see it within two minutes.";
    TokenServiceThrottled: CredentialReady, "Entra asks the sidecar to slow down.", "Nothing; the sidecar tries again when Entra allows it.";
    TokenServiceUnavailable: CredentialReady, "The token endpoint cannot be reached or answers with an error.",
        "Check that pods can reach https://{authority}; with credential.subject Operator, check that the operator can (egress, DNS, TLS inspection; HTTPS_PROXY, or spec.tenant.authority.proxy for pods, sets an HTTP proxy). If it worked before and all pods are affected, check for an outage at Microsoft (https://status.cloud.microsoft).";

    // CertificateValid
    CertificateValid: CertificateValid, "The certificate matches its key and is valid.", "";
    CertificateExpiring: CertificateValid, "The certificate expires soon.",
        "Renew the certificate in the Secret {secret}; sidecars use the new one without a restart. With credential.type ClientCertificate, first register it with the application: az ad app credential reset --id <client id> --append --cert @tls.crt";
    CertificateMissing: CertificateValid, "The Secret with the certificate does not exist, or lacks a key.",
        "Create it in the route's namespace: kubectl create secret tls {secret} --cert=<chain.pem> --key=<key.pem>; pods see it within two minutes.";
    CertificateInvalid: CertificateValid, "The certificate cannot be used: it is not PEM, or does not match its key.",
        "Replace the content of the Secret {secret}: the chain, leaf first, in tls.crt, its key in tls.key.";
    CertificateExpired: CertificateValid, "The certificate has expired, or is not valid yet.",
        "Renew the certificate in the Secret {secret}; sidecars use the new one without a restart. With credential.type ClientCertificate, first register it with the application: az ad app credential reset --id <client id> --append --cert @tls.crt";
    CertificateNameMismatch: CertificateValid, "No name of the certificate is in an accepted domain, so no connector can match it.",
        "Issue a certificate for a name in spec.tenant.acceptedDomains; or add and verify the certificate's domain in the Microsoft 365 admin center (Settings > Domains) and list it in that field.";

    // UpstreamReachable
    Connected: UpstreamReachable, "The upstream answered over verified TLS.", "";
    ConnectedWithoutTls: UpstreamReachable, "The upstream answered, and mail is sent to it without TLS.",
        "Nothing, if this is intended; otherwise set spec.endpoint.tls to Required, and find what is between the pod and {endpoint}.";
    NameNotResolved: UpstreamReachable, "The upstream's name does not resolve.",
        "Look up the name of {endpoint} from the pod. If other names resolve, correct spec.endpoint.host; otherwise check the DNS of the pod and the cluster.";
    ConnectFailed: UpstreamReachable, "The TCP connection to the upstream failed.",
        "If it never worked, allow egress from the pod to {endpoint} (NetworkPolicy, firewall, service mesh). If it worked before and all pods are affected, check for an outage of Microsoft 365 (https://status.cloud.microsoft); mail is tried again.";
    StartTlsMissing: UpstreamReachable, "The upstream does not offer STARTTLS, so nothing is sent.",
        "Something between the pod and {endpoint} rewrites SMTP (service mesh, firewall). Exclude the port: for Istio annotate the pod template with traffic.sidecar.istio.io/excludeOutboundPorts, for Linkerd with config.linkerd.io/skip-outbound-ports.";
    TlsFailed: UpstreamReachable, "TLS with the upstream failed: name, chain or version.",
        "Read in the message what is wrong with the certificate. If TLS inspection presents its own certificate for {endpoint}, exclude the port from inspection. If the server is your own, put its CA into spec.endpoint.caBundleRef.";
    CaBundleMissing: UpstreamReachable, "The CA bundle for the upstream does not exist, or contains no certificate.",
        "Create the ConfigMap that spec.endpoint.caBundleRef names, with that key, in the route's namespace: kubectl create configmap <name> --from-file=<key>=<bundle.pem>; pods see it within two minutes.";
    SmartHostNotFound: UpstreamReachable, "The accepted domain has no MX record, so there is no smart host.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    SmartHostForeign: UpstreamReachable, "The MX record of the accepted domain does not lead to Exchange Online.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    WrongRegion: UpstreamReachable, "The smart host belongs to another region of Microsoft 365 than the tenant.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains), or remove it so that the name is looked up.";
    EhloNameRefused: UpstreamReachable, "The upstream refuses the sidecar's EHLO name.",
        "Rename the route or its namespace so that <route>.<namespace>.svc.<cluster domain>, which the operator uses, is a valid host name.";
    UpstreamUnavailable: UpstreamReachable, "The upstream answers that it is currently unavailable.",
        "Nothing; it is tried again. https://status.cloud.microsoft reports outages.";
    UpstreamProtocolError: UpstreamReachable, "The upstream closed the connection, or did not answer as its protocol says.",
        "Check what is between the pod and {endpoint}.";
    GraphResultUnknown: UpstreamReachable, "Microsoft Graph did not say whether it accepted a message; sent again, the message can arrive twice.",
        "Nothing at first; the next answer ends it. If the problem persists, check what is between the pod and {endpoint}, and https://status.cloud.microsoft for an outage.";

    // Authenticated
    LoggedIn: Authenticated, "The upstream accepted the login as the mailbox.", "";
    ExchangeRejectedToken: Authenticated, "The token is good, but Exchange does not let the application use the mailbox.",
        "Check everything that Exchange requires. With mailbox permissions: the application {client_id} has the permission SMTP.SendAsApp of Office 365 Exchange Online with consent (az ad app permission admin-consent --id {client_id}), its service principal is registered (New-ServicePrincipal -AppId {client_id} -ObjectId <id of the enterprise application>), and it may use the mailbox (Add-MailboxPermission -Identity {mailbox} -User <service principal> -AccessRights FullAccess). With RBAC for Applications, and without that permission: Test-ServicePrincipalAuthorization -Identity {client_id} -Resource {mailbox} shows the role Application SMTP.SendAsApp in scope. A change can take two hours to take effect.";
    SmtpAuthDisabledTenant: Authenticated, "SMTP AUTH is switched off for the tenant.",
        "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false, or for all: Set-TransportConfig -SmtpClientAuthenticationDisabled $false";
    SmtpAuthDisabledMailbox: Authenticated, "SMTP AUTH is switched off for the mailbox.",
        "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false";
    AuthenticationPolicy: Authenticated, "A policy of the organisation forbids this login.",
        "Check authentication policies and security defaults for {mailbox}: Get-AuthenticationPolicy";
    PasswordRejected: Authenticated, "The upstream does not accept the mailbox's password.",
        "Put the password of {mailbox} into the Secret {secret}, and check Entra's sign-in log for a locked account; better, change to credential.type WorkloadIdentity.";
    ApiPermissionMissing: Authenticated, "The token lacks the permission to send.",
        "Grant the application {client_id} the permission of Office 365 Exchange Online that the service requires, SMTP.SendAsApp, or Mail.Send for High Volume Email, and consent to it: az ad app permission admin-consent --id {client_id}";
    ApplicationNotAllowed: Authenticated, "The account does not allow this application to send.",
        "Add it to the account's list: Add-HVEAppAccess -Identity {mailbox} -AppIds <object id of the enterprise application>; az ad sp show --id {client_id} --query id prints that id. This takes some minutes to take effect.";
    BasicAuthDisabled: Authenticated, "The upstream saw a password, and passwords are switched off.",
        "Use credential.type WorkloadIdentity.";
    NotAuthenticated: Authenticated, "The upstream requires a login before mail.",
        "Check that spec.endpoint names the submission service ({endpoint}).";
    LoginFailed: Authenticated, "The upstream refused the login.",
        "Look up the reply in the message in docs/troubleshooting.md.";
    SmtpUsernameRejected: Authenticated, "The token is good, but Communication Services does not let the application use the SMTP username.",
        "Check that the SMTP username of the Communication Services resource is for the application {client_id} in this tenant (Azure portal: the resource, SMTP Usernames), and that the application has the role Communication and Email Service Owner on the resource. A change can take some minutes to take effect.";
    GraphRejectedToken: Authenticated, "Microsoft Graph refuses the access token, and a new one, too.",
        "Check spec.tenant.cloud, and that spec.tenant.authority.scope, where it is set, is Graph's: a token for another service or another cloud is of no use.";
    GraphAccessDenied: Authenticated, "The token is good, but Microsoft Graph does not let the application send as the mailbox.",
        "Check that {mailbox} is the primary address and not an alias. Then let the application {client_id} send in one of two ways. Either the application permission Mail.Send of Microsoft Graph with admin consent: az ad app permission admin-consent --id {client_id}. Or, without that permission, RBAC for Applications: Test-ServicePrincipalAuthorization -Identity {client_id} -Resource {mailbox} shows the role Application Mail.Send in scope. If there are application access policies: Test-ApplicationAccessPolicy -Identity {mailbox} -AppId {client_id}. A change can take two hours to take effect.";
    MailboxNotFound: Authenticated, "Microsoft Graph knows no user by the mailbox's address.",
        "Set spec.graph.mailbox to the user principal name or the primary address of the mailbox, not to another of its addresses: Get-Mailbox -Identity {mailbox} | Format-List UserPrincipalName,PrimarySmtpAddress";
    MailboxNotEnabled: Authenticated, "Microsoft Graph cannot use the mailbox: it is on-premises, soft-deleted, inactive or only some hours old.",
        "Check that it is a mailbox of Exchange Online: Get-EXOMailbox -Identity {mailbox}. A shared mailbox needs no licence. A new mailbox can take some hours; mail is tried again.";

    ConnectorMatched: Authenticated, "The upstream accepts mail from here for the tenant.", "";
    ConnectorMismatch: Authenticated, "No inbound connector of the tenant matches this certificate or IP address.",
        "Compare with Get-InboundConnector | Format-List TlsSenderCertificateName,SenderIPAddresses,Enabled; the message has the certificate that was presented and the address it came from.";
    ConnectorRestricted: Authenticated, "A partner connector of the tenant accepts the sender's domain only from other addresses or certificates.",
        "Look for RestrictDomainsToIPAddresses and RestrictDomainsToCertificate: Get-InboundConnector | Format-List Name,ConnectorType,SenderDomains,Restrict*; the message has the certificate that was presented and the address it came from.";
    DirectSendRejected: Authenticated, "The tenant rejects Direct Send.",
        "Create a connector and use the method SmtpRelay (New-InboundConnector -ConnectorType OnPremises), or allow it: Set-OrganizationConfig -RejectDirectSend $false";
    EgressAddressBlocked: Authenticated, "Exchange blocks the IP address that the cluster sends from.",
        "Ask for removal of the address in the message at https://sender.office.com, and give the cluster its own outgoing address (NAT gateway).";
    EgressAddressDeferred: Authenticated, "Exchange defers mail from the IP address that the cluster sends from.",
        "Nothing at first; it is tried again at increasing intervals. To end this, create an inbound connector for the address or a certificate (New-InboundConnector -ConnectorType OnPremises), or give the cluster its own outgoing address.";
    Ipv6Refused: Authenticated, "Exchange does not accept the mail over IPv6.",
        "Send over IPv4, which connectors require: give the cluster an outgoing IPv4 address; or give the IPv6 address reverse DNS and add it to the SPF record.";

    // SendersAccepted
    MailAccepted: SendersAccepted, "The upstream accepted a message from the mailbox.", "";
    SendAsDenied: SendersAccepted, "The mailbox may not send as the From address of a message.",
        "Send as {mailbox}, or grant the permission: Add-RecipientPermission -Identity <From address> -Trustee {mailbox} -AccessRights SendAs";
    SenderBlocked: SendersAccepted, "Exchange has blocked the sender's address.",
        "Find out what was sent from it, and write to delist@microsoft.com with the reply in the message.";
    SenderDomainUnverified: SendersAccepted, "SPF or DMARC of the sender's domain does not allow mail from here.",
        "Add the cluster's outgoing address to the domain's SPF record: v=spf1 ip4:<address> include:spf.protection.outlook.com -all; the condition DnsPublished shows the whole record.";
    SenderDomainUnregistered: SendersAccepted, "The sender's domain is not one of the tenant's.",
        "Add and verify the domain in the Microsoft 365 admin center (Settings > Domains), or send from an accepted domain: Get-AcceptedDomain";
    MailboxFull: SendersAccepted, "The mailbox is full, so it cannot send.",
        "Empty Sent Items of {mailbox}, or set a retention policy on it.";
    MailboxRestricted: SendersAccepted, "Exchange has restricted the mailbox because of what it sent.",
        "Unblock it in the Defender portal under Restricted entities: Remove-BlockedSenderAddress -SenderAddress {mailbox}";
    SenderThrottled: SendersAccepted, "Exchange throttles the mailbox because of repeated errors.",
        "Find the failing messages in the sidecar's log and stop them; Exchange ends the throttling by itself after some hours.";
    ErrorsHeldBack: SendersAccepted, "So many messages were refused within an hour that similar ones are held back, before Exchange throttles the mailbox.",
        "Find the failing messages in the sidecar's log and stop them; held messages are sent when the hour has passed.";
    RateExceeded: SendersAccepted, "The mailbox exceeds Exchange's limit of messages a minute.",
        "Find out what else sends as {mailbox} (Get-MessageTraceV2 -SenderAddress {mailbox}) and give it its own mailbox: MailRoute's pods already stay within the limit. If that is not possible, lower spec.limits.messagesPerMinute by what it needs.";
    ConnectionsExceeded: SendersAccepted, "More connections submit as the mailbox than Exchange allows at once.",
        "Find out what else logs in as {mailbox} and give it its own mailbox: MailRoute's pods already share those that Exchange allows. If that is not possible, lower spec.limits.connections of the routes that use {mailbox}.";
    DailyQuotaExceeded: SendersAccepted, "The mailbox has used up its recipients of the day.",
        "Wait for the rolling 24 hours to move, or use another mailbox or the SMTP relay method. If spec.limits.recipientsPerDay is lower than what the mailbox may send, raise it.";
    GraphThrottled: SendersAccepted, "Microsoft Graph asks for fewer requests.",
        "Find out what else uses Graph as the application {client_id} and give it its own application; the sidecar waits as long as Graph says.";
    GraphCannotCarry: SendersAccepted, "Microsoft Graph cannot carry a message as it is: it is too large, its sender is null, or its header names recipients that the envelope does not.",
        "Set spec.graph.fallback to ClientSubmission, for a mailbox with SMTP AUTH switched on, or change what the application sends as the message says. If Graph refused a message for its size, lower spec.graph.maxMessageBytes.";
    FallbackFailed: SendersAccepted, "The fallback of a Graph route to client submission does not work, so messages that Graph cannot carry wait.",
        "Correct what the message names; {mailbox} needs SMTP AUTH and the application the permission for it (docs/methods/client-submission.md). Or remove spec.graph.fallback, and such messages are refused at once.";
    TenantQuotaExceeded: SendersAccepted, "The tenant has used up its external recipients of the day.",
        "Wait for the rolling 24 hours to move; Get-LimitsEnforcementStatus shows the tenant's limit, which grows with its licences.";
    OnmicrosoftQuotaExceeded: SendersAccepted, "Senders at *.onmicrosoft.com have used up the 100 external recipients a day that they share in the tenant.",
        "Send from a domain of your own, which has no such limit; mail from other domains is not held up. The held messages are tried again as the rolling 24 hours move.";
    TenantBlocked: SendersAccepted, "Exchange blocks the tenant's outgoing mail.",
        "Look up the reply in the message, and contact Microsoft support.";

    // DnsPublished. Of several findings the first of this list is the reason.
    DnsPublished: DnsPublished, "The accepted domains publish the DNS records that receivers look for.", "";
    DomainNotFound: DnsPublished, "An accepted domain does not exist in DNS.",
        "Correct spec.tenant.acceptedDomains (Get-AcceptedDomain lists the tenant's), or have the domain delegated.";
    SpfInvalid: DnsPublished, "A domain's SPF record cannot be evaluated, so receivers treat its mail as unauthenticated or refuse it.",
        "Correct the TXT record as the message says.";
    SpfMissing: DnsPublished, "A domain has no SPF record.",
        "Publish the TXT record in the message.";
    SpfIncomplete: DnsPublished, "A domain's SPF record does not include where this route's mail comes from.",
        "Change the TXT record to the one in the message.";
    DkimMissing: DnsPublished, "A domain's DKIM selectors do not lead to Exchange Online, so its mail is not signed in its name.",
        "Publish the two CNAME records that Get-DkimSigningConfig prints for the domain, then Set-DkimSigningConfig -Enabled $true.";
    DmarcInvalid: DnsPublished, "A domain's DMARC record cannot be read, so receivers ignore it.",
        "Correct the TXT record as the message says.";
    DmarcMissing: DnsPublished, "A domain has no DMARC record.",
        "Publish the TXT record in the message; use p=none at first.";
    MxForeign: DnsPublished, "The MX record that gives the route its smart host does not lead to Exchange Online.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    MxMissing: DnsPublished, "A domain has no MX record, so replies and non-delivery reports cannot be delivered.",
        "Publish the MX record that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    DnsUnavailable: DnsPublished, "Name servers did not answer what the accepted domains publish.",
        "Nothing; they are asked again. If the problem persists, check the DNS of the cluster and the domain's name servers; dns.preflight: false in the chart's values disables the look-ups.";

    // Ready
    Ready: Ready, "Mail can flow.", "";
    NoPods: Ready, "No pod uses the route, so nothing is known about its connection to Microsoft 365.",
        "Label a pod template with mailroute.dev/route and this route's name.";
    PodsRefused: Ready, "Pods of the route are refused.",
        "Change what the message names, in the pod template or in the route. Kubernetes tries again by itself at increasing intervals; to try at once: kubectl rollout restart <kind>/<name>";
    WaitingForReports: Ready, "Pods use the route, but none has shown yet that mail can flow.",
        "A sidecar reports within a minute of its start. If the problem persists, allow egress from the pods to the operator on port 8444 (NetworkPolicy), and check the log of the pods' container mailroute: kubectl logs <pod> -c mailroute";

    // SidecarsCurrent
    SidecarsCurrent: SidecarsCurrent, "Every pod has the sidecar that a new pod would get.", "";
    SidecarsOutdated: SidecarsCurrent, "Some pods have a sidecar that a new pod would not get: another image, or settings that only a new pod gets.",
        "Restart the workloads in the message, kubectl rollout restart <kind>/<name>; or have the operator restart them: spec.rollout: Restart";
    SidecarsRestarting: SidecarsCurrent, "Pods with an outdated sidecar are being evicted, one after another.",
        "Wait; the message says what the next ones wait for.";
    SidecarsHeld: SidecarsCurrent, "Pods with an outdated sidecar cannot be evicted now.",
        "Resolve what the message says they wait for, or restart them: kubectl rollout restart <kind>/<name>";

    SidecarsMissing: SidecarsCurrent, "Pods have the route's label but no sidecar: they were already running when they were labelled, or were admitted without it.",
        "Remove the annotation mailroute.dev/allow-without-sidecar if it is set, and recreate the pods: kubectl rollout restart <kind>/<name>";

    // SidecarsReporting
    SidecarsSilent: SidecarsReporting, "Some sidecars run but have not reported for minutes, so nothing is known about the mail in their pods.",
        "Check the log of these pods' container mailroute: whether they resolve names, and reach the operator on port 8444 (NetworkPolicy): kubectl logs <pod> -c mailroute. List their queued messages: kubectl exec <pod> -c mailroute -- /mailroute-sidecar queue list. Do not delete the pods while they have queued messages.";

    // FederationFits. Source of the number: Microsoft Learn, "Important considerations and restrictions for federated
    // identity credentials".
    FederationNearlyFull: FederationFits, "The pods of the application run under nearly 20 ServiceAccounts, the number of federated credentials that an application may have.",
        "Have pods share ServiceAccounts, spread the routes over several applications, or use one federated credential for all: the operator's (spec.clientSubmission.credential.subject: Operator), or that of an AKS identity binding.";
    FederationFull: FederationFits, "The pods of the application run under more than 20 ServiceAccounts, the number of federated credentials that an application may have: some of them cannot log in.",
        "Have pods share ServiceAccounts, spread the routes over several applications, or use one federated credential for all: the operator's (spec.clientSubmission.credential.subject: Operator), or that of an AKS identity binding.";

    // GatewayReady
    GatewayReady: GatewayReady, "The gateway takes messages over.", "";
    GatewayMissing: GatewayReady, "The route names a gateway, and no pod of one exists.",
        "Install the gateway in the route's namespace with the chart mailroute-gateway: helm install <name> charts/mailroute-gateway --namespace <namespace> --set route={route}. If it is installed, look in the Events of its StatefulSet for a pod that is refused, and whether it is scaled to 0; its volume claims keep the messages that it had.";
    GatewayNotReady: GatewayReady, "No pod of the gateway is ready.",
        "Read why: kubectl describe pod <pod>. A pod that is Pending waits for its volume claim or for a node; for one that starts again and again read its log: kubectl logs <pod> -c mailroute. If the message speaks of a certificate, check that the gateway's pods reach the operator on port 8444, which signs theirs.";
    GatewayUnreachable: GatewayReady, "The gateway is ready, and sidecars cannot hand messages over to it.",
        "Check that spec.gateway.serviceName names the gateway's headless Service, and that the pods reach it on port 9026 (NetworkPolicy). If the message speaks of a certificate, check that the pods reach the operator on port 8444, which signs theirs.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address as PowerShell takes it for one argument: in single quotes when it holds what PowerShell would read.
fn argument(address: &str) -> Cow<'_, str> {
    if address.contains(['\'', '`', '$', '&', '|', '{', '}']) {
        Cow::Owned(format!("'{}'", address.replace('\'', "''")))
    } else {
        Cow::Borrowed(address)
    }
}

impl Reason {
    /// What to do about it, with the route's own names filled in; the command to run where there is one. Empty when
    /// there is nothing to do.
    pub fn remedy(self, subject: &Subject<'_>) -> String {
        self.remedy_template()
            .replace("{route}", subject.route)
            .replace("{mailbox}", &argument(subject.mailbox))
            .replace("{client_id}", subject.client_id)
            .replace("{tenant}", subject.tenant)
            .replace("{endpoint}", subject.endpoint)
            .replace("{authority}", subject.authority)
            .replace("{secret}", subject.secret)
            .replace("{key}", subject.key)
    }

    /// Whether only a message meets it, and only a message can end it: the way before mail is open all the same.
    pub const fn is_met_by_mail(self) -> bool {
        matches!(self.condition(), ConditionType::SendersAccepted)
            || matches!(
                self,
                Self::ConnectorMatched
                    | Self::ConnectorMismatch
                    | Self::ConnectorRestricted
                    | Self::DirectSendRejected
                    | Self::EgressAddressBlocked
                    | Self::EgressAddressDeferred
                    | Self::Ipv6Refused
            )
    }

    /// Whether the condition holds, and there is something to do all the same.
    pub const fn warns(self) -> bool {
        self.holds() && !self.remedy_template().is_empty()
    }

    /// The reason that says its condition holds. Of Ready, others accompany it both ways; they say what is not known.
    pub const fn holds(self) -> bool {
        matches!(
            self,
            Self::Accepted
                | Self::TokenAcquired
                | Self::PasswordMounted
                | Self::Connected
                | Self::ConnectedWithoutTls
                | Self::CertificateValid
                | Self::CertificateExpiring
                | Self::ConnectorMatched
                | Self::LoggedIn
                | Self::MailAccepted
                | Self::DnsPublished
                | Self::Ready
                | Self::SidecarsCurrent
                | Self::FederationNearlyFull
                | Self::GatewayReady
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        route: "notifications",
        mailbox: "noreply@contoso.com",
        client_id: "1b2c3d4e",
        tenant: "contoso.com",
        endpoint: "smtp.office365.com:587",
        authority: "login.microsoftonline.com",
        secret: "m365",
        key: "client-secret",
    };

    #[test]
    fn every_remedy_is_filled_in() {
        for reason in Reason::ALL {
            let remedy = reason.remedy(&SUBJECT);
            assert!(!remedy.contains(['{', '}']), "{reason}: {remedy}");
            assert!(reason.holds() || !remedy.is_empty(), "{reason}: a remedy where something is wrong");
        }
    }

    /// What a remedy leaves out or says otherwise than getting-started.md, the runbooks and the guides.
    #[test]
    fn remedies_say_what_the_guides_say() {
        use Reason as R;
        let table: [(Reason, &[&str]); 22] = [
            (R::AssertionUnavailable, &["queue list"]),
            (R::ApplicationNotFound, &["az ad sp create --id 1b2c3d4e"]),
            (R::FederationNotTrusted, &["--parameters credential.json"]),
            (
                R::WaitingForPropagation,
                &["If there is none yet", "--parameters credential.json", "15 minutes"],
            ),
            (R::OperatorUnavailable, &["8444", "API server"]),
            (R::SecretMissing, &["generic m365", "client-secret="]),
            (R::IssuerUnreachable, &["recreate the pods", "ClientCertificate"]),
            (R::TokenServiceUnavailable, &["the operator can", "spec.tenant.authority.proxy"]),
            (R::CertificateExpiring, &["az ad app credential reset"]),
            (R::CertificateExpired, &["az ad app credential reset"]),
            (R::CaBundleMissing, &["spec.endpoint.caBundleRef", "kubectl create configmap"]),
            (R::ConnectFailed, &["egress", "outage"]),
            (R::ExchangeRejectedToken, &["SMTP.SendAsApp", "Add-MailboxPermission", "RBAC for Applications"]),
            (R::ApiPermissionMissing, &["SMTP.SendAsApp", "Mail.Send for High Volume Email"]),
            (R::GraphAccessDenied, &["Mail.Send of Microsoft Graph", "Application Mail.Send", "two hours"]),
            (R::MailboxNotFound, &["primary address"]),
            (R::GraphCannotCarry, &["spec.graph.fallback"]),
            (R::ConnectionsExceeded, &["what else logs in as noreply@contoso.com", "its own mailbox"]),
            (R::WaitingForReports, &["8444"]),
            (R::SidecarsSilent, &["8444", "Do not delete"]),
            (R::GatewayMissing, &["chart mailroute-gateway", "--set route=notifications"]),
            (R::GatewayUnreachable, &["spec.gateway.serviceName", "9026", "8444"]),
        ];
        for (reason, expected) in table {
            let remedy = reason.remedy(&SUBJECT);
            for part in expected {
                assert!(remedy.contains(part), "{reason} says nothing of {part:?}: {remedy}");
            }
        }
    }

    #[test]
    fn an_address_with_an_apostrophe_is_one_argument_of_a_cmdlet() {
        let remedy = Reason::SmtpAuthDisabledMailbox
            .remedy(&Subject { mailbox: "sean.o'brien@contoso.com", ..SUBJECT });
        assert!(remedy.contains("-Identity 'sean.o''brien@contoso.com' -Smtp"), "{remedy}");
    }

    #[test]
    fn what_holds_with_a_remedy_warns() {
        let warnings: Vec<_> = Reason::ALL.iter().filter(|reason| reason.warns()).collect();
        assert!(
            warnings.contains(&&Reason::CertificateExpiring) && warnings.contains(&&Reason::PasswordMounted)
        );
        assert!(!Reason::Connected.warns() && !Reason::CertificateExpired.warns());
    }

    #[test]
    fn every_reason_is_a_sentence_and_a_condition_reason() {
        for reason in Reason::ALL {
            assert!(reason.sentence().ends_with('.'), "{reason}");
            // metav1.Condition: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()), "{reason}");
        }
    }

    #[test]
    fn a_reason_is_written_as_its_name() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
    }

    #[test]
    fn the_mailbox_switch_is_named_with_its_mailbox() {
        let remedy = Reason::SmtpAuthDisabledMailbox.remedy(&SUBJECT);
        assert_eq!(
            remedy,
            "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"
        );
    }
}
