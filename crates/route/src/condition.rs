//! Every condition and every reason, defined once: a CamelCase constant, a sentence, and what to do about it.
//!
//! Both programs speak of trouble in these words: the sidecar in its logs, metrics, reports and SMTP replies, the
//! operator in `status.conditions` and Events. Reasons are a closed set, so they may be metric labels.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A condition of a `MailRoute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The resource makes sense and its configuration is rendered for the sidecars.
    Accepted,
    /// An access token can be had with the route's credential.
    CredentialReady,
    /// The certificate that the route presents is there, belongs to its key and is in force.
    CertificateValid,
    /// The upstream answers over verified TLS.
    UpstreamReachable,
    /// The upstream knows who is sending: the mailbox by its log-in, or the tenant by its connector.
    Authenticated,
    /// The upstream takes mail from the mailbox and the senders in use.
    SendersAccepted,
    /// Receivers find in DNS that the accepted domains send through Microsoft 365. Advice, which is no part of Ready: no mail
    /// waits for it.
    DnsPublished,
    /// Mail can flow: the sum of the others, apart from `DnsPublished`.
    Ready,
    /// Every pod has the sidecar that a new pod would get. Does not touch Ready.
    SidecarsCurrent,
    /// Every pod reports. Shown when some have not reported for minutes; Ready then names them, too.
    SidecarsReporting,
    /// Entra takes as many federated credentials as the application's pods need. Shown when there is little room. Does not
    /// touch Ready.
    FederationFits,
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

// Placeholders of a remedy: {mailbox} {client_id} {tenant} {endpoint} {authority} {secret} {key}. An empty remedy: nothing to do.
// Sources: Microsoft Learn, "Authenticate an IMAP, POP or SMTP connection using OAuth", "Enable or disable SMTP AUTH in
// Exchange Online", "Microsoft Entra authentication and authorization error codes", "Non-delivery reports in Exchange
// Online".
reasons! {
    // Accepted
    Accepted: Accepted, "The route is valid and its configuration is rendered.", "";
    Invalid: Accepted, "The route cannot be used as it is written.",
        "Change the field that the message names.";
    OperatorIdentityNotAllowed: Accepted, "The platform does not lend the operator's identity to this route.",
        "Ask whoever runs MailRoute to list the namespace, the application {client_id} and the mailbox {mailbox} under broker.applications in the values of its chart; or set spec.clientSubmission.credential.subject to Pod.";
    MailboxNotAllowed: Accepted, "The platform does not let this namespace send as the mailbox.",
        "Ask whoever runs MailRoute to list the namespace with {mailbox} under mailboxes in the values of its chart; until then nothing is leased to the route's pods.";
    RenderFailed: Accepted, "The route is valid but its ConfigMap could not be written.",
        "See the Event on this MailRoute for the API server's answer.";

    // CredentialReady
    TokenAcquired: CredentialReady, "Entra issued an access token.", "";
    AssertionUnavailable: CredentialReady, "The projected service-account token cannot be read in the sidecar.",
        "Look at the volume mailroute-tokens of the pod (kubectl describe pod). A new pod is injected again; when the old one is deleted, messages that wait in it are lost unless its spool outlives it: kubectl exec <pod> -c mailroute -- /mailroute-sidecar queue list";
    TenantNotFound: CredentialReady, "Entra does not know the tenant, or it lives in another cloud.",
        "Check spec.tenant.id ({tenant}) and spec.tenant.cloud: az account show --query tenantId";
    ApplicationNotFound: CredentialReady, "The tenant has no such application, or it is disabled.",
        "Check spec.clientSubmission.credential.clientId: az ad sp show --id {client_id}. If the application is registered and this finds nothing, make its service principal: az ad sp create --id {client_id}";
    FederationNotTrusted: CredentialReady, "No federated credential of the application matches the ServiceAccount that asks.",
        "Create one with the issuer, subject and audience that the message names, letter by letter: az ad app federated-credential create --id {client_id} --parameters credential.json";
    WaitingForPropagation: CredentialReady, "No federated credential matches yet; a new one takes some minutes to act.",
        "If there is none yet, create it with the issuer, subject and audience that the message names: az ad app federated-credential create --id {client_id} --parameters credential.json. If there is, wait up to 15 minutes, then compare the three letter by letter.";
    AssertionRejected: CredentialReady, "Entra rejected the assertion itself (out of its time, malformed or signed by an unknown key).",
        "Check the clocks of the nodes, and for workload identity that the cluster's OIDC issuer publishes its current keys.";
    OperatorRefused: CredentialReady, "The operator hands out no token to this pod.",
        "Look at the condition Accepted of this MailRoute, and that the pod has its label mailroute.dev/route; the operator's log has a line for each refusal.";
    OperatorUnavailable: CredentialReady, "The operator, whose identity the route uses, does not answer as it should.",
        "Check that the operator runs, that pods reach its control service (NetworkPolicy, port 8444), and that the operator reaches the API server (its log tells); a token in use stays good until its end.";
    OperatorIdentityMissing: CredentialReady, "The operator cannot read its own service-account token.",
        "Install the chart with broker.applications, which mounts it into the operator.";
    SecretMissing: CredentialReady, "The Secret with the credential is not there, or lacks the key.",
        "Create it in the route's namespace: kubectl create secret generic {secret} --from-file={key}=<file with the secret>; pods see it within two minutes.";
    SecretRejected: CredentialReady, "Entra does not know the client secret.",
        "Put the value of a client secret (not its id) into the Secret {secret}; a new one: az ad app credential reset --id {client_id} --append";
    SecretExpired: CredentialReady, "The client secret has expired.",
        "Make a new one and put it into the Secret {secret}: az ad app credential reset --id {client_id} --append";
    CertificateNotRegistered: CredentialReady, "The application does not know the certificate that signed the assertion, or no longer takes it.",
        "Register the certificate of the Secret {secret}: az ad app credential reset --id {client_id} --append --cert @tls.crt; the message names its thumbprint.";
    PasswordMounted: CredentialReady, "The mailbox's password is there; Microsoft is switching passwords off.",
        "Change to credential.type WorkloadIdentity: Exchange Online stops taking passwords for SMTP by default at the end of December 2026.";
    TokenProxyInvalid: CredentialReady, "What is set in the sidecar about the token proxy of an AKS identity binding is incomplete or malformed.",
        "Correct what sets the variable that the message names, and create the pod anew; to have the webhook of Azure workload identity pass the sidecar by, annotate the pod with azure.workload.identity/skip-containers: mailroute";
    IssuerUnreachable: CredentialReady, "Entra cannot fetch the cluster's OIDC discovery document.",
        "Make the service-account issuer reachable from the internet; on AKS: az aks update --resource-group <group> --name <cluster> --enable-oidc-issuer, and create the pods anew. Where it cannot be public, use credential.type ClientCertificate.";
    ScopeRejected: CredentialReady, "Entra refuses the scope, or the tenant has no Exchange Online.",
        "Leave spec.tenant.authority.scope out, and check that the tenant ({tenant}) has Exchange Online.";
    AccessBlocked: CredentialReady, "A Conditional Access policy or security defaults block the application.",
        "Exclude the application {client_id} from the policy for workload identities.";
    CredentialRejected: CredentialReady, "Entra rejected the credential.",
        "Look the AADSTS code of the message up at https://login.microsoftonline.com/error";
    AuthorityCaBundleMissing: CredentialReady, "The CA bundle for the token endpoint is not there, or holds no certificate.",
        "Create the ConfigMap that spec.tenant.authority.caBundleRef names, with that key, in the route's namespace: kubectl create configmap <name> --from-file=<key>=<bundle.pem>; pods see it within two minutes.";
    TokenServiceThrottled: CredentialReady, "Entra asks to slow down.", "Nothing; it is tried again when Entra says.";
    TokenServiceUnavailable: CredentialReady, "The token endpoint does not answer as it should.",
        "Check that pods reach https://{authority}, or the operator does with credential.subject Operator (egress, DNS, TLS inspection; an HTTP proxy is named by HTTPS_PROXY, or by spec.tenant.authority.proxy for pods). If it worked before and all pods are concerned, see whether Microsoft has an outage (https://status.cloud.microsoft).";

    // CertificateValid
    CertificateValid: CertificateValid, "The certificate belongs to its key and is in force.", "";
    CertificateExpiring: CertificateValid, "The certificate ends soon.",
        "Renew the certificate in the Secret {secret}; the new one is used without a restart. For credential.type ClientCertificate register it with the application first: az ad app credential reset --id <client id> --append --cert @tls.crt";
    CertificateMissing: CertificateValid, "The Secret with the certificate is not there, or lacks a key.",
        "Create it in the route's namespace: kubectl create secret tls {secret} --cert=<chain.pem> --key=<key.pem>; pods see it within two minutes.";
    CertificateInvalid: CertificateValid, "The certificate cannot be used: it is not PEM, or its key is another one's.",
        "Replace the content of the Secret {secret}: the chain with the leaf first in tls.crt, its key in tls.key.";
    CertificateExpired: CertificateValid, "The certificate is not in force (ended, or not begun).",
        "Renew the certificate in the Secret {secret}; the new one is used without a restart. For credential.type ClientCertificate register it with the application first: az ad app credential reset --id <client id> --append --cert @tls.crt";
    CertificateNameMismatch: CertificateValid, "No name of the certificate is in one of the accepted domains, so no connector can match it.",
        "Issue a certificate for a name in spec.tenant.acceptedDomains, or add and verify its domain in the Microsoft 365 admin center (Settings > Domains) and list it there.";

    // UpstreamReachable
    Connected: UpstreamReachable, "The upstream answered over verified TLS.", "";
    ConnectedWithoutTls: UpstreamReachable, "The upstream answered, and mail goes to it without TLS.",
        "Nothing, if that is meant; else set spec.endpoint.tls to Required, and look at what stands between the pod and {endpoint}.";
    NameNotResolved: UpstreamReachable, "The upstream's name does not resolve.",
        "Look up the name of {endpoint} from the pod: if others resolve, it is misspelt in spec.endpoint.host; else look at the DNS of the pod and the cluster.";
    ConnectFailed: UpstreamReachable, "No TCP connection to the upstream.",
        "If it never worked, allow egress from the pod to {endpoint} (NetworkPolicy, firewall, service mesh). If it worked before and all pods are concerned, see whether Microsoft 365 has an outage (https://status.cloud.microsoft); mail is tried again.";
    StartTlsMissing: UpstreamReachable, "The upstream does not offer STARTTLS, so nothing is sent.",
        "Something between the pod and {endpoint} rewrites SMTP (service mesh, firewall); exclude the port from it: for Istio annotate the pod template with traffic.sidecar.istio.io/excludeOutboundPorts, for Linkerd with config.linkerd.io/skip-outbound-ports.";
    TlsFailed: UpstreamReachable, "TLS with the upstream failed: name, chain or version.",
        "Look at what the message says of the certificate: TLS inspection on the way to {endpoint} shows one of its own, and the port has to be excluded from it. The CA of a server of your own goes into spec.endpoint.caBundleRef.";
    CaBundleMissing: UpstreamReachable, "The CA bundle for the upstream is not there, or holds no certificate.",
        "Create the ConfigMap that spec.endpoint.caBundleRef names, with that key, in the route's namespace: kubectl create configmap <name> --from-file=<key>=<bundle.pem>; pods see it within two minutes.";
    SmartHostNotFound: UpstreamReachable, "The accepted domain has no MX record, so there is no smart host.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    SmartHostForeign: UpstreamReachable, "The MX record of the accepted domain leads elsewhere than to Exchange Online.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    WrongRegion: UpstreamReachable, "The smart host belongs to another region of Microsoft 365 than the tenant.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains), or leave it out so that it is looked up.";
    EhloNameRefused: UpstreamReachable, "The upstream refuses the name that the sidecar gives in EHLO.",
        "Give the route and its namespace names that make a valid host name; the operator builds <route>.<namespace>.svc.<cluster domain> from them.";
    UpstreamUnavailable: UpstreamReachable, "The upstream answers that it is not available now.",
        "Nothing; it is tried again. https://status.cloud.microsoft tells of an outage.";
    UpstreamProtocolError: UpstreamReachable, "The upstream broke off or answered something that is not SMTP.",
        "Check what stands between the pod and {endpoint}.";

    // Authenticated
    LoggedIn: Authenticated, "The upstream accepted the log-in as the mailbox.", "";
    ExchangeRejectedToken: Authenticated, "The token is good, but Exchange does not let the application use the mailbox.",
        "Check all that Exchange asks for. With mailbox permissions: the application {client_id} has the permission SMTP.SendAsApp of Office 365 Exchange Online with consent (az ad app permission admin-consent --id {client_id}), its service principal is registered (New-ServicePrincipal -AppId {client_id} -ObjectId <id of the enterprise application>), and it may use the mailbox (Add-MailboxPermission -Identity {mailbox} -User <service principal> -AccessRights FullAccess). With RBAC for Applications, and without that permission: Test-ServicePrincipalAuthorization -Identity {client_id} -Resource {mailbox} shows the role Application SMTP.SendAsApp in scope. A change can take two hours to act.";
    SmtpAuthDisabledTenant: Authenticated, "SMTP AUTH is switched off for the tenant.",
        "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false, or for all: Set-TransportConfig -SmtpClientAuthenticationDisabled $false";
    SmtpAuthDisabledMailbox: Authenticated, "SMTP AUTH is switched off for the mailbox.",
        "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false";
    AuthenticationPolicy: Authenticated, "A policy of the organisation forbids this log-in.",
        "Check authentication policies and security defaults for {mailbox}: Get-AuthenticationPolicy";
    PasswordRejected: Authenticated, "The upstream does not take the mailbox's password.",
        "Put the password of {mailbox} into the Secret {secret}, and see in the sign-in log of Entra whether the account is locked; better, change to credential.type WorkloadIdentity.";
    ApiPermissionMissing: Authenticated, "The token lacks the permission to send.",
        "Grant the application {client_id} the permission of Office 365 Exchange Online that the service wants, SMTP.SendAsApp, or Mail.Send for High Volume Email, and consent to it: az ad app permission admin-consent --id {client_id}";
    ApplicationNotAllowed: Authenticated, "The account does not let this application send.",
        "Add it to the account's list: Add-HVEAppAccess -Identity {mailbox} -AppIds <object id of the enterprise application>; az ad sp show --id {client_id} --query id prints that id. This takes some minutes to act.";
    BasicAuthDisabled: Authenticated, "The upstream saw a password, and passwords are switched off.",
        "Use credential.type WorkloadIdentity.";
    NotAuthenticated: Authenticated, "The upstream wants a log-in before mail.",
        "Check that spec.endpoint names the submission service ({endpoint}).";
    LoginFailed: Authenticated, "The upstream refused the log-in.",
        "Look the reply of the message up in docs/troubleshooting.md.";

    ConnectorMatched: Authenticated, "The upstream takes mail from here for the tenant.", "";
    ConnectorMismatch: Authenticated, "No inbound connector of the tenant matches this certificate or IP address.",
        "Compare with Get-InboundConnector | Format-List TlsSenderCertificateName,SenderIPAddresses,Enabled; the message names what was presented and from where.";
    ConnectorRestricted: Authenticated, "A partner connector of the tenant takes the sender's domain only from other addresses or certificates.",
        "Look for RestrictDomainsToIPAddresses and RestrictDomainsToCertificate: Get-InboundConnector | Format-List Name,ConnectorType,SenderDomains,Restrict*; the message names what was presented and from where.";
    DirectSendRejected: Authenticated, "The tenant rejects Direct Send.",
        "Create a connector and use the method SmtpRelay (New-InboundConnector -ConnectorType OnPremises), or allow it: Set-OrganizationConfig -RejectDirectSend $false";
    EgressAddressBlocked: Authenticated, "Exchange blocks the IP address that the cluster sends from.",
        "Ask for its release at https://sender.office.com, and give the cluster an outgoing address of its own (NAT gateway); the message names the address.";
    EgressAddressDeferred: Authenticated, "Exchange puts off mail from the IP address that the cluster sends from.",
        "Nothing at first; it is tried again, more and more slowly. An inbound connector for the address or a certificate ends it: New-InboundConnector -ConnectorType OnPremises; so does an outgoing address of the cluster's own.";
    Ipv6Refused: Authenticated, "Exchange does not take the mail over IPv6.",
        "Send over IPv4, which is what connectors take: give the cluster an outgoing IPv4 address; or give the IPv6 address reverse DNS and a place in the SPF record.";

    // SendersAccepted
    MailAccepted: SendersAccepted, "The upstream accepted a message from the mailbox.", "";
    SendAsDenied: SendersAccepted, "The mailbox may not send as the From address of a message.",
        "Send as {mailbox}, or grant it: Add-RecipientPermission -Identity <From address> -Trustee {mailbox} -AccessRights SendAs";
    SenderBlocked: SendersAccepted, "Exchange has blocked the sender's address.",
        "Find out what was sent in its name, and write to delist@microsoft.com with the reply that the message quotes.";
    SenderDomainUnverified: SendersAccepted, "SPF or DMARC of the sender's domain do not allow mail from here.",
        "Add the cluster's outgoing address to the domain's SPF record: v=spf1 ip4:<address> include:spf.protection.outlook.com -all; the condition DnsPublished shows the whole record.";
    SenderDomainUnregistered: SendersAccepted, "The sender's domain is not one of the tenant's.",
        "Add and verify the domain in the Microsoft 365 admin center (Settings > Domains), or send from an accepted domain: Get-AcceptedDomain";
    MailboxFull: SendersAccepted, "The sending mailbox is full, so nothing more can be sent from it.",
        "Empty Sent Items of {mailbox}, or set a retention policy on it.";
    MailboxRestricted: SendersAccepted, "Exchange has restricted the mailbox for what it sent.",
        "Unblock it in the Defender portal under Restricted entities: Remove-BlockedSenderAddress -SenderAddress {mailbox}";
    SenderThrottled: SendersAccepted, "Exchange throttles the mailbox for continuous errors.",
        "Find the messages that fail (sidecar log) and stop them; Exchange lifts the throttle by itself after some hours.";
    ErrorsHeldBack: SendersAccepted, "So many messages were refused within an hour that more of their kind are held back, before Exchange throttles the mailbox.",
        "Find the messages that fail (sidecar log) and stop them; what is held goes out by itself when the hour has passed.";
    RateExceeded: SendersAccepted, "The mailbox exceeds Exchange's messages a minute.",
        "Find out what else sends as {mailbox} (Get-MessageTraceV2 -SenderAddress {mailbox}) and give it a mailbox of its own: what pods of MailRoute send is kept within the limit already. Where that cannot be, lower spec.limits.messagesPerMinute by what it needs.";
    ConnectionsExceeded: SendersAccepted, "More connections submit as the mailbox than Exchange allows at a time.",
        "Find out what else logs in as {mailbox} and give it a mailbox of its own: the pods of MailRoute share the three connections that Exchange allows. Where that cannot be, lower spec.limits.connections of the routes that name {mailbox}.";
    DailyQuotaExceeded: SendersAccepted, "The mailbox has used up its recipients of the day.",
        "Wait for the rolling 24 hours to move, or use another mailbox or the SMTP relay method. If spec.limits.recipientsPerDay is lower than what the mailbox may send, raise it.";
    TenantQuotaExceeded: SendersAccepted, "The tenant has used up its external recipients of the day.",
        "Wait for the rolling 24 hours to move; Get-LimitsEnforcementStatus shows the tenant's limit, which grows with its licences. Senders at *.onmicrosoft.com have a limit of 100 a day: send from a domain of your own.";
    TenantBlocked: SendersAccepted, "Exchange blocks the tenant's outgoing mail.",
        "Look the reply of the message up and ask Microsoft support.";

    // DnsPublished. Of several findings the first of this list is the reason.
    DnsPublished: DnsPublished, "The accepted domains publish the DNS records that receivers look for.", "";
    DomainNotFound: DnsPublished, "An accepted domain does not exist in DNS.",
        "Correct spec.tenant.acceptedDomains (Get-AcceptedDomain lists the tenant's), or have the domain delegated.";
    SpfInvalid: DnsPublished, "A domain's SPF record cannot be evaluated, so receivers treat its mail as unproven or refuse it.",
        "Correct the TXT record as the message says.";
    SpfMissing: DnsPublished, "A domain has no SPF record.",
        "Publish the TXT record that the message shows.";
    SpfIncomplete: DnsPublished, "A domain's SPF record leaves out where this route's mail comes from.",
        "Change the TXT record to the one that the message shows.";
    DkimMissing: DnsPublished, "A domain's DKIM selectors do not lead to Exchange Online, so its mail is not signed in its name.",
        "Publish the two CNAME records that Get-DkimSigningConfig prints for the domain, then Set-DkimSigningConfig -Enabled $true.";
    DmarcInvalid: DnsPublished, "A domain's DMARC record cannot be read, so receivers pass over it.",
        "Correct the TXT record as the message says.";
    DmarcMissing: DnsPublished, "A domain has no DMARC record.",
        "Publish the TXT record that the message shows; p=none at first.";
    MxForeign: DnsPublished, "The MX record that the route takes its smart host from leads elsewhere than to Exchange Online.",
        "Set spec.endpoint.host to the MX name that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    MxMissing: DnsPublished, "A domain has no MX record, so replies and non-delivery reports find no way back.",
        "Publish the MX record that the Microsoft 365 admin center shows for the domain (Settings > Domains).";
    DnsUnavailable: DnsPublished, "Name servers could not tell what the accepted domains publish.",
        "Nothing; they are asked again. If it stays, look at the DNS of the cluster and at the domain's name servers; dns.preflight: false in the values of the chart switches the look-ups off.";

    // Ready
    Ready: Ready, "Mail can flow.", "";
    NoPods: Ready, "No pod uses the route, so nothing is known of the way to Microsoft 365.",
        "Label a pod template with mailroute.dev/route and this route's name.";
    PodsRefused: Ready, "Pods of the route are refused.",
        "Change what the message names, in the pod template or in the route; Kubernetes tries again by itself, more and more slowly. To have it try at once: kubectl rollout restart <kind>/<name>";
    WaitingForReports: Ready, "Pods use the route, and none has reported yet.",
        "A sidecar reports within a minute of its start. If it stays, allow the pods out to the operator on port 8444 (NetworkPolicy), and look at the container mailroute of the pods: kubectl logs <pod> -c mailroute";

    // SidecarsCurrent
    SidecarsCurrent: SidecarsCurrent, "Every pod has the sidecar that a new pod would get.", "";
    SidecarsOutdated: SidecarsCurrent, "The sidecar of some pods is not as a new pod would get it: another image, or settings that only a new pod gets.",
        "Restart what the message names, kubectl rollout restart <kind>/<name>; or leave it to the operator: spec.rollout: Restart";
    SidecarsRestarting: SidecarsCurrent, "Pods whose sidecar is not as a new pod would get it are evicted, one after another.",
        "Wait; the message says what the next ones wait for.";
    SidecarsHeld: SidecarsCurrent, "Pods whose sidecar is not as a new pod would get it are not evicted now.",
        "See to what the message says that they wait for, or restart them: kubectl rollout restart <kind>/<name>";

    SidecarsMissing: SidecarsCurrent, "Pods carry the route's label and have no sidecar: they ran already when they were labelled, or were let in without it.",
        "Create them anew, kubectl rollout restart <kind>/<name>, after taking the annotation mailroute.dev/allow-without-sidecar off where it stands.";

    // SidecarsReporting
    SidecarsSilent: SidecarsReporting, "Sidecars run and have not reported for minutes, so nothing is known of the mail in their pods.",
        "Look at the log of the container mailroute of these pods, whether they resolve names and reach the operator on port 8444 (NetworkPolicy): kubectl logs <pod> -c mailroute; and at what waits in them: kubectl exec <pod> -c mailroute -- /mailroute-sidecar queue list. Do not delete the pods while messages wait in them.";

    // FederationFits. Source of the number: Microsoft Learn, "Important considerations and restrictions for federated
    // identity credentials".
    FederationNearlyFull: FederationFits, "Pods that use the application run under nearly as many ServiceAccounts as it may have federated credentials, which are 20.",
        "Let pods share ServiceAccounts, spread the routes over several applications, or use one federated credential for all: the operator's (spec.clientSubmission.credential.subject: Operator), or that of an AKS identity binding.";
    FederationFull: FederationFits, "Pods that use the application run under more ServiceAccounts than it may have federated credentials, which are 20: some of them cannot log in.",
        "Let pods share ServiceAccounts, spread the routes over several applications, or use one federated credential for all: the operator's (spec.clientSubmission.credential.subject: Operator), or that of an AKS identity binding.";
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

    /// The reason that says its condition holds.
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
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
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
        let table: [(Reason, &[&str]); 17] = [
            (R::AssertionUnavailable, &["queue list"]),
            (R::ApplicationNotFound, &["az ad sp create --id 1b2c3d4e"]),
            (R::FederationNotTrusted, &["--parameters credential.json"]),
            (
                R::WaitingForPropagation,
                &["If there is none yet", "--parameters credential.json", "15 minutes"],
            ),
            (R::OperatorUnavailable, &["8444", "API server"]),
            (R::SecretMissing, &["generic m365", "client-secret="]),
            (R::IssuerUnreachable, &["pods anew", "ClientCertificate"]),
            (R::TokenServiceUnavailable, &["the operator does", "spec.tenant.authority.proxy"]),
            (R::CertificateExpiring, &["az ad app credential reset"]),
            (R::CertificateExpired, &["az ad app credential reset"]),
            (R::CaBundleMissing, &["spec.endpoint.caBundleRef", "kubectl create configmap"]),
            (R::ConnectFailed, &["egress", "outage"]),
            (R::ExchangeRejectedToken, &["SMTP.SendAsApp", "Add-MailboxPermission", "RBAC for Applications"]),
            (R::ApiPermissionMissing, &["SMTP.SendAsApp", "Mail.Send for High Volume Email"]),
            (R::ConnectionsExceeded, &["what else logs in as noreply@contoso.com", "mailbox of its own"]),
            (R::WaitingForReports, &["8444"]),
            (R::SidecarsSilent, &["8444", "Do not delete"]),
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
