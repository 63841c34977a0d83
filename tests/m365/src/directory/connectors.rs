//! Inbound connectors, and the networks that they name.
//!
//! Plain data with its look-ups. It refuses to know SMTP. Source: Exchange, `New-InboundConnector`.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `New-InboundConnector -ConnectorType OnPremises`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InboundConnector {
    /// Its name.
    pub name: String,
    /// `-Enabled`.
    #[serde(default = "super::yes")]
    pub enabled: bool,
    /// `-SenderDomains`; `*` stands for all.
    #[serde(default = "all_domains")]
    pub sender_domains: Vec<String>,
    /// `-TlsSenderCertificateName`: a domain, or `*.` and a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_sender_certificate_name: Option<String>,
    /// `-SenderIPAddresses`.
    #[serde(default, rename = "senderIPAddresses")]
    pub sender_ip_addresses: Vec<Network>,
    /// `-RequireTls`: without TLS it matches nothing.
    #[serde(default)]
    pub require_tls: bool,
}

/// An address, or all addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no address and no address/bits")]
pub struct NetworkError(String);

impl InboundConnector {
    /// Whether the certificate names what the connector expects.
    #[must_use]
    pub fn expects_one_of(&self, names: &[String]) -> bool {
        let Some(expected) = &self.tls_sender_certificate_name else { return false };
        names.iter().any(|name| covers(expected, name) || covers(name, expected))
    }

    /// Whether the connector is for this address.
    #[must_use]
    pub fn expects_address(&self, address: IpAddr) -> bool {
        self.sender_ip_addresses.iter().any(|network| network.contains(address))
    }

    /// Whether the connector is for senders of this domain.
    #[must_use]
    pub fn is_for_domain(&self, domain: &str) -> bool {
        self.sender_domains.iter().any(|known| known == "*" || covers(known, domain))
    }

    /// What is wrong with it, each finding a sentence.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.tls_sender_certificate_name.is_none() == self.sender_ip_addresses.is_empty() {
            faults.push(format!(
                "connector {:?} needs either `tlsSenderCertificateName` or `senderIPAddresses`",
                self.name
            ));
        }
        for network in self.sender_ip_addresses.iter().filter(|network| !network.is_for_connectors()) {
            faults.push(format!(
                "connector {:?}: {network} is not an IPv4 address or a network of /24 to /32",
                self.name
            ));
        }
        faults
    }
}

impl Network {
    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                mine.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                mine.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }

    /// Connectors take IPv4 only, single addresses or /24 to /32.
    fn is_for_connectors(&self) -> bool {
        self.address.is_ipv4() && self.bits >= 24
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = || NetworkError(text.to_owned());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if bits > most { Err(bad()) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Whether `pattern` is `name`, or is `*.` and a domain that `name` is under.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    if let Some(domain) = pattern.strip_prefix("*.") {
        let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
        return name.strip_suffix(&domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
    }
    pattern.eq_ignore_ascii_case(name)
}

fn all_domains() -> Vec<String> {
    vec!["*".into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_the_addresses_with_its_bits() {
        assert!(network("192.0.2.0/24").contains("192.0.2.255".parse().unwrap()));
        assert!(!network("192.0.2.0/24").contains("192.0.3.0".parse().unwrap()));
        assert!(network("192.0.2.7").contains("::ffff:192.0.2.7".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(network("2001:db8::/32").contains("2001:db8:1::1".parse().unwrap()));
        for bad in ["", "a", "192.0.2.0/33", "192.0.2.0/", "1.2.3"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_names_under_its_domain_only() {
        assert!(covers("*.contoso.com", "mail.Contoso.com"));
        assert!(covers("*.contoso.com", "a.b.contoso.com"));
        assert!(!covers("*.contoso.com", "contoso.com"));
        assert!(!covers("*.contoso.com", "mailcontoso.com"));
        assert!(covers("Contoso.com", "contoso.com"));
        assert!(!covers("contoso.com", "mail.contoso.com"));
    }

    #[test]
    fn a_connector_is_by_certificate_or_by_small_ipv4_networks() {
        let connector = |json: &str| serde_json::from_str::<InboundConnector>(json).unwrap();
        assert_eq!(
            connector(r#"{"name": "a", "tlsSenderCertificateName": "*.contoso.com"}"#).faults().len(),
            0
        );
        assert_eq!(connector(r#"{"name": "a", "senderIPAddresses": ["192.0.2.0/24"]}"#).faults().len(), 0);
        assert_eq!(connector(r#"{"name": "a"}"#).faults().len(), 1);
        assert_eq!(
            connector(r#"{"name": "a", "senderIPAddresses": ["192.0.2.0/23", "::1"]}"#).faults().len(),
            2
        );
    }
}
