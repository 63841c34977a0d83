//! The sample: one tenant, `contoso.com`, with one application and one mailbox.
//!
//! Its secret is public and its certificate's key ships with the program: they open nothing but a simulator.

use std::collections::BTreeMap;

use super::{
    Application, BasicAuth, CertificateSource, ClientSecret, CommunicationServicesResource, Directory,
    FederatedCredential, HighVolumeEmailAccount, Issuer, Mailbox, RegisteredCertificate, SmtpUsername,
    Tenant, exchange_audience,
};
use crate::entra::KeySource;

/// Tenant of the sample directory.
pub const SAMPLE_TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

/// Application (client) id of the sample directory.
pub const SAMPLE_CLIENT_ID: &str = "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9";

/// Mailbox of the sample directory.
pub const SAMPLE_MAILBOX: &str = "noreply@contoso.com";

/// Kubernetes service account that the sample application trusts.
pub const SAMPLE_SUBJECT: &str = "system:serviceaccount:shop:default";

/// Client secret of the sample application. Its characters are those that real ones have.
pub const SAMPLE_SECRET: &str = "public-test~secret.of_the/simulator+only=";

/// Password of the account of High Volume Email, and of the sample mailbox, which it opens once the tenant's `basicAuth` is
/// `allowed`.
pub const SAMPLE_PASSWORD: &str = "public-test+password/of the simulator only";

/// Object id of the enterprise application behind [`SAMPLE_CLIENT_ID`].
const SAMPLE_OBJECT_ID: &str = "5d0c4a3e-8b1f-4c52-9d7a-6e2f10b9c874";

/// Account of High Volume Email of the sample directory.
pub const SAMPLE_BULK_ACCOUNT: &str = "bulk@contoso.com";

/// SMTP username of the Communication Services resource of the sample directory; the sample application is behind it.
pub const SAMPLE_SMTP_USERNAME: &str = "mailroute-smtp";

/// Sender address of that resource.
pub const SAMPLE_SERVICE_SENDER: &str = "donotreply@contoso.com";

impl Directory {
    /// The sample: one tenant, `contoso.com`, with the mailbox `noreply@contoso.com` and one application that trusts
    /// the stand-in issuer for the service account `default` of namespace `shop`, and has a client secret and a
    /// certificate besides.
    #[must_use]
    pub fn contoso() -> Self {
        Self { issuers: vec![Issuer::stand_in()], tenants: vec![Tenant::contoso()] }
    }
}

impl Issuer {
    /// The built-in issuer for computers without a cluster.
    #[must_use]
    pub fn stand_in() -> Self {
        Self {
            name: "stand-in".into(),
            issuer: Some(crate::stand_in::ISSUER.into()),
            keys: KeySource::StandIn,
        }
    }
}

impl Tenant {
    fn contoso() -> Self {
        Self {
            id: SAMPLE_TENANT.into(),
            name: "Contoso".into(),
            domains: vec!["contoso.com".into(), "contoso.onmicrosoft.com".into()],
            smtp_auth_disabled: false,
            basic_auth: BasicAuth::default(),
            exchange_online: true,
            blocked_by_conditional_access: false,
            applications: vec![Application::contoso()],
            mailboxes: vec![Mailbox::contoso()],
            high_volume_email_accounts: vec![HighVolumeEmailAccount {
                address: SAMPLE_BULK_ACCOUNT.into(),
                applications: vec![SAMPLE_OBJECT_ID.into()],
                password: Some(SAMPLE_PASSWORD.into()),
            }],
            communication_services: CommunicationServicesResource {
                usernames: vec![SmtpUsername {
                    username: SAMPLE_SMTP_USERNAME.into(),
                    client_id: SAMPLE_CLIENT_ID.into(),
                }],
                senders: vec![SAMPLE_SERVICE_SENDER.into()],
            },
            external_recipients_per_day: None,
            trial: false,
            recipients: vec!["alice@contoso.com".into(), "bob@contoso.com".into()],
            inbound_connectors: Vec::new(),
            reject_direct_send: false,
            mx_hosts: BTreeMap::new(),
        }
    }
}

impl Application {
    pub(super) fn contoso() -> Self {
        Self {
            client_id: SAMPLE_CLIENT_ID.into(),
            object_id: SAMPLE_OBJECT_ID.into(),
            name: "mailroute".into(),
            disabled: false,
            public_client: false,
            federated_credentials: vec![FederatedCredential {
                name: "shop-default".into(),
                issuer: "stand-in".into(),
                subject: SAMPLE_SUBJECT.into(),
                audience: exchange_audience(),
            }],
            client_secrets: vec![ClientSecret {
                name: "sample".into(),
                value: SAMPLE_SECRET.into(),
                expires: None,
            }],
            certificates: vec![RegisteredCertificate {
                name: "sample".into(),
                certificate: CertificateSource::StandIn,
            }],
            send_as_app: true,
            mailboxes: vec![SAMPLE_MAILBOX.into()],
            role_scope: Vec::new(),
            graph_mail_send: false,
            graph_scope: vec![SAMPLE_MAILBOX.into()],
            exchange_mail_send: true,
        }
    }
}

impl Mailbox {
    pub(super) fn contoso() -> Self {
        Self {
            address: SAMPLE_MAILBOX.into(),
            aliases: vec!["no-reply@contoso.com".into()],
            password: Some(SAMPLE_PASSWORD.into()),
            smtp_auth_disabled: None,
            send_as: vec!["alerts@contoso.com".into()],
            recipient_limit: None,
            max_send_bytes: None,
            inactive: false,
        }
    }
}
