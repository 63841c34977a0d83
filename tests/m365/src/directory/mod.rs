//! Who exists: the tenants, their applications and mailboxes, and the issuers that applications trust.
//!
//! Owns the shape an administrator would set up in Entra and Exchange Online, and the look-ups over it. It refuses to
//! know tokens, SMTP and time. Addresses, domains and GUIDs compare without regard to ASCII case, as Microsoft's do;
//! issuer, subject and audience of a federated credential compare exactly.

mod connectors;
mod credentials;
mod sample;
mod services;
mod tenant;

use serde::{Deserialize, Serialize};

use crate::entra::KeySource;

pub use connectors::{InboundConnector, Network, NetworkError, covers};
pub use credentials::{CertificateSource, ClientSecret, Hidden, RegisteredCertificate};
pub use sample::{
    SAMPLE_BULK_ACCOUNT, SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_PASSWORD, SAMPLE_SECRET,
    SAMPLE_SERVICE_SENDER, SAMPLE_SMTP_USERNAME, SAMPLE_SUBJECT, SAMPLE_TENANT,
};
pub use services::{CommunicationServicesResource, HighVolumeEmailAccount, SmtpUsername};
pub use tenant::{BasicAuth, Mailbox, Tenant};

/// Audience of an assertion that Entra exchanges.
/// Source: Microsoft Entra, "Configure an app to trust an external identity provider".
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Everything Microsoft 365 knows about its customers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// Issuers whose keys can be fetched. An issuer that is not listed cannot be reached: AADSTS90061.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// The tenants.
    pub tenants: Vec<Tenant>,
}

/// An OpenID Connect issuer and where its keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// Short name, by which a federated credential may refer to this issuer when its address is only known at run
    /// time (a cluster's own issuer).
    pub name: String,
    /// The exact `iss` of its tokens, trailing slash included. Left out when `keys` is a discovery document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where its signing keys come from.
    pub keys: KeySource,
}

/// An app registration, its enterprise application, and what Exchange Online lets it do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Application {
    /// Application (client) id, a GUID.
    pub client_id: String,
    /// Object id of the enterprise application (service principal), a GUID.
    pub object_id: String,
    /// Display name.
    pub name: String,
    /// The service principal is disabled: AADSTS7000112.
    #[serde(default)]
    pub disabled: bool,
    /// It is registered as a public client, which must present no credential: AADSTS700025.
    #[serde(default)]
    pub public_client: bool,
    /// Trusts in external issuers, at most 20.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
    /// Client secrets.
    #[serde(default)]
    pub client_secrets: Vec<ClientSecret>,
    /// Certificates with which the application signs its own assertions.
    #[serde(default)]
    pub certificates: Vec<RegisteredCertificate>,
    /// Whether its tokens have the application permission `SMTP.SendAsApp`, with consent. Exchange then asks for the
    /// permission on the mailbox, whatever roles there are.
    #[serde(default = "yes")]
    pub send_as_app: bool,
    /// Mailboxes that the service principal was granted: `Add-MailboxPermission`.
    #[serde(default)]
    pub mailboxes: Vec<String>,
    /// Mailboxes in the scope of its Exchange role `Application SMTP.SendAsApp` (RBAC for Applications), which is for
    /// applications without the permission of that name.
    #[serde(default)]
    pub role_scope: Vec<String>,
    /// Whether its tokens for Graph have the application permission `Mail.Send`, with consent: it may send as every mailbox.
    #[serde(default)]
    pub graph_mail_send: bool,
    /// Mailboxes in the scope of its Exchange role `Application Mail.Send` (RBAC for Applications).
    #[serde(default)]
    pub graph_scope: Vec<String>,
    /// Whether its tokens for Exchange have the application permission `Mail.Send` of Office 365 Exchange Online, with
    /// consent, which High Volume Email asks for.
    #[serde(default)]
    pub exchange_mail_send: bool,
}

/// A trust: tokens of this issuer, subject and audience may act as the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCredential {
    /// Its name within the application.
    pub name: String,
    /// Exact `iss`, or the short name of an [`Issuer`].
    pub issuer: String,
    /// Exact `sub`, for Kubernetes `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Exact `aud`.
    #[serde(default = "exchange_audience")]
    pub audience: String,
}

impl Directory {
    /// The tenant with this id or verified domain.
    #[must_use]
    pub fn tenant(&self, id_or_domain: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.is_called(id_or_domain))
    }

    /// The mailbox with this primary address, and its tenant.
    #[must_use]
    pub fn mailbox(&self, address: &str) -> Option<(&Tenant, &Mailbox)> {
        self.tenants.iter().find_map(|tenant| Some((tenant, tenant.mailbox(address)?)))
    }

    /// The tenant whose accepted domain this is.
    #[must_use]
    pub fn tenant_of_domain(&self, domain: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.accepts_domain(domain))
    }

    /// What is wrong with the directory, each finding a sentence. Empty means that it can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for issuer in &self.issuers {
            if issuer.issuer.is_none() && !issuer.keys.names_its_issuer() {
                faults.push(format!("issuer {:?} needs the field `issuer`", issuer.name));
            }
        }
        for tenant in &self.tenants {
            tenant.collect_faults(&mut faults);
        }
        faults
    }
}

impl Application {
    /// Whether Exchange Online lets this application log in to the mailbox. Source: Microsoft, "SMTP Onboarding to App RBAC
    /// Overview".
    #[must_use]
    pub fn may_open(&self, mailbox: &Mailbox) -> bool {
        let granted = if self.send_as_app { &self.mailboxes } else { &self.role_scope };
        granted.iter().any(|address| address.eq_ignore_ascii_case(&mailbox.address))
    }

    /// Whether the mailbox of this address is in the scope of the role `Application Mail.Send`.
    #[must_use]
    pub fn may_send_by_graph(&self, address: &str) -> bool {
        self.graph_scope.iter().any(|known| known.eq_ignore_ascii_case(address))
    }
}

fn yes() -> bool {
    true
}

fn exchange_audience() -> String {
    EXCHANGE_AUDIENCE.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_found_by_id_and_by_domain_in_any_case() {
        let directory = Directory::contoso();
        assert!(directory.tenant(&SAMPLE_TENANT.to_uppercase()).is_some());
        assert!(directory.tenant("Contoso.COM").is_some());
        assert!(directory.tenant("fabrikam.com").is_none());
    }

    #[test]
    fn only_the_primary_address_names_a_mailbox() {
        let directory = Directory::contoso();
        assert!(directory.mailbox("NoReply@contoso.com").is_some());
        assert!(directory.mailbox("no-reply@contoso.com").is_none());
    }

    #[test]
    fn a_grant_for_a_missing_mailbox_is_a_fault() {
        let mut directory = Directory::contoso();
        assert_eq!(directory.faults(), Vec::<String>::new());
        directory.tenants[0].applications[0].mailboxes.push("ghost@contoso.com".into());
        assert!(directory.faults()[0].contains("ghost@contoso.com"));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_a_fault() {
        let mut directory = Directory::contoso();
        directory.tenants[0].applications[0].certificates[0].certificate =
            CertificateSource::Pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into());
        assert!(directory.faults()[0].contains("certificate \"sample\""), "{:?}", directory.faults());
    }

    #[test]
    fn an_application_needs_the_permission_and_the_grant_or_the_role_alone() {
        let mut app = Application::contoso();
        let mailbox = Mailbox::contoso();
        assert!(app.may_open(&mailbox));
        app.send_as_app = false;
        assert!(!app.may_open(&mailbox));
        app.role_scope = vec![mailbox.address.to_uppercase()];
        assert!(app.may_open(&mailbox));
        app.mailboxes.clear();
        assert!(app.may_open(&mailbox));
        app.send_as_app = true;
        assert!(!app.may_open(&mailbox), "with the permission, the grant is asked for");
    }
}
