//! How mail leaves: one of Microsoft's three methods, each with what it alone needs.

use serde::{Deserialize, Serialize};

use super::credential::{Authority, CertificateFiles, Credential};
use super::upstream::{Endpoint, SmartHost};

/// One of the methods of Microsoft's guide "How to set up a multifunction device or application to send email".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Method {
    /// Client SMTP submission, as one mailbox.
    ClientSubmission(ClientSubmission),
    /// SMTP relay through a connector of the tenant, which knows the sidecar by its certificate or its IP address.
    SmtpRelay(SmtpRelay),
    /// Direct Send: to the tenant's own recipients, without any log-in.
    DirectSend(DirectSend),
}

impl Method {
    /// The mailbox that is logged in as; none by the methods that need none.
    pub fn mailbox(&self) -> Option<&str> {
        match self {
            Self::ClientSubmission(submission) => Some(&submission.mailbox),
            Self::SmtpRelay(_) | Self::DirectSend(_) => None,
        }
    }

    /// The name in metrics and logs, as `spec.method` has it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ClientSubmission(_) => "ClientSubmission",
            Self::SmtpRelay(_) => "SmtpRelay",
            Self::DirectSend(_) => "DirectSend",
        }
    }
}

/// Client SMTP submission: authenticate as a mailbox and submit for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSubmission {
    /// Address of the mailbox that the application may send as (`user=` of XOAUTH2).
    pub mailbox: String,
    /// How the sidecar proves who it is.
    pub credential: Credential,
    /// Where access tokens come from. Of no use to [`Credential::Password`].
    pub authority: Authority,
    /// Where mail is submitted.
    pub endpoint: Endpoint,
}

/// SMTP relay: hand over to the tenant's connector on port 25.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmtpRelay {
    /// The certificate that the connector knows. Absent: it knows the IP address from which the cluster sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateFiles>,
    /// Exchange accepted domains, at least one. The sender must be in one of them, and so must a name of the
    /// certificate.
    pub accepted_domains: Vec<String>,
    /// Where mail is handed over.
    pub smart_host: SmartHost,
}

/// Direct Send: hand over on port 25 what is for the tenant's own recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectSend {
    /// Exchange accepted domains, at least one. Recipients outside them are refused at RCPT.
    pub accepted_domains: Vec<String>,
    /// Where mail is handed over.
    pub smart_host: SmartHost,
}
