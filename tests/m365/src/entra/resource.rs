//! What an access token can be for, and what it says of the application's permissions there.
//!
//! Pure.

use crate::{config::Config, directory::Application};

/// A service that tokens are issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Client submission.
    Submission,
    /// Microsoft Graph.
    Graph,
    /// High Volume Email; to Entra the same Office 365 Exchange Online, under another name.
    HighVolumeEmail,
    /// Azure Communication Services.
    CommunicationServices,
}

impl Resource {
    const ALL: [Self; 4] =
        [Self::Submission, Self::Graph, Self::HighVolumeEmail, Self::CommunicationServices];

    /// The resource of this name.
    #[must_use]
    pub fn named(config: &Config, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name(config) == name)
    }

    /// Its name: the scope without `/.default`, and the audience of its tokens.
    #[must_use]
    pub fn name(self, config: &Config) -> &str {
        match self {
            Self::Submission => &config.tokens.resource,
            Self::Graph => &config.graph.resource,
            Self::HighVolumeEmail => &config.high_volume_email.resource,
            Self::CommunicationServices => &config.communication_services.resource,
        }
    }

    /// Whether it is unknown in a tenant without Exchange Online.
    #[must_use]
    pub fn is_exchange(self) -> bool {
        matches!(self, Self::Submission | Self::HighVolumeEmail)
    }

    /// The application's permissions there, as its tokens have them.
    #[must_use]
    pub fn roles(self, app: &Application) -> Vec<String> {
        let all = match self {
            Self::Submission | Self::HighVolumeEmail => {
                vec![("SMTP.SendAsApp", app.send_as_app), ("Mail.Send", app.exchange_mail_send)]
            }
            Self::Graph => vec![("Mail.Send", app.graph_mail_send)],
            Self::CommunicationServices => Vec::new(),
        };
        all.into_iter().filter(|(_, granted)| *granted).map(|(role, _)| role.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_its_name_and_its_permissions() {
        let config = Config::contoso();
        let app = &mut config.directory.tenants[0].applications[0].clone();
        let roles = |name: &str, app: &Application| {
            Resource::named(&config, name).map(|resource| resource.roles(app).join(" "))
        };
        let exchange = Some("SMTP.SendAsApp Mail.Send".to_owned());
        assert_eq!(roles("https://outlook.office365.com", app), exchange);
        assert_eq!(roles("https://outlook.office.com", app), exchange);
        assert_eq!(roles("https://communication.azure.com", app).as_deref(), Some(""));
        assert_eq!(roles("https://graph.microsoft.com", app).as_deref(), Some(""));
        app.graph_mail_send = true;
        assert_eq!(roles("https://graph.microsoft.com", app).as_deref(), Some("Mail.Send"));
        assert_eq!(roles("https://vault.azure.net", app), None);
    }
}
