//! Whose mail it is: the tenant and connector behind a connection and its MAIL FROM, and what that permits at RCPT.
//!
//! Pure. The order is Exchange's: a connector by the certificate's domain, then one by address; without one the
//! recipient's tenant takes the mail as it would from anybody (Direct Send). Sources: Exchange, "Important notice for
//! users who relay mail", `Set-OrganizationConfig -RejectDirectSend`, and non-delivery reports 5.7.64, 5.7.68 and 5.4.1.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::PresentedCertificate;
use crate::{
    config::{Config, ForeignRecipient},
    directory::{Directory, InboundConnector, Tenant},
    replies::Line,
};

/// How a message was attributed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attribution {
    /// Tenant id.
    pub tenant: String,
    /// By what.
    pub by: By,
    /// The connector that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
}

/// By what a message was attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// A login with a mailbox (client submission).
    Login,
    /// A connector by the name in the client's certificate.
    Certificate,
    /// A connector by the client's address.
    Address,
    /// No connector: the recipients' own tenant takes it (Direct Send).
    Recipient,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Address of the client; absent when it is not known.
    pub address: Option<IpAddr>,
    /// What it presented in the handshake.
    pub certificate: Option<&'a PresentedCertificate>,
    /// Whether the conversation is inside TLS.
    pub is_secure: bool,
}

/// The connector that a connection and its sender match. `sender` is the domain of MAIL FROM, empty for `<>`.
#[must_use]
pub fn attribute(directory: &Directory, origin: Origin<'_>, sender: &str) -> Option<Attribution> {
    by_certificate(directory, origin, sender).or_else(|| by_address(directory, origin, sender))
}

/// Whether this recipient is taken.
///
/// # Errors
/// The line that refuses it.
pub fn admit(
    config: &Config,
    attribution: Option<&Attribution>,
    origin: Origin<'_>,
    sender: &str,
    recipient: &str,
) -> Result<(), Line> {
    let listed = |networks: &[crate::directory::Network]| {
        origin.address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
    };
    if listed(&config.relay.banned_addresses) {
        return Err(Line::BannedAddress);
    }
    if attribution.is_none() && listed(&config.relay.busy_addresses) {
        return Err(Line::ServerBusy);
    }
    let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
    match config.directory.tenant_of_domain(domain) {
        Some(host) if attribution.is_none() && host.reject_direct_send && host.accepts_domain(sender) => {
            Err(Line::DirectSendRejected)
        }
        Some(host) if !host.has_recipient(recipient) => Err(Line::RecipientRejected),
        Some(_) => Ok(()),
        None if attribution.is_some() => Ok(()),
        None => Err(match config.relay.foreign_recipient {
            ForeignRecipient::RelayAccessDenied => Line::RelayAccessDenied,
            ForeignRecipient::RecipientRejected => Line::RecipientRejected,
        }),
    }
}

fn by_certificate(directory: &Directory, origin: Origin<'_>, sender: &str) -> Option<Attribution> {
    let certificate = origin.certificate.filter(|certificate| certificate.distrusted.is_none())?;
    let matches = |tenant: &Tenant, connector: &InboundConnector| {
        let ours = tenant.accepts_domain(sender)
            || certificate.names.iter().any(|name| tenant.accepts_domain_of_host(name));
        ours && connector.expects_one_of(&certificate.names)
    };
    found(directory, origin, sender, By::Certificate, matches)
}

/// The null sender is nobody's, so only a certificate can tell whose it is.
fn by_address(directory: &Directory, origin: Origin<'_>, sender: &str) -> Option<Attribution> {
    let address = origin.address?;
    let matches = |tenant: &Tenant, connector: &InboundConnector| {
        tenant.accepts_domain(sender) && connector.expects_address(address)
    };
    found(directory, origin, sender, By::Address, matches)
}

fn found(
    directory: &Directory,
    origin: Origin<'_>,
    sender: &str,
    by: By,
    matches: impl Fn(&Tenant, &InboundConnector) -> bool,
) -> Option<Attribution> {
    let usable = |connector: &&InboundConnector| {
        connector.enabled
            && (origin.is_secure || !connector.require_tls)
            && (sender.is_empty() || connector.is_for_domain(sender))
    };
    directory.tenants.iter().find_map(|tenant| {
        let mut connectors = tenant.inbound_connectors.iter().filter(usable);
        let connector = connectors.find(|connector| matches(tenant, connector))?;
        Some(Attribution { tenant: tenant.id.clone(), by, connector: Some(connector.name.clone()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(connectors: &str) -> Config {
        let mut config = Config::contoso();
        config.directory.tenants[0].inbound_connectors = serde_json::from_str(connectors).unwrap();
        config
    }

    const BY_CERTIFICATE: &str = r#"[{"name": "tls", "tlsSenderCertificateName": "*.contoso.com"}]"#;
    const BY_ADDRESS: &str = r#"[{"name": "ip", "senderIPAddresses": ["192.0.2.0/24"]}]"#;

    fn certificate(name: &str) -> PresentedCertificate {
        PresentedCertificate { names: vec![name.into()], ..PresentedCertificate::default() }
    }

    fn origin<'a>(address: &str, certificate: Option<&'a PresentedCertificate>) -> Origin<'a> {
        Origin { address: address.parse().ok(), certificate, is_secure: true }
    }

    fn connector(config: &Config, origin: Origin<'_>, sender: &str) -> Option<String> {
        attribute(&config.directory, origin, sender).and_then(|attribution| attribution.connector)
    }

    fn rcpt(config: &Config, origin: Origin<'_>, sender: &str, recipient: &str) -> Option<Line> {
        let attribution = attribute(&config.directory, origin, sender);
        admit(config, attribution.as_ref(), origin, sender, recipient).err()
    }

    #[test]
    fn a_trusted_certificate_of_an_accepted_domain_matches_its_connector() {
        let config = config(BY_CERTIFICATE);
        let ours = certificate("mail.contoso.com");
        assert_eq!(
            connector(&config, origin("203.0.113.1", Some(&ours)), "contoso.com").as_deref(),
            Some("tls")
        );
        assert_eq!(connector(&config, origin("203.0.113.1", Some(&ours)), "").as_deref(), Some("tls"));
        let wildcard = certificate("*.contoso.com");
        assert!(connector(&config, origin("203.0.113.1", Some(&wildcard)), "contoso.com").is_some());
        for name in ["mail.fabrikam.com", "contoso.com"] {
            let other = certificate(name);
            assert_eq!(
                connector(&config, origin("203.0.113.1", Some(&other)), "contoso.com"),
                None,
                "{name}"
            );
        }
        let distrusted = PresentedCertificate { distrusted: Some("x".into()), ..ours };
        assert_eq!(connector(&config, origin("203.0.113.1", Some(&distrusted)), "contoso.com"), None);
        assert_eq!(connector(&config, origin("203.0.113.1", None), "contoso.com"), None);
    }

    #[test]
    fn an_address_matches_its_connector_for_senders_of_accepted_domains() {
        let config = config(BY_ADDRESS);
        assert_eq!(connector(&config, origin("192.0.2.9", None), "contoso.com").as_deref(), Some("ip"));
        assert_eq!(connector(&config, origin("192.0.2.9", None), "fabrikam.com"), None);
        assert_eq!(connector(&config, origin("192.0.2.9", None), ""), None, "the null sender is nobody's");
        assert_eq!(connector(&config, origin("192.0.3.9", None), "contoso.com"), None);
    }

    #[test]
    fn a_connector_that_is_disabled_or_wants_tls_or_other_domains_matches_nothing() {
        let mut config = config(BY_ADDRESS);
        let here = origin("192.0.2.9", None);
        let set = |config: &mut Config, change: &dyn Fn(&mut InboundConnector)| {
            change(&mut config.directory.tenants[0].inbound_connectors[0]);
        };
        set(&mut config, &|connector| connector.enabled = false);
        assert_eq!(connector(&config, here, "contoso.com"), None);
        set(&mut config, &|connector| (connector.enabled, connector.require_tls) = (true, true));
        assert!(connector(&config, here, "contoso.com").is_some());
        assert_eq!(connector(&config, Origin { is_secure: false, ..here }, "contoso.com"), None);
        set(&mut config, &|connector| connector.sender_domains = vec!["contoso.onmicrosoft.com".into()]);
        assert_eq!(connector(&config, here, "contoso.com"), None);
    }

    #[test]
    fn with_a_connector_anybody_is_a_recipient_but_not_an_unknown_one_at_home() {
        let config = config(BY_ADDRESS);
        let here = origin("192.0.2.9", None);
        assert_eq!(rcpt(&config, here, "contoso.com", "bob@example.com"), None);
        assert_eq!(rcpt(&config, here, "contoso.com", "alice@contoso.com"), None);
        assert_eq!(rcpt(&config, here, "contoso.com", "ghost@contoso.com"), Some(Line::RecipientRejected));
    }

    #[test]
    fn without_a_connector_only_recipients_at_home_are_taken() {
        let mut config = config("[]");
        let here = origin("192.0.2.9", None);
        assert_eq!(rcpt(&config, here, "contoso.com", "alice@contoso.com"), None);
        assert_eq!(rcpt(&config, here, "fabrikam.com", "alice@contoso.com"), None);
        assert_eq!(rcpt(&config, here, "contoso.com", "ghost@contoso.com"), Some(Line::RecipientRejected));
        assert_eq!(rcpt(&config, here, "contoso.com", "bob@example.com"), Some(Line::RelayAccessDenied));
        config.relay.foreign_recipient = ForeignRecipient::RecipientRejected;
        assert_eq!(rcpt(&config, here, "contoso.com", "bob@example.com"), Some(Line::RecipientRejected));
    }

    #[test]
    fn direct_send_may_be_rejected_for_senders_of_the_tenant_alone() {
        let mut config = config("[]");
        config.directory.tenants[0].reject_direct_send = true;
        let here = origin("192.0.2.9", None);
        assert_eq!(rcpt(&config, here, "contoso.com", "alice@contoso.com"), Some(Line::DirectSendRejected));
        assert_eq!(rcpt(&config, here, "fabrikam.com", "alice@contoso.com"), None);
    }

    #[test]
    fn a_banned_address_is_refused_always_and_a_busy_one_unless_a_connector_matches() {
        let mut config = config(BY_ADDRESS);
        config.relay.busy_addresses = vec!["192.0.2.0/24".parse().unwrap(), "203.0.113.5".parse().unwrap()];
        let recipient = "alice@contoso.com";
        assert_eq!(rcpt(&config, origin("192.0.2.9", None), "contoso.com", recipient), None);
        assert_eq!(
            rcpt(&config, origin("203.0.113.5", None), "contoso.com", recipient),
            Some(Line::ServerBusy)
        );
        config.relay.banned_addresses = vec!["192.0.2.9".parse().unwrap()];
        assert_eq!(
            rcpt(&config, origin("192.0.2.9", None), "contoso.com", recipient),
            Some(Line::BannedAddress)
        );
    }
}
