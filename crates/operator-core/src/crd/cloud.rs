//! Microsoft's clouds: one row of endpoints for each.
//!
//! Source: Microsoft Learn, "National clouds" (Entra authentication endpoints), "Office 365 URLs and IP address ranges"
//! and "Workload identity federation considerations". Every value can be overridden in the route.

use mailroute_route::file::SubmissionService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Microsoft cloud that the tenant lives in. It chooses the token authority, the scope, the SMTP host and the Graph host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cloud {
    /// The worldwide service, and US Government Community Cloud (GCC).
    #[default]
    Global,
    /// GCC High.
    USGovernment,
    /// US Department of Defense. Its SMTP host is not published, so client submission needs `spec.endpoint.host`.
    USGovernmentDoD,
    /// Operated by 21Vianet.
    China,
}

/// The endpoints of one cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Host of the token authority.
    pub authority_host: &'static str,
    /// Scope for SMTP with client credentials.
    pub scope: &'static str,
    /// Host of client SMTP submission, when Microsoft publishes one.
    pub submission_host: Option<&'static str>,
    /// Host of Microsoft Graph. Source: Microsoft Graph, "National cloud deployments".
    pub graph_host: &'static str,
    /// Scope for Microsoft Graph with client credentials.
    pub graph_scope: &'static str,
    /// What the SPF records of domains include for this cloud's Exchange Online. Source: Microsoft Learn, "Set up SPF to
    /// identify valid email sources for your cloud domains".
    pub spf_include: &'static str,
}

/// The endpoints of a service that takes client submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePreset {
    /// Host of client SMTP submission, when Microsoft publishes one for the cloud.
    pub host: Option<&'static str>,
    /// Scope with client credentials.
    pub scope: &'static str,
}

impl Cloud {
    /// The endpoints of a service that takes client submission. High Volume Email and Communication Services have hosts in the
    /// worldwide cloud; none is known of the others. Sources: Microsoft Learn, "Manage high volume emails for Microsoft 365"
    /// and "SMTP authentication with Azure Communication Services".
    pub fn service(self, service: SubmissionService) -> ServicePreset {
        let worldwide = |host| Some(host).filter(|_| self == Self::Global);
        match service {
            SubmissionService::ExchangeOnline => {
                let preset = self.preset();
                ServicePreset { host: preset.submission_host, scope: preset.scope }
            }
            SubmissionService::HighVolumeEmail => ServicePreset {
                host: worldwide("smtp.hve.mx.microsoft"),
                scope: "https://outlook.office.com/.default",
            },
            SubmissionService::CommunicationServices => ServicePreset {
                host: worldwide("smtp.azurecomm.net"),
                scope: "https://communication.azure.com/.default",
            },
        }
    }

    /// The endpoints of this cloud.
    pub const fn preset(self) -> Preset {
        match self {
            Self::Global => Preset {
                authority_host: "login.microsoftonline.com",
                scope: "https://outlook.office365.com/.default",
                submission_host: Some("smtp.office365.com"),
                graph_host: "graph.microsoft.com",
                graph_scope: "https://graph.microsoft.com/.default",
                spf_include: "spf.protection.outlook.com",
            },
            Self::USGovernment => Preset {
                authority_host: "login.microsoftonline.us",
                scope: "https://outlook.office365.us/.default",
                submission_host: Some("smtp.office365.us"),
                graph_host: "graph.microsoft.us",
                graph_scope: "https://graph.microsoft.us/.default",
                spf_include: "spf.protection.office365.us",
            },
            Self::USGovernmentDoD => Preset {
                authority_host: "login.microsoftonline.us",
                scope: "https://outlook-dod.office365.us/.default",
                submission_host: None,
                graph_host: "dod-graph.microsoft.us",
                graph_scope: "https://dod-graph.microsoft.us/.default",
                spf_include: "spf.protection.office365.us",
            },
            Self::China => Preset {
                authority_host: "login.partner.microsoftonline.cn",
                scope: "https://partner.outlook.cn/.default",
                submission_host: Some("smtp.partner.outlook.cn"),
                graph_host: "microsoftgraph.chinacloudapi.cn",
                graph_scope: "https://microsoftgraph.chinacloudapi.cn/.default",
                spf_include: "spf.protection.partner.outlook.cn",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_asks_for_the_default_permissions() {
        for cloud in [Cloud::Global, Cloud::USGovernment, Cloud::USGovernmentDoD, Cloud::China] {
            let preset = cloud.preset();
            for scope in [preset.scope, preset.graph_scope] {
                assert!(scope.starts_with("https://") && scope.ends_with("/.default"), "{cloud:?}: {scope}");
            }
            assert_eq!(preset.graph_scope, format!("https://{}/.default", preset.graph_host));
        }
    }

    #[test]
    fn china_uses_the_authority_of_its_own_operator() {
        assert_eq!(Cloud::China.preset().authority_host, "login.partner.microsoftonline.cn");
    }

    #[test]
    fn only_the_department_of_defense_lacks_a_published_host() {
        assert_eq!(Cloud::USGovernmentDoD.preset().submission_host, None);
        assert!(Cloud::Global.preset().submission_host.is_some());
    }
}
