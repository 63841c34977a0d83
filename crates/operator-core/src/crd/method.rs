//! How mail leaves: the block of each method, its credential or certificate, and where mail is handed to.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use kube::core::Rule;
use mailroute_route::address::{DOMAIN, LOCAL_PART};
use mailroute_route::file::{SpreadFrom, SubmissionService, TlsMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tenant::CaBundleRef;
use super::units::is_size_within;

/// How mail leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Log in as a mailbox and submit for it, port 587.
    ClientSubmission,
    /// POST each message to Microsoft Graph as a mailbox, port 443.
    Graph,
    /// Hand over to the tenant's connector, port 25.
    SmtpRelay,
    /// Hand over what is for the tenant's own recipients, without log-in, port 25.
    DirectSend,
}

/// The rule of a field that names the mailbox to send as.
fn is_one_mailbox() -> Rule {
    Rule::new(format!(r#"self.matches("^{LOCAL_PART}@{DOMAIN}$")"#))
        .message("must be the address of one mailbox, such as noreply@contoso.com: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no display name, angle brackets or spaces")
}

/// The rule of a field that names a server.
fn is_dns_name() -> Rule {
    Rule::new(
        r"self.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])*[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$')",
    )
    .message("must be a DNS name, such as smtp.office365.com, and not an IP address")
}

/// Client SMTP submission: the mailbox to send as, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.username) || self.service == 'CommunicationServices'")
        .message("clientSubmission.username is for the service CommunicationServices: the other services log in as the mailbox"),
    validation = Rule::new("self.service == 'ExchangeOnline' || self.credential.subject == 'Pod'")
        .message("credential.subject Operator is for the service ExchangeOnline: the operator requests no tokens of another scope"),
    validation = Rule::new("self.mailboxes.size() == 0 || (self.service == 'ExchangeOnline' && self.credential.type != 'Password')")
        .message("clientSubmission.mailboxes needs the service ExchangeOnline, and an application that may send as each of them: use WorkloadIdentity, ClientCertificate or ClientSecret"),
    validation = Rule::new("!self.spread || self.mailboxes.size() > 0")
        .message("clientSubmission.spread shares mail over clientSubmission.mailboxes: list them"),
    validation = Rule::new("self.spreadFrom == 'Keep' || self.spread")
        .message("clientSubmission.spreadFrom is for spread: true")
)]
pub struct ClientSubmission {
    /// The service that accepts the mail; determines host, scope and default limits. ExchangeOnline: a mailbox, any
    /// recipient. HighVolumeEmail: a High Volume Email account, recipients in tenant.acceptedDomains only, no limit on the
    /// rate. CommunicationServices: Azure Communication Services Email, any recipient.
    #[serde(default)]
    pub service: SubmissionService,
    /// Address of the mailbox to log in as. Messages must be From it, or from an address that it may send as. With
    /// CommunicationServices: a MailFrom address of a domain that is linked to the resource.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = is_one_mailbox())]
    pub mailbox: String,
    /// Further mailboxes, each with the senders whose mail it carries. The sender of the envelope (MAIL FROM) determines the
    /// mailbox: the first one that lists it, or that is the sender itself; `mailbox` carries everything else. Each has limits of its own.
    /// The application of credential must be allowed to send as each of them. `mailbox` can be listed too, with senders.
    #[serde(default)]
    #[schemars(length(max = 15))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".to_owned()]))]
    pub mailboxes: Vec<SendingMailbox>,
    /// Whether the mail of a sender that several of the mailboxes list is shared over all of them, in turns. false: the first of them
    /// carries it.
    #[serde(default)]
    pub spread: bool,
    /// The From of messages that are shared by spread. Keep: it stays, and each of the mailboxes must be allowed to send as the
    /// sender (SendAs). ReplyTo: it becomes the mailbox, and the sender is named in Reply-To.
    #[serde(default)]
    pub spread_from: SpreadFrom,
    /// SMTP username of the Communication Services resource, if it is not the mailbox's address. Only for
    /// CommunicationServices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    #[x_kube(validation = Rule::new(r"self.matches('^[!-~]+$')")
        .message("must be the SMTP username of the Communication Services resource: printable ASCII without spaces"))]
    pub username: Option<String>,
    /// How the sidecar proves that it may send as the mailbox.
    pub credential: Credential,
}

/// A further mailbox of a route, and the senders whose mail it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendingMailbox {
    /// Address of the mailbox to log in as.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = is_one_mailbox())]
    pub address: String,
    /// Senders of the envelope (MAIL FROM) whose mail it carries besides its own: addresses, or `*@domain` for all addresses of
    /// a domain. It must be allowed to send as them (SendAs).
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 3, max = 254)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(format!(r#"self.all(s, s.matches("^{LOCAL_PART}@{DOMAIN}$"))"#))
            .message("must be addresses such as orders@contoso.com, or *@contoso.com for all of a domain: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no display name, angle brackets or spaces")
    )]
    pub senders: Vec<String>,
}

impl ClientSubmission {
    /// The addresses of all mailboxes, `mailbox` first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let is_other = |it: &&SendingMailbox| !it.address.eq_ignore_ascii_case(&self.mailbox);
        let others = self.mailboxes.iter().filter(is_other).map(|it| it.address.as_str());
        std::iter::once(self.mailbox.as_str()).chain(others)
    }
}

/// Microsoft Graph `sendMail`: the mailbox to send as, and how to get a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.credential.type != 'Password'")
        .message("Graph accepts no passwords: use WorkloadIdentity, ClientCertificate or ClientSecret"),
    validation = Rule::new("self.credential.subject == 'Pod'")
        .message("credential.subject Operator is for ClientSubmission: the operator requests no tokens for Graph"),
    validation = Rule::new("!has(self.fallbackEndpoint) || self.fallback == 'ClientSubmission'")
        .message("graph.fallbackEndpoint is for fallback ClientSubmission")
)]
pub struct Graph {
    /// Address of the mailbox to send as: its user principal name or its primary address, not an alias. Messages must be
    /// From it, or from an address that it may send as.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = is_one_mailbox())]
    pub mailbox: String,
    /// How the sidecar proves that it may send as the mailbox. Password is not possible.
    pub credential: Credential,
    /// What happens to messages that Graph cannot carry: larger than maxMessageBytes, with the null sender, or with addresses in To
    /// or Cc that are no recipients of the envelope. None: they are refused. ClientSubmission: they are submitted by SMTP as
    /// the same mailbox with the same credential, which needs SMTP AUTH and port 587.
    #[serde(default)]
    pub fallback: GraphFallback,
    /// The SMTP server of the fallback. Default: what the cloud of the tenant publishes, port 587.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_endpoint: Option<FallbackEndpoint>,
    /// Largest message that is sent by Graph, such as `3Mi`, or a number of bytes. Microsoft accepts requests of about 4 MB,
    /// which hold 3 MiB.
    #[serde(default = "Graph::default_max_message_bytes")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = Rule::new(is_size_within("1Ki", "150Mi"))
        .message("must be a size from 1Ki to 150Mi, such as 3Mi, or that number of bytes"))]
    pub max_message_bytes: Quantity,
}

impl Graph {
    /// What a request of 4 MiB holds in base64.
    fn default_max_message_bytes() -> Quantity {
        Quantity("3Mi".to_owned())
    }
}

/// What happens to messages that Graph cannot carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GraphFallback {
    /// They are refused.
    #[default]
    None,
    /// They are submitted by SMTP as the same mailbox.
    ClientSubmission,
}

/// The SMTP server of Graph's fallback. TLS is always required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackEndpoint {
    /// DNS name, which the server's certificate must contain. Default: the cloud's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = is_dns_name())]
    pub host: Option<String>,
    /// TCP port: 587, or 25 if 587 is blocked. Default: 587.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new("self == 587 || self == 25")
        .message("must be 587, or 25 if 587 is blocked"))]
    pub port: Option<u16>,
    /// CA certificates to trust instead of the public ones: a key of a ConfigMap in the route's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
}

/// How the sidecar proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == 'WorkloadIdentity' || has(self.secretRef)")
        .message("secretRef is missing: name the Secret that holds the client secret, the client certificate or the password"),
    validation = Rule::new("self.type != 'WorkloadIdentity' || !has(self.secretRef)")
        .message("secretRef is for the types ClientSecret, ClientCertificate and Password: leave it out for WorkloadIdentity, which has no secret"),
    validation = Rule::new("self.type == 'Password' || has(self.clientId)")
        .message("clientId is missing: name the application (client) id in Entra, a GUID"),
    validation = Rule::new("self.type != 'Password' || !has(self.clientId)")
        .message("clientId is for the types WorkloadIdentity, ClientSecret and ClientCertificate: leave it out for Password, which belongs to the mailbox"),
    validation = Rule::new("!has(self.secretRef) || self.type == 'ClientCertificate' || has(self.secretRef.key)")
        .message("secretRef.key: name the key of the Secret that holds the client secret or the password"),
    validation = Rule::new("!has(self.subject) || self.subject == 'Pod' || self.type == 'WorkloadIdentity'")
        .message("subject Operator is for the type WorkloadIdentity: the operator has no access to secrets")
)]
pub struct Credential {
    /// Kind of credential. WorkloadIdentity: the pod's ServiceAccount token, with a federated credential of the application;
    /// nothing secret is stored. ClientSecret and ClientCertificate: the application's, from a Secret. Password: the
    /// mailbox's, from a Secret; Microsoft is phasing out passwords. With CommunicationServices, Password is the client secret
    /// of the application behind the SMTP username, for AUTH LOGIN.
    #[serde(rename = "type")]
    pub type_: CredentialType,
    /// The ServiceAccount in the federated credential of WorkloadIdentity. Pod: that of the pods that send. Operator: the
    /// operator's, so that one federated credential serves any number of namespaces; the operator issues access tokens to
    /// the pods of this route if the platform allows the namespace, the application and the mailbox (broker.applications in
    /// the chart's values). The platform then sets authority and endpoint: leave out tenant.authority and endpoint.
    #[serde(default)]
    pub subject: Subject,
    /// Application (client) id in Entra. For every type except Password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')")
        .message("must be the application (client) id, a GUID; az ad app list --display-name <name> prints it as appId"))]
    pub client_id: Option<String>,
    /// The Secret with the credential, in the route's namespace. For every type except WorkloadIdentity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Whose ServiceAccount a federated credential names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Subject {
    /// The ServiceAccount of the pods that send.
    #[default]
    Pod,
    /// The operator's own, which asks Entra in their place.
    Operator,
}

/// Kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialType {
    /// The pod's ServiceAccount token, exchanged under a federated credential.
    WorkloadIdentity,
    /// A client secret of the application.
    ClientSecret,
    /// A client certificate of the application.
    ClientCertificate,
    /// The mailbox's password. Microsoft is switching this off.
    Password,
}

/// A Secret in the namespace of the route. The kubelet mounts it into the sidecar and nowhere else; the operator cannot
/// read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a Secret: lower-case letters, digits, - and ."))]
    pub name: String,
    /// Key in the Secret that holds the client secret or the password, or for ClientCertificate a key with chain and private
    /// key in PEM. Without it, a ClientCertificate is read from `tls.crt` and `tls.key`, as `kubectl create secret tls`
    /// creates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9._-]+$')")
        .message("must be a key of a Secret: letters, digits, -, _ and ."))]
    pub key: Option<String>,
}

/// SMTP relay through a connector of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmtpRelay {
    /// The certificate by which the connector recognises the sidecar: a Secret of type `kubernetes.io/tls` in the route's
    /// namespace, with the chain, leaf first, in `tls.crt`. Without it, the connector has to recognise the cluster's
    /// outgoing IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<CertificateSecretRef>,
}

/// A Secret of type `kubernetes.io/tls` in the namespace of the route: the chain, leaf first, in `tls.crt` and its key in
/// `tls.key`. The kubelet mounts it into the sidecar and nowhere else; a renewed one is used without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a Secret: lower-case letters, digits, - and ."))]
    pub name: String,
}

/// Direct Send has no settings of its own: write `directSend: {}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectSend {}

/// The server that mail is handed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// DNS name, which the server's certificate must contain. IP addresses are refused. Default: for ClientSubmission the
    /// host of the service in the cloud; for Graph the cloud's; for SmtpRelay and DirectSend the MX record of the first
    /// accepted domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = is_dns_name())]
    pub host: Option<String>,
    /// TCP port. ClientSubmission: 587, or 25 if 587 is blocked; default 587. Graph: 443 by default. SmtpRelay and
    /// DirectSend: 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Whether mail may be sent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// CA certificates to trust instead of the public ones: a key of a ConfigMap in the route's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
}
