//! What the name server knows: records by name and kind.
//!
//! Pure. Names compare without regard to case. It refuses to know messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::directory::Directory;

/// Aliases that are followed at most.
const MAX_ALIASES: usize = 8;

/// The name server's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// Time to live of every record, seconds.
    pub ttl_seconds: u32,
    /// Addresses of the MX hosts.
    pub addresses: Vec<IpAddr>,
    /// Further records. Those of an MX host or accepted domain take the place of the derived ones of their kind.
    pub records: Vec<Record>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, without final dot.
    pub name: String,
    /// Its kind and value.
    #[serde(flatten)]
    pub data: Data,
}

/// The value of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Data {
    /// A mail exchanger; the host of a null MX is empty.
    Mx {
        /// Lower is preferred.
        preference: u16,
        /// Its name.
        host: String,
    },
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A text, such as a policy.
    Txt(String),
    /// An alias.
    Cname(String),
}

/// A kind of record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Mail exchangers.
    #[default]
    Mx,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Texts.
    Txt,
    /// Aliases.
    Cname,
    /// Any other; there is none of them.
    Other,
}

impl Default for Dns {
    fn default() -> Self {
        // An hour, as Microsoft advises for the MX record.
        Self { ttl_seconds: 3600, addresses: vec![Ipv4Addr::LOCALHOST.into()], records: Vec::new() }
    }
}

impl Data {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mx { .. } => Kind::Mx,
            Self::A(_) => Kind::A,
            Self::Aaaa(_) => Kind::Aaaa,
            Self::Txt(_) => Kind::Txt,
            Self::Cname(_) => Kind::Cname,
        }
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

/// The records of this name and kind, aliases on the way included. `None` when there is no such name.
#[must_use]
pub fn look_up(directory: &Directory, dns: &Dns, name: &str, kind: Kind) -> Option<Vec<Record>> {
    let (mut found, mut name) = (Vec::new(), name.to_owned());
    for _ in 0..MAX_ALIASES {
        let all = records_of(directory, dns, &name);
        let Some(all) = all else { return (!found.is_empty()).then_some(found) };
        let alias = all.iter().find_map(|data| match data {
            Data::Cname(target) if kind != Kind::Cname => Some(target.clone()),
            _ => None,
        });
        let wanted = all.into_iter().filter(|data| data.kind() == kind || data.kind() == Kind::Cname);
        found.extend(wanted.map(|data| Record { name: name.clone(), data }));
        match alias {
            Some(target) => name = target,
            None => break,
        }
    }
    Some(found)
}

/// Everything of a name.
fn records_of(directory: &Directory, dns: &Dns, name: &str) -> Option<Vec<Data>> {
    let mut known = false;
    let mut derived = Vec::new();
    for tenant in &directory.tenants {
        if tenant.accepts_domain(name) {
            known = true;
            derived.push(Data::Mx { preference: 0, host: tenant.mx_host(name) });
        }
        if !known && tenant.domains.iter().any(|domain| tenant.mx_host(domain).eq_ignore_ascii_case(name)) {
            known = true;
            derived.extend(dns.addresses.iter().copied().map(Data::from));
        }
    }
    let added: Vec<Data> = dns
        .records
        .iter()
        .filter(|record| record.name.eq_ignore_ascii_case(name))
        .map(|record| record.data.clone())
        .collect();
    derived.retain(|data| !added.iter().any(|added| added.kind() == data.kind()));
    known |= !added.is_empty();
    derived.extend(added);
    known.then_some(derived)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dns: &Dns, name: &str, kind: Kind) -> Option<Vec<Data>> {
        let records = look_up(&Directory::contoso(), dns, name, kind)?;
        Some(records.into_iter().map(|record| record.data).collect())
    }

    fn mx(preference: u16, host: &str) -> Data {
        Data::Mx { preference, host: host.into() }
    }

    #[test]
    fn an_accepted_domain_has_an_mx_host_with_an_address() {
        let dns = Dns::default();
        let host = "contoso-com.mail.protection.outlook.com";
        assert_eq!(found(&dns, "Contoso.com", Kind::Mx), Some(vec![mx(0, host)]));
        assert_eq!(found(&dns, host, Kind::A), Some(vec![Data::A(Ipv4Addr::LOCALHOST)]));
        assert_eq!(found(&dns, host, Kind::Aaaa), Some(vec![]), "the name is there, the record is not");
        assert_eq!(found(&dns, "fabrikam.com", Kind::Mx), None);
        assert_eq!(found(&dns, "contoso.com", Kind::Other), Some(vec![]));
    }

    #[test]
    fn added_records_take_the_place_of_derived_ones_of_their_kind() {
        let text = r#"{"records": [
            {"name": "contoso.com", "mx": {"preference": 10, "host": "mx.example"}},
            {"name": "contoso.com", "mx": {"preference": 20, "host": "mx2.example"}},
            {"name": "contoso.com", "txt": "v=spf1 -all"},
            {"name": "mx.example", "aaaa": "::1"}]}"#;
        let dns: Dns = serde_json::from_str(text).unwrap();
        assert_eq!(
            found(&dns, "contoso.com", Kind::Mx),
            Some(vec![mx(10, "mx.example"), mx(20, "mx2.example")])
        );
        assert_eq!(found(&dns, "contoso.com", Kind::Txt), Some(vec![Data::Txt("v=spf1 -all".into())]));
        assert_eq!(found(&dns, "mx.example", Kind::Aaaa), Some(vec![Data::Aaaa(Ipv6Addr::LOCALHOST)]));
    }

    #[test]
    fn aliases_are_followed_but_not_in_circles() {
        let alias = |name: &str, target: &str| Record { name: name.into(), data: Data::Cname(target.into()) };
        let dns = Dns {
            records: vec![
                alias("www.example", "contoso-com.mail.protection.outlook.com"),
                alias("a.example", "b.example"),
                alias("b.example", "a.example"),
                alias("c.example", "elsewhere.example"),
            ],
            ..Dns::default()
        };
        assert_eq!(found(&dns, "www.example", Kind::A).unwrap().len(), 2);
        assert_eq!(found(&dns, "www.example", Kind::Cname).unwrap().len(), 1);
        assert_eq!(found(&dns, "a.example", Kind::A).unwrap().len(), MAX_ALIASES);
        assert_eq!(found(&dns, "c.example", Kind::A).unwrap().len(), 1);
    }
}
