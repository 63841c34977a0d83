//! A customer: its domains, switches and mailboxes, and the look-ups over them.
//!
//! Plain data. It refuses to know tokens, SMTP and time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Application, CommunicationServicesResource, Hidden, HighVolumeEmailAccount, InboundConnector, covers,
};

/// One customer: an Entra tenant and its Exchange Online organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Tenant (directory) id, a GUID.
    pub id: String,
    /// Display name, as error texts show it.
    pub name: String,
    /// Verified domains; any of them names the tenant in a token address. The first is the default one.
    pub domains: Vec<String>,
    /// `Set-TransportConfig -SmtpClientAuthenticationDisabled`.
    #[serde(default)]
    pub smtp_auth_disabled: bool,
    /// What becomes of AUTH LOGIN.
    #[serde(default)]
    pub basic_auth: BasicAuth,
    /// Whether the tenant has Exchange Online; without it the scope is unknown: AADSTS500011.
    #[serde(default = "super::yes")]
    pub exchange_online: bool,
    /// A Conditional Access policy refuses every application: AADSTS53003.
    #[serde(default)]
    pub blocked_by_conditional_access: bool,
    /// App registrations with their service principals.
    #[serde(default)]
    pub applications: Vec<Application>,
    /// Mailboxes.
    #[serde(default)]
    pub mailboxes: Vec<Mailbox>,
    /// Accounts of High Volume Email.
    #[serde(default)]
    pub high_volume_email_accounts: Vec<HighVolumeEmailAccount>,
    /// Its Communication Services resource.
    #[serde(default)]
    pub communication_services: CommunicationServicesResource,
    /// External recipients of all its senders in any 24 hours (TERRL), which Microsoft derives from its licences; absent is
    /// no limit, and no count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_recipients_per_day: Option<u64>,
    /// It is a trial: above that limit the reply is 5.7.232 instead of 5.7.233.
    #[serde(default)]
    pub trial: bool,
    /// Further recipients that exist in the tenant, beside its mailboxes and their aliases; `*@domain` is everybody.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Inbound connectors of type OnPremises.
    #[serde(default)]
    pub inbound_connectors: Vec<InboundConnector>,
    /// `Set-OrganizationConfig -RejectDirectSend`.
    #[serde(default)]
    pub reject_direct_send: bool,
    /// MX host of an accepted domain where it is not `<domain-with-dashes>.mail.protection.outlook.com`, as for domains
    /// that were added after July 2026.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mx_hosts: BTreeMap<String, String>,
}

/// What a tenant does with passwords at client submission. Source: Exchange, "Exchange Online to retire Basic auth for
/// Client Submission": on until December 2026, then off by default, later gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BasicAuth {
    /// A password is checked.
    Allowed,
    /// Switched off: 535 5.7.139.
    #[default]
    Disabled,
    /// Not supported any more: 550 5.7.30.
    Removed,
    /// Security defaults or an authentication policy refuse it: 535 5.7.139 of another text.
    SecurityDefaults,
}

/// An Exchange Online mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mailbox {
    /// Primary SMTP address; the name that XOAUTH2 logs in with.
    pub address: String,
    /// Further addresses of the same mailbox, allowed as sender.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Password for AUTH LOGIN; without one no password is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Hidden>,
    /// `Set-CASMailbox -SmtpClientAuthenticationDisabled`; absent inherits the tenant's switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_auth_disabled: Option<bool>,
    /// Other addresses this login may send as (`Add-RecipientPermission -AccessRights SendAs`).
    #[serde(default)]
    pub send_as: Vec<String>,
    /// `Set-Mailbox -RecipientLimits`, 1 to 1000; absent takes the general limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_limit: Option<usize>,
    /// `Set-Mailbox -MaxSendSize` in bytes; absent takes the general limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_send_bytes: Option<usize>,
    /// It is soft-deleted, inactive or on-premises: Graph answers `MailboxNotEnabledForRESTAPI`, and no login is right.
    #[serde(default)]
    pub inactive: bool,
}

impl Tenant {
    /// Whether this id or verified domain names the tenant.
    #[must_use]
    pub fn is_called(&self, id_or_domain: &str) -> bool {
        self.id.eq_ignore_ascii_case(id_or_domain)
            || self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(id_or_domain))
    }

    /// The application with this client id.
    #[must_use]
    pub fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.iter().find(|app| app.client_id.eq_ignore_ascii_case(client_id))
    }

    /// The mailbox with this primary address.
    #[must_use]
    pub fn mailbox(&self, address: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|mailbox| mailbox.address.eq_ignore_ascii_case(address))
    }

    /// Whether it is an accepted domain. Never for the empty one.
    #[must_use]
    pub fn accepts_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|accepted| accepted.eq_ignore_ascii_case(domain))
    }

    /// Whether a host or wildcard name is an accepted domain or under one.
    #[must_use]
    pub fn accepts_domain_of_host(&self, name: &str) -> bool {
        let name = name.strip_prefix("*.").unwrap_or(name);
        self.domains
            .iter()
            .any(|accepted| accepted.eq_ignore_ascii_case(name) || covers(&format!("*.{accepted}"), name))
    }

    /// Whether mail to this address of an accepted domain reaches somebody.
    #[must_use]
    pub fn has_recipient(&self, address: &str) -> bool {
        let mailboxes = self
            .mailboxes
            .iter()
            .flat_map(|mailbox| std::iter::once(&mailbox.address).chain(&mailbox.aliases));
        mailboxes.chain(&self.recipients).any(|known| match known.strip_prefix('*') {
            Some(domain) => address.to_ascii_lowercase().ends_with(&domain.to_ascii_lowercase()),
            None => known.eq_ignore_ascii_case(address),
        })
    }

    /// The MX host of an accepted domain.
    #[must_use]
    pub fn mx_host(&self, domain: &str) -> String {
        let given = self.mx_hosts.iter().find(|(known, _)| known.eq_ignore_ascii_case(domain));
        given.map_or_else(
            || format!("{}.mail.protection.outlook.com", domain.to_ascii_lowercase().replace('.', "-")),
            |(_, host)| host.clone(),
        )
    }

    /// The account of High Volume Email with this address.
    #[must_use]
    pub fn high_volume_email_account(&self, address: &str) -> Option<&HighVolumeEmailAccount> {
        self.high_volume_email_accounts.iter().find(|account| account.address.eq_ignore_ascii_case(address))
    }

    pub(super) fn collect_faults(&self, faults: &mut Vec<String>) {
        if self.domains.is_empty() {
            faults.push(format!("tenant {} needs at least one entry in `domains`", self.id));
        }
        faults.extend(self.inbound_connectors.iter().flat_map(InboundConnector::faults));
        for domain in self.mx_hosts.keys().filter(|domain| !self.accepts_domain(domain)) {
            faults.push(format!("`mxHosts` names {domain}, which is no domain of tenant {}", self.id));
        }
        for account in
            self.high_volume_email_accounts.iter().filter(|account| account.applications.len() > 10)
        {
            faults.push(format!("account {} has more than 10 applications", account.address));
        }
        for username in &self.communication_services.usernames {
            if self.application(&username.client_id).is_none() {
                faults.push(format!(
                    "SMTP username {:?} is of {}, which is no application of tenant {}",
                    username.username, username.client_id, self.id
                ));
            }
        }
        for app in &self.applications {
            // Entra's own limit on federated credentials of one application.
            if app.federated_credentials.len() > 20 {
                faults.push(format!("application {} has more than 20 federated credentials", app.client_id));
            }
            for certificate in &app.certificates {
                if let Err(error) = certificate.read() {
                    faults.push(format!(
                        "certificate {:?} of application {}: {error}",
                        certificate.name, app.client_id
                    ));
                }
            }
            let granted = app.mailboxes.iter().chain(&app.role_scope).chain(&app.graph_scope);
            for granted in granted.filter(|address| self.mailbox(address).is_none()) {
                faults.push(format!(
                    "application {} is granted {granted}, which is no mailbox of tenant {}",
                    app.client_id, self.id
                ));
            }
        }
    }
}

impl Mailbox {
    /// Whether a login to this mailbox may use `address` as sender.
    #[must_use]
    pub fn may_send_as(&self, address: &str) -> bool {
        std::iter::once(&self.address)
            .chain(&self.aliases)
            .chain(&self.send_as)
            .any(|allowed| allowed.eq_ignore_ascii_case(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;

    #[test]
    fn sender_may_be_the_mailbox_an_alias_or_a_send_as_grant() {
        let mailbox = Mailbox::contoso();
        for allowed in ["noreply@contoso.com", "no-reply@contoso.com", "Alerts@Contoso.com"] {
            assert!(mailbox.may_send_as(allowed), "{allowed}");
        }
        assert!(!mailbox.may_send_as("ceo@contoso.com"));
    }

    #[test]
    fn a_host_is_under_an_accepted_domain_or_is_one() {
        let tenant = &Directory::contoso().tenants[0];
        for name in ["contoso.com", "mail.contoso.com", "*.contoso.com", "a.b.Contoso.com"] {
            assert!(tenant.accepts_domain_of_host(name), "{name}");
        }
        for name in ["", "com", "mailcontoso.com", "contoso.com.evil.example", "*.com"] {
            assert!(!tenant.accepts_domain_of_host(name), "{name}");
        }
    }

    #[test]
    fn the_mx_host_has_dashes_or_is_given() {
        let mut tenant = Directory::contoso().tenants.remove(0);
        assert_eq!(tenant.mx_host("Contoso.com"), "contoso-com.mail.protection.outlook.com");
        tenant.mx_hosts.insert("contoso.com".into(), "contoso-com.o-v1.mx.microsoft".into());
        assert_eq!(tenant.mx_host("contoso.com"), "contoso-com.o-v1.mx.microsoft");
    }

    #[test]
    fn a_recipient_is_a_mailbox_an_alias_or_listed() {
        let mut tenant = Directory::contoso().tenants.remove(0);
        for known in ["NoReply@contoso.com", "no-reply@contoso.com", "alice@contoso.com"] {
            assert!(tenant.has_recipient(known), "{known}");
        }
        assert!(!tenant.has_recipient("ghost@contoso.com"));
        tenant.recipients.push("*@contoso.onmicrosoft.com".into());
        assert!(tenant.has_recipient("ghost@contoso.onmicrosoft.com"));
    }
}
