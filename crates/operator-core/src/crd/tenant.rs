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
    /// The Microsoft cloud that the tenant lives in; chooses authority, scope and SMTP host.
    #[serde(default)]
    pub cloud: Cloud,
    /// Exchange accepted domains. ClientSubmission: when given, the mailbox must be in one of them or in a subdomain of
    /// one. SmtpRelay needs them: senders must be in one, and so must a name of the certificate. DirectSend needs them:
    /// mail goes to recipients in them and to no others. The MX record of the first leads to the tenant's smart host.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(r"self.all(d, d.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$'))")
            .message("must be domain names, such as contoso.com; Get-AcceptedDomain lists them")
    )]
    pub accepted_domains: Vec<String>,
    /// Where tokens come from. Default: the cloud's own; each field replaces one part of it. Of use to ClientSubmission,
    /// the only method with tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

/// Where access tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// `host` or `host:port` of the token endpoint, always spoken to over HTTPS. Default: the cloud's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$')")
        .message("must be a host or host:port, without https:// and without a path"))]
    pub host: Option<String>,
    /// Scope to ask for, ending in `/.default`. Default: that of Exchange Online in the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[!-~]+/[.]default$')")
        .message("must end in /.default, as client credentials ask for the application's own permissions"))]
    pub scope: Option<String>,
    /// Audience of the service-account token that Entra exchanges, as the federated credential names it: one of those that
    /// Entra publishes (`api://AzureADTokenExchange`, `api://AzureADTokenExchangeUSGov`,
    /// `api://AzureADTokenExchangeChina`), or one that whoever runs the operator allows (`entra.audiences` of the chart's
    /// values). Default: `api://AzureADTokenExchange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 600))]
    #[x_kube(validation = Rule::new(r"self.matches('^api://[!-+.-~-]+$')")
        .message("must be an audience of Entra's, such as api://AzureADTokenExchange: a token for the API server or for MailRoute never leaves the pod"))]
    pub audience: Option<String>,
    /// HTTP proxy that tokens are requested through, such as `http://proxy.corp.example:3128`: instead of the one that
    /// `HTTPS_PROXY` names in the sidecar's container. `NO_PROXY` there counts all the same. SMTP does not go through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 300))]
    #[x_kube(validation = Rule::new(r"self.matches('^http://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\]):[1-9][0-9]{0,4}/?$')")
        .message("must be http:// with host and port, such as http://proxy.corp.example:3128. No https://: what passes through the proxy has TLS already. No user and password: for these set HTTPS_PROXY in the sidecar's container"))]
    pub proxy: Option<String>,
    /// CA certificates to trust in place of the public ones: a key of a ConfigMap in the namespace of the route.
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
