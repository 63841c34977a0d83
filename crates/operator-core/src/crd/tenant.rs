//! `spec.tenant`: the Microsoft 365 tenant, and where its tokens come from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cloud::Cloud;

/// The Microsoft 365 tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Entra tenant: its GUID or one of its verified domains.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$') || self.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$')")
        .message("must be the tenant's GUID or a verified domain; az account show --query tenantId prints it"))]
    pub id: String,
    /// The Microsoft cloud of the tenant; determines authority, scope, SMTP host and Graph host.
    #[serde(default)]
    pub cloud: Cloud,
    /// The tenant's accepted domains in Exchange. ClientSubmission and Graph: if set, the mailbox must be in one of them or in
    /// a subdomain. The service HighVolumeEmail requires them: mail is sent only to recipients in them. SmtpRelay requires them: senders and a name of the certificate must be in one. DirectSend requires them:
    /// mail is sent only to recipients in them. The MX record of the first leads to the tenant's smart host.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(r"self.all(d, d.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$'))")
            .message("must be domain names, such as contoso.com; Get-AcceptedDomain lists them")
    )]
    pub accepted_domains: Vec<String>,
    /// Where tokens come from. Default: the cloud's authority; each field overrides one part of it. Only ClientSubmission
    /// and Graph use tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

/// Where access tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// `host` or `host:port` of the token endpoint, always used over HTTPS. Default: the cloud's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$')")
        .message("must be a host or host:port, without https:// and without a path"))]
    pub host: Option<String>,
    /// Scope of the token, ending in `/.default`. Default: that of the service, or of Graph, in the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[!-~]+/[.]default$')")
        .message("must end in /.default, because client credentials request the application's own permissions"))]
    pub scope: Option<String>,
    /// Audience of the ServiceAccount token that Entra exchanges, as in the federated credential: one that Entra publishes
    /// (`api://AzureADTokenExchange`, `api://AzureADTokenExchangeUSGov`, `api://AzureADTokenExchangeChina`), or one that the
    /// platform allows (`entra.audiences` in the chart's values). Default: `api://AzureADTokenExchange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 600))]
    #[x_kube(validation = Rule::new(r"self.matches('^api://[!-+.-~-]+$')")
        .message("must be an audience of Entra, such as api://AzureADTokenExchange: a token for the API server or for MailRoute never leaves the pod"))]
    pub audience: Option<String>,
    /// HTTP proxy for token requests and for Graph, such as `http://proxy.corp.example:3128`, instead of the one in `HTTPS_PROXY` of the
    /// sidecar's container. `NO_PROXY` there still applies. SMTP does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 300))]
    #[x_kube(validation = Rule::new(r"self.matches('^http://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\]):[1-9][0-9]{0,4}/?$')")
        .message("must be http:// with host and port, such as http://proxy.corp.example:3128. No https://: the connection through the proxy already uses TLS. No user name and password: set HTTPS_PROXY in the sidecar's container for these"))]
    pub proxy: Option<String>,
    /// CA certificates to trust instead of the public ones: a key of a ConfigMap in the route's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
}

/// A key of a ConfigMap in the namespace of the route, holding CA certificates in PEM. The kubelet mounts it into the
/// sidecar; the operator does not read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the ConfigMap.
    #[serde(default = "CaBundleRef::default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

impl CaBundleRef {
    fn default_key() -> String {
        mailroute_route::paths::CA_FILE.to_owned()
    }
}
