//! What is wrong with what a domain publishes, and the record to publish instead, in words. Pure.

use std::net::IpAddr;

use mailroute_dns::message::Exchanger;
use mailroute_route::condition::Reason;

use super::spf::Broken;

/// Longest record that is shown whole with its change, octets. Of a longer one, only the change is shown.
const MAX_RECORD: usize = 450;

/// Most names of others that are quoted.
const MAX_NAMES: usize = 3;

/// One thing to correct. Ordered as they are reported: the first is the reason of the condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsFinding {
    /// Why.
    pub reason: Reason,
    /// Of which domain.
    pub domain: String,
    /// What was found and what to publish, one or more sentences.
    pub text: String,
}

impl DnsFinding {
    fn new(reason: Reason, domain: &str, text: String) -> Self {
        Self { reason, domain: domain.to_owned(), text }
    }

    /// The domain does not exist.
    pub fn no_domain(domain: &str) -> Self {
        Self::new(Reason::DomainNotFound, domain, format!("{domain} does not exist in DNS."))
    }

    /// There is no MX record, or one that says that the domain takes no mail.
    pub fn no_exchanger(domain: &str) -> Self {
        let text = format!(
            "{domain} has no MX record for mail: publish the one that the Microsoft 365 admin center shows for it."
        );
        Self::new(Reason::MxMissing, domain, text)
    }

    /// The preferred MX records lead elsewhere.
    pub fn foreign_exchangers(domain: &str, preferred: &[&Exchanger]) -> Self {
        let names = listed(preferred.iter().map(|exchanger| exchanger.name.as_str()));
        let text = format!(
            "The MX record of {domain} leads to {names}, so it cannot name the smart host: set spec.endpoint.host to the MX \
             name that the Microsoft 365 admin center shows."
        );
        Self::new(Reason::MxForeign, domain, text)
    }

    /// Receivers cannot evaluate the policy.
    pub fn broken_spf(domain: &str, broken: &Broken) -> Self {
        Self::new(Reason::SpfInvalid, domain, format!("{broken}."))
    }

    /// There is no SPF record.
    pub fn no_spf(domain: &str, service: &str, addresses: &[IpAddr]) -> Self {
        let record = format!("v=spf1 {} -all", terms(service, addresses).join(" "));
        let text = format!("{domain} has no SPF record: publish TXT {domain} \"{record}\".");
        Self::new(Reason::SpfMissing, domain, text)
    }

    /// The SPF record `text` leaves out these.
    pub fn incomplete_spf(domain: &str, text: &str, service: Option<&str>, addresses: &[IpAddr]) -> Self {
        let terms = service.map_or_else(|| own_terms(addresses), |service| terms(service, addresses));
        let change = if text.len() <= MAX_RECORD {
            format!("change it to \"{}\"", spliced(text, &terms))
        } else {
            format!("put \"{}\" in front of its \"all\" or \"redirect\"", terms.join(" "))
        };
        let whom = match (service, addresses) {
            (Some(_), []) => "Exchange Online".to_owned(),
            (None, addresses) => format!("{}, where this route's mail comes from", all_of(addresses)),
            (Some(_), addresses) => {
                format!("Exchange Online and {}, where this route's mail comes from", all_of(addresses))
            }
        };
        Self::new(
            Reason::SpfIncomplete,
            domain,
            format!("The SPF record of {domain} does not allow {whom}: {change}."),
        )
    }

    /// These selectors are missing or lead to `elsewhere`.
    pub fn no_dkim(domain: &str, selectors: &[&str], elsewhere: &[&str]) -> Self {
        let names: Vec<_> =
            selectors.iter().map(|selector| format!("{selector}._domainkey.{domain}")).collect();
        let state = match elsewhere {
            [] => "missing".to_owned(),
            elsewhere => format!("not Exchange Online's (found {})", listed(elsewhere.iter().copied())),
        };
        let (are, records) =
            if names.len() == 1 { ("is", "the CNAME record") } else { ("are", "the CNAME records") };
        let text = format!(
            "{} {are} {state}: publish {records} that Get-DkimSigningConfig -Identity {domain} | Format-List Selector* prints, \
             then Set-DkimSigningConfig -Identity {domain} -Enabled $true.",
            names.join(" and ")
        );
        Self::new(Reason::DkimMissing, domain, text)
    }

    /// The DMARC record cannot be used.
    pub fn broken_dmarc(domain: &str, place: &str, count: usize) -> Self {
        let what = match count {
            1 => format!(
                "The DMARC record of {place} has no policy that can be read: begin it with \"v=DMARC1; p=none;\"."
            ),
            count => format!("{place} has {count} DMARC records, and receivers then use none: leave one."),
        };
        Self::new(Reason::DmarcInvalid, domain, what)
    }

    /// There is no DMARC record.
    pub fn no_dmarc(domain: &str) -> Self {
        let text = format!(
            "{domain} has no DMARC record: publish TXT _dmarc.{domain} \"v=DMARC1; p=none; rua=mailto:<address for reports>\"."
        );
        Self::new(Reason::DmarcMissing, domain, text)
    }

    /// Adds what the domain's DMARC policy has receivers do while nothing authenticates its mail.
    pub fn aggravate(&mut self, policy: &str) {
        let what = if policy == "reject" { "refuse" } else { "distrust" };
        self.text.push_str(&format!(
            " Until then its DMARC policy p={policy} has receivers {what} this route's mail."
        ));
    }
}

fn terms(service: &str, addresses: &[IpAddr]) -> Vec<String> {
    let mut terms = own_terms(addresses);
    terms.push(format!("include:{service}"));
    terms
}

fn own_terms(addresses: &[IpAddr]) -> Vec<String> {
    let term = |ip: &IpAddr| if ip.is_ipv4() { format!("ip4:{ip}") } else { format!("ip6:{ip}") };
    addresses.iter().map(term).collect()
}

/// The record with further terms, inserted where they count.
fn spliced(text: &str, terms: &[String]) -> String {
    let closes = |term: &str| {
        let term = term.to_ascii_lowercase();
        term.trim_start_matches(['+', '-', '~', '?']) == "all" || term.starts_with("redirect=")
    };
    let mut all: Vec<&str> = text.split(' ').filter(|term| !term.is_empty()).collect();
    let at = all.iter().position(|term| closes(term)).unwrap_or(all.len());
    all.splice(at..at, terms.iter().map(String::as_str));
    all.join(" ")
}

fn all_of(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A few names that others chose, printable characters only.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let plain = |name: &str| -> String { name.chars().filter(char::is_ascii_graphic).take(253).collect() };
    names.take(MAX_NAMES).map(plain).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: &str = "spf.protection.outlook.com";

    #[test]
    fn the_record_to_publish_is_whole() {
        let egress = ["203.0.113.7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(
            DnsFinding::no_spf("contoso.com", EXCHANGE, &egress).text,
            "contoso.com has no SPF record: publish TXT contoso.com \"v=spf1 ip4:203.0.113.7 ip6:2001:db8::1 \
             include:spf.protection.outlook.com -all\"."
        );
    }

    #[test]
    fn what_is_left_out_is_put_where_it_counts() {
        let changed = |text| DnsFinding::incomplete_spf("contoso.com", text, Some(EXCHANGE), &[]).text;
        for (text, record) in [
            ("v=spf1 mx ~all", "v=spf1 mx include:spf.protection.outlook.com ~all"),
            ("v=spf1  -ALL ra=x", "v=spf1 include:spf.protection.outlook.com -ALL ra=x"),
            ("v=spf1 redirect=a.example", "v=spf1 include:spf.protection.outlook.com redirect=a.example"),
            ("v=spf1 mx", "v=spf1 mx include:spf.protection.outlook.com"),
        ] {
            let expected = format!(
                "The SPF record of contoso.com does not allow Exchange Online: change it to \"{record}\"."
            );
            assert_eq!(changed(text), expected);
        }
        let long = format!("v=spf1 {} -all", "ip4:192.0.2.1 ".repeat(50));
        assert!(changed(&long).ends_with(
            "put \"include:spf.protection.outlook.com\" in front of its \"all\" or \"redirect\"."
        ));
    }

    #[test]
    fn the_address_that_is_left_out_is_named() {
        let finding = DnsFinding::incomplete_spf(
            "contoso.com",
            "v=spf1 include:spf.protection.outlook.com -all",
            None,
            &["203.0.113.7".parse().unwrap()],
        );
        assert_eq!(
            finding.text,
            "The SPF record of contoso.com does not allow 203.0.113.7, where this route's mail comes from: change it to \
             \"v=spf1 include:spf.protection.outlook.com ip4:203.0.113.7 -all\"."
        );
    }

    #[test]
    fn one_selector_is_spoken_of_as_one() {
        let text = DnsFinding::no_dkim("contoso.com", &["selector2"], &[]).text;
        assert!(
            text.starts_with("selector2._domainkey.contoso.com is missing: publish the CNAME record that"),
            "{text}"
        );
        let text = DnsFinding::no_dkim("contoso.com", &["selector1", "selector2"], &["k.example\u{7}"]).text;
        assert!(
            text.contains("are not Exchange Online's (found k.example): publish the CNAME records"),
            "{text}"
        );
    }

    #[test]
    fn the_first_reason_of_the_list_comes_first() {
        let mut findings = [
            DnsFinding::no_dmarc("a.example"),
            DnsFinding::no_spf("b.example", EXCHANGE, &[]),
            DnsFinding::no_domain("c.example"),
        ];
        findings.sort();
        assert_eq!(
            findings.map(|it| it.reason),
            [Reason::DomainNotFound, Reason::SpfMissing, Reason::DmarcMissing]
        );
    }
}
