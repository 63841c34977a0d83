//! How mail leaves: one of Microsoft's ways, each with what it alone needs.

use serde::{Deserialize, Serialize};

use super::credential::{Authority, CertificateFiles, Credential};
use super::is_default;
use super::mailboxes::{SendingMailbox, SpreadFrom};
use super::upstream::{Endpoint, SmartHost};

/// One of the methods of Microsoft's guide "How to set up a multifunction device or application to send email", or Microsoft
/// Graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Method {
    /// Client SMTP submission, as one mailbox.
    ClientSubmission(ClientSubmission),
    /// SMTP relay through a connector of the tenant, which knows the sidecar by its certificate or its IP address.
    SmtpRelay(SmtpRelay),
    /// Direct Send: to the tenant's own recipients, without any log-in.
    DirectSend(DirectSend),
    /// Microsoft Graph `sendMail`, as one mailbox, over HTTPS.
    Graph(Graph),
}

impl Method {
    /// Who sends as which mailbox, and where; none by the methods that log nobody in.
    pub const fn log_in(&self) -> Option<LogInSettings<'_>> {
        let (mailbox, credential, authority, endpoint) = match self {
            Self::ClientSubmission(ClientSubmission { mailbox, credential, authority, endpoint, .. })
            | Self::Graph(Graph { mailbox, credential, authority, endpoint, .. }) => {
                (mailbox.as_str(), credential, authority, endpoint)
            }
            Self::SmtpRelay(_) | Self::DirectSend(_) => return None,
        };
        Some(LogInSettings { mailbox, credential, authority, endpoint })
    }

    /// The mailbox that is logged in as; none by the methods that need none.
    pub fn mailbox(&self) -> Option<&str> {
        self.log_in().map(|log_in| log_in.mailbox)
    }

    /// The name in metrics and logs, as `spec.method` has it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ClientSubmission(_) => "ClientSubmission",
            Self::SmtpRelay(_) => "SmtpRelay",
            Self::DirectSend(_) => "DirectSend",
            Self::Graph(_) => "Graph",
        }
    }
}

/// What the methods have in common that send as a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct LogInSettings<'a> {
    /// The mailbox.
    pub mailbox: &'a str,
    /// How the sidecar proves who it is.
    pub credential: &'a Credential,
    /// Where access tokens come from.
    pub authority: &'a Authority,
    /// Where mail is handed over.
    pub endpoint: &'a Endpoint,
}

/// Client SMTP submission: authenticate as a mailbox and submit for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSubmission {
    /// Which of Microsoft's services it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service: SubmissionService,
    /// Address of the mailbox that the application may send as; with Communication Services a sender address of a linked
    /// domain.
    pub mailbox: String,
    /// All mailboxes where the sender chooses among several; `mailbox` is the first of them. Empty: there is that one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<SendingMailbox>,
    /// A sender that several mailboxes serve is shared over all of them. Absent: the first of them has all its mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadFrom>,
    /// The name to log in with (`user=` of XOAUTH2, the user of AUTH LOGIN). Absent: the mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Exchange accepted domains. With High Volume Email, recipients outside them are refused at RCPT; the other services take
    /// any recipient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_domains: Vec<String>,
    /// How the sidecar proves who it is.
    pub credential: Credential,
    /// Where access tokens come from. Of no use to [`Credential::Password`].
    pub authority: Authority,
    /// Where mail is submitted.
    pub endpoint: Endpoint,
}

/// The service of Microsoft's that takes client submission. They share the protocol and differ in host, scope and limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SubmissionService {
    /// Exchange Online: a mailbox of the tenant, any recipient.
    #[default]
    ExchangeOnline,
    /// High Volume Email: an account without a mailbox, internal recipients only, no limit on the rate.
    HighVolumeEmail,
    /// Azure Communication Services Email: an SMTP username, any recipient, the limits of a subscription.
    CommunicationServices,
}

impl ClientSubmission {
    /// As a mailbox of Exchange Online.
    pub fn new(
        mailbox: impl Into<String>,
        credential: Credential,
        authority: Authority,
        endpoint: Endpoint,
    ) -> Self {
        Self {
            service: SubmissionService::ExchangeOnline,
            mailbox: mailbox.into(),
            mailboxes: vec![],
            spread: None,
            username: None,
            accepted_domains: vec![],
            credential,
            authority,
            endpoint,
        }
    }

    /// Whether it reaches recipients of the accepted domains alone.
    pub fn is_internal(&self) -> bool {
        self.service == SubmissionService::HighVolumeEmail && !self.accepted_domains.is_empty()
    }

    /// The name to log in with.
    pub fn username(&self) -> &str {
        self.username.as_deref().unwrap_or(&self.mailbox)
    }
}

/// Microsoft Graph: POST each message to the mailbox's `sendMail` in MIME format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Graph {
    /// User principal name or primary address of the mailbox to send as.
    pub mailbox: String,
    /// How the sidecar proves who it is; never a password.
    pub credential: Credential,
    /// Where access tokens come from, with Graph's scope.
    pub authority: Authority,
    /// Graph's own host, over HTTPS.
    pub endpoint: Endpoint,
    /// Largest message that Graph takes, bytes of MIME. Microsoft documents requests of about 4 MB, which hold 3 MiB of MIME in
    /// base64.
    pub max_message_bytes: u64,
    /// The fallback, for what Graph cannot carry. Absent: such messages are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Submission>,
}

/// Client submission of the same mailbox with the same credential, as the fallback of [`Graph`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Submission {
    /// Scope to ask the same authority for.
    pub scope: String,
    /// Where mail is submitted.
    pub endpoint: Endpoint,
}

impl Graph {
    /// The fallback as a method of its own.
    pub fn submission(&self) -> Option<ClientSubmission> {
        let Submission { scope, endpoint } = self.fallback.clone()?;
        let authority = Authority { scope, ..self.authority.clone() };
        Some(ClientSubmission::new(self.mailbox.as_str(), self.credential.clone(), authority, endpoint))
    }
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
