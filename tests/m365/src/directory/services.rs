//! What an administrator sets up beside mailboxes: accounts of High Volume Email, and a Communication Services resource.
//!
//! Plain data with its look-ups. Sources: Exchange, `New-MailUser -HVEAccount` and `Add-HVEAppAccess`; Azure,
//! `Microsoft.Communication/communicationServices/smtpUsernames`.

use serde::{Deserialize, Serialize};

use super::{Application, Hidden};

/// An account of High Volume Email: a mail user without a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HighVolumeEmailAccount {
    /// Its primary address: the name that it logs in with, and the only sender that it may use.
    pub address: String,
    /// Object ids of the enterprise applications that may use it (`Add-HVEAppAccess -AppIds`), at most 10.
    #[serde(default)]
    pub applications: Vec<String>,
    /// Password for AUTH LOGIN; without one no password is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Hidden>,
}

/// A Communication Services resource with linked mail domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CommunicationServicesResource {
    /// Its SMTP usernames.
    pub usernames: Vec<SmtpUsername>,
    /// Sender addresses of the domains that are linked to it.
    pub senders: Vec<String>,
}

/// An SMTP username of a Communication Services resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmtpUsername {
    /// An address or any other text.
    pub username: String,
    /// Client id of the application behind it.
    pub client_id: String,
}

impl HighVolumeEmailAccount {
    /// Whether the application is on the account's list.
    #[must_use]
    pub fn admits(&self, app: &Application) -> bool {
        self.applications.iter().any(|listed| listed.eq_ignore_ascii_case(&app.object_id))
    }
}

impl CommunicationServicesResource {
    /// The username that is written so, in any case.
    #[must_use]
    pub fn username(&self, name: &str) -> Option<&SmtpUsername> {
        self.usernames.iter().find(|known| known.username.eq_ignore_ascii_case(name))
    }

    /// Whether the address is a sender of a linked domain.
    #[must_use]
    pub fn has_sender(&self, address: &str) -> bool {
        self.senders.iter().any(|known| known.eq_ignore_ascii_case(address))
    }
}
