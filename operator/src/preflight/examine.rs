//! One domain: from what is known of it to what is wrong with it. Pure.
//!
//! Evaluated again whenever more is known, until nothing else has to be asked. A record that could not be looked up is no finding.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mailroute_route::condition::Reason;
use mailroute_route::exchange_online::{is_dkim_key, is_mail_exchanger};

use super::dmarc::{self, Policy};
use super::finding::DnsFinding;
use super::known::{Known, Question, Reader};
use super::need::DnsNeed;
use super::spf::Policy as SpfPolicy;

/// The selectors that Exchange Online signs with.
const SELECTORS: [&str; 2] = ["selector1", "selector2"];

/// What can be said of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// What is wrong, in the order in which to report it.
    pub findings: Vec<DnsFinding>,
    /// Why name servers did not answer the rest.
    pub failures: Vec<String>,
    /// What has to be asked before the findings are complete.
    pub wanted: BTreeSet<Question>,
}

/// Looks at what is known of the domain of `need`.
pub fn examine(need: &DnsNeed, known: &Known) -> Examined {
    let reader = Reader::new(known);
    let findings = if reader.is_no_name(&need.domain) {
        vec![DnsFinding::no_domain(&need.domain)]
    } else {
        findings(need, &reader)
    };
    let failures = reader.failures();
    Examined { findings, failures, wanted: reader.into_wanted() }
}

fn findings(need: &DnsNeed, reader: &Reader<'_>) -> Vec<DnsFinding> {
    let (policy, dmarc) = requested(&need.domain, reader);
    let mut findings: Vec<_> = [exchangers(need, reader), spf(need, reader), dkim(need, reader), dmarc]
        .into_iter()
        .flatten()
        .collect();
    let is_by_spf = |finding: &DnsFinding| {
        matches!(finding.reason, Reason::SpfMissing | Reason::SpfInvalid | Reason::SpfIncomplete)
    };
    let is_unsigned = !need.is_signed || findings.iter().any(|finding| finding.reason == Reason::DkimMissing);
    // Either proof is enough (RFC 7489 section 4.2).
    if let Some(policy @ (Policy::Quarantine | Policy::Reject)) = policy
        && is_unsigned
        && let Some(finding) = findings.iter_mut().find(|finding| is_by_spf(finding))
    {
        finding.aggravate(policy.as_str());
    }
    findings.sort();
    findings
}

fn exchangers(need: &DnsNeed, reader: &Reader<'_>) -> Option<DnsFinding> {
    let exchangers = reader.exchangers(&need.domain)?;
    let best = exchangers.iter().map(|exchanger| exchanger.preference).min();
    let preferred: Vec<_> =
        exchangers.iter().filter(|exchanger| Some(exchanger.preference) == best).collect();
    // A null MX (RFC 7505) has the root as its name.
    if exchangers.iter().all(|exchanger| exchanger.name.is_empty()) {
        return Some(DnsFinding::no_exchanger(&need.domain));
    }
    let is_ours = preferred.iter().any(|exchanger| is_mail_exchanger(&exchanger.name));
    (need.names_smart_host && !is_ours).then(|| DnsFinding::foreign_exchangers(&need.domain, &preferred))
}

fn spf(need: &DnsNeed, reader: &Reader<'_>) -> Option<DnsFinding> {
    let domain = &need.domain;
    let policy = match SpfPolicy::read(reader, domain, &need.addresses)? {
        Ok(Some(policy)) => policy,
        Ok(None) => {
            let addresses: Vec<_> = need.addresses.iter().copied().collect();
            return Some(DnsFinding::no_spf(domain, need.service, &addresses));
        }
        Err(broken) => return Some(DnsFinding::broken_spf(domain, &broken)),
    };
    let service = policy.leaves_out_service(reader, need.service).then_some(need.service);
    let left_out: Vec<IpAddr> = need.addresses.iter().copied().filter(|ip| policy.leaves_out(*ip)).collect();
    (service.is_some() || !left_out.is_empty())
        .then(|| DnsFinding::incomplete_spf(domain, policy.text, service, &left_out))
}

fn dkim(need: &DnsNeed, reader: &Reader<'_>) -> Option<DnsFinding> {
    if !need.is_signed {
        return None;
    }
    let (mut missing, mut elsewhere) = (Vec::new(), Vec::new());
    for selector in SELECTORS {
        let targets = reader.aliases(&format!("{selector}._domainkey.{}", need.domain));
        // What could not be looked up is not missing.
        let Some(targets) = targets else { continue };
        if !targets.iter().any(|target| is_dkim_key(target)) {
            missing.push(selector);
            elsewhere.extend(targets.iter().map(String::as_str));
        }
    }
    (!missing.is_empty()).then(|| DnsFinding::no_dkim(&need.domain, &missing, &elsewhere))
}

/// What the domain asks of receivers, and what is wrong with how it asks.
fn requested(domain: &str, reader: &Reader<'_>) -> (Option<Policy>, Option<DnsFinding>) {
    for place in dmarc::places(domain) {
        // The domain above counts only if nothing is published here.
        let Some(texts) = reader.texts(&format!("_dmarc.{place}")) else { return (None, None) };
        let records: Vec<_> = texts.iter().filter(|text| dmarc::is_dmarc(text)).collect();
        match (records.as_slice(), records.first().and_then(|text| dmarc::parse(text))) {
            ([], _) => {}
            ([_], Some(record)) => {
                return (Some(if place == domain { record.policy } else { record.below }), None);
            }
            (several, _) => return (None, Some(DnsFinding::broken_dmarc(domain, place, several.len()))),
        }
    }
    (None, Some(DnsFinding::no_dmarc(domain)))
}

#[cfg(test)]
mod tests {
    use mailroute_dns::message::Wanted::{self, Cname, Mx, Txt};

    use super::super::known::Fact;
    use super::super::known::tests::answer_from;
    use super::*;

    type Zone<'z> = Vec<(&'z str, Wanted, &'z [&'z str])>;

    fn need() -> DnsNeed {
        DnsNeed {
            domain: "contoso.com".into(),
            service: "spf.protection.outlook.com",
            is_signed: true,
            names_smart_host: false,
            addresses: BTreeSet::new(),
        }
    }

    /// What a domain with everything publishes.
    fn whole() -> Zone<'static> {
        vec![
            ("contoso.com", Mx, &["contoso-com.mail.protection.outlook.com"]),
            ("contoso.com", Txt, &["MS=ms1", "v=spf1 include:spf.protection.outlook.com -all"]),
            ("spf.protection.outlook.com", Txt, &["v=spf1 ip4:40.92.0.0/15 -all"]),
            (
                "selector1._domainkey.contoso.com",
                Cname,
                &["selector1-contoso-com._domainkey.contoso.onmicrosoft.com"],
            ),
            (
                "selector2._domainkey.contoso.com",
                Cname,
                &["selector2-contoso-com._domainkey.contoso.n-v1.dkim.mail.microsoft"],
            ),
            ("_dmarc.contoso.com", Txt, &["v=DMARC1; p=none; rua=mailto:d@contoso.com"]),
        ]
    }

    /// The same without what is published there, and with this in its place.
    fn but<'z>(name: &str, wanted: Wanted, values: &'z [&'z str]) -> Zone<'z> {
        let mut zone: Zone<'z> = whole().into_iter().filter(|it| (it.0, it.1) != (name, wanted)).collect();
        let known = whole().into_iter().find(|it| it.0 == name).map(|it| it.0);
        if let (Some(name), false) = (known, values.is_empty()) {
            zone.push((name, wanted, values));
        }
        zone
    }

    fn examined(need: &DnsNeed, zone: &Zone<'_>) -> Examined {
        let mut known = Known::default();
        loop {
            let examined = examine(need, &known);
            if examined.wanted.is_empty() {
                return examined;
            }
            for question in examined.wanted {
                let fact = answer_from(zone, &question);
                known.learn(question, fact, None);
            }
            assert!(known.len() < 100, "it has to end");
        }
    }

    fn reasons(need: &DnsNeed, zone: &Zone<'_>) -> Vec<Reason> {
        examined(need, zone).findings.into_iter().map(|finding| finding.reason).collect()
    }

    #[test]
    fn a_domain_that_publishes_everything_has_no_findings() {
        let smart_host = DnsNeed { names_smart_host: true, ..need() };
        for need in [need(), smart_host] {
            assert_eq!(examined(&need, &whole()), Examined::default());
        }
    }

    #[test]
    fn each_record_that_is_missing_or_wrong_is_a_finding_of_its_own() {
        let selector = "selector1._domainkey.contoso.com";
        let cases: &[(&str, Wanted, &[&str], Reason)] = &[
            ("contoso.com", Mx, &[], Reason::MxMissing),
            ("contoso.com", Mx, &[""], Reason::MxMissing),
            ("contoso.com", Txt, &["MS=ms1"], Reason::SpfMissing),
            ("contoso.com", Txt, &["v=spf1 mx -all"], Reason::SpfIncomplete),
            ("contoso.com", Txt, &["v=spf1 -all", "v=spf1 mx -all"], Reason::SpfInvalid),
            ("contoso.com", Txt, &["v=spf1 include:gone.example -all"], Reason::SpfInvalid),
            (selector, Cname, &[], Reason::DkimMissing),
            (selector, Cname, &["k1.example.net"], Reason::DkimMissing),
            ("_dmarc.contoso.com", Txt, &[], Reason::DmarcMissing),
            ("_dmarc.contoso.com", Txt, &["some text"], Reason::DmarcMissing),
            ("_dmarc.contoso.com", Txt, &["v=DMARC1; p=maybe"], Reason::DmarcInvalid),
            ("_dmarc.contoso.com", Txt, &["v=DMARC1; p=none", "v=DMARC1; p=reject"], Reason::DmarcInvalid),
        ];
        for (name, wanted, values, reason) in cases {
            assert_eq!(reasons(&need(), &but(name, *wanted, values)), [*reason], "{name} {values:?}");
        }
    }

    #[test]
    fn a_domain_that_does_not_exist_has_one_finding() {
        assert_eq!(reasons(&need(), &vec![]), [Reason::DomainNotFound]);
    }

    #[test]
    fn a_foreign_mail_exchanger_matters_only_where_it_names_the_smart_host() {
        let zone = but("contoso.com", Mx, &["mx.example.net", "contoso-com.mail.protection.outlook.com"]);
        assert_eq!(reasons(&need(), &zone), []);
        let smart_host = DnsNeed { names_smart_host: true, ..need() };
        let findings = examined(&smart_host, &zone).findings;
        assert_eq!(findings[0].reason, Reason::MxForeign);
        assert!(findings[0].text.contains("mx.example.net,"), "{}", findings[0].text);
    }

    #[test]
    fn the_clusters_addresses_have_to_be_in_the_record() {
        let need = DnsNeed {
            is_signed: false,
            addresses: ["203.0.113.7", "203.0.113.8"].map(|ip| ip.parse().unwrap()).into(),
            ..need()
        };
        let zone =
            but("contoso.com", Txt, &["v=spf1 ip4:203.0.113.8 include:spf.protection.outlook.com -all"]);
        let findings = examined(&need, &zone).findings;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("does not allow 203.0.113.7, where"), "{}", findings[0].text);
    }

    #[test]
    fn without_any_proof_a_strict_policy_is_told_of() {
        let strict = |mut zone: Zone<'static>| {
            zone.retain(|it| it.0 != "_dmarc.contoso.com");
            zone.push(("_dmarc.contoso.com", Txt, &["v=DMARC1; p=reject"]));
            zone
        };
        let told = |need: &DnsNeed, zone: &Zone<'_>| {
            let findings = examined(need, zone).findings;
            findings.iter().any(|finding| finding.text.contains("p=reject has receivers refuse"))
        };
        let unlisted = strict(but("contoso.com", Txt, &["v=spf1 -all"]));
        assert!(!told(&need(), &unlisted), "the signature is proof enough");
        assert!(told(&DnsNeed { is_signed: false, ..need() }, &unlisted));
        let mut neither = unlisted;
        neither.retain(|it| it.1 != Cname);
        assert!(told(&need(), &neither));
    }

    #[test]
    fn a_subdomain_has_the_policy_of_the_domain_above() {
        let need = DnsNeed { domain: "alerts.contoso.com".into(), is_signed: false, ..need() };
        let mut zone = whole();
        zone.retain(|it| it.0 != "_dmarc.contoso.com");
        zone.extend([
            ("alerts.contoso.com", Mx, &["contoso-com.mail.protection.outlook.com"] as &[&str]),
            ("_dmarc.contoso.com", Txt, &["v=DMARC1; p=none; sp=quarantine"]),
        ]);
        let findings = examined(&need, &zone).findings;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("p=quarantine has receivers distrust"), "{}", findings[0].text);
    }

    #[test]
    fn what_cannot_be_looked_up_is_no_finding() {
        let mut known = Known::default();
        loop {
            let examined = examine(&need(), &known);
            if examined.wanted.is_empty() {
                assert_eq!((examined.findings, examined.failures), (vec![], vec!["SERVFAIL".to_owned()]));
                return;
            }
            for question in examined.wanted {
                known.learn(question, Fact::Failed("SERVFAIL".into()), None);
            }
        }
    }
}
