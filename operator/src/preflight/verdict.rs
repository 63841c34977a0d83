//! From what was found at the domains of a route to its condition `DnsPublished`. Pure.

use mailroute_operator_core::status::DnsVerdict;
use mailroute_route::condition::Reason;

use super::finding::DnsFinding;

/// Most findings in one message, so that it stays readable; the others are counted.
const MAX_TOLD: usize = 8;

/// Longest cause of a failure that a message quotes, octets.
const MAX_CAUSE: usize = 300;

/// What is known of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainStanding {
    /// What is wrong.
    pub findings: Vec<DnsFinding>,
    /// Why name servers did not answer something.
    pub failure: Option<String>,
}

/// The verdict on a route whose domains were found like this.
pub fn verdict<'s>(standings: impl IntoIterator<Item = &'s DomainStanding>) -> DnsVerdict {
    let (mut findings, mut failures) = (Vec::new(), Vec::new());
    for standing in standings {
        findings.extend(&standing.findings);
        failures.extend(&standing.failure);
    }
    findings.sort();
    match (findings.first(), failures.first()) {
        (Some(first), _) => DnsVerdict { holds: Some(false), reason: first.reason, message: told(&findings) },
        (None, Some(failure)) => {
            let cause = &failure[..failure.floor_char_boundary(MAX_CAUSE)];
            let message = format!(
                "{cause}. {} {}",
                Reason::DnsUnavailable.sentence(),
                "They are asked again; mail does not depend on it."
            );
            DnsVerdict { holds: None, reason: Reason::DnsUnavailable, message }
        }
        (None, None) => {
            let reason = Reason::DnsPublished;
            DnsVerdict { holds: Some(true), reason, message: reason.sentence().to_owned() }
        }
    }
}

fn told(findings: &[&DnsFinding]) -> String {
    let mut texts: Vec<_> = findings.iter().take(MAX_TOLD).map(|finding| finding.text.clone()).collect();
    match findings.len().saturating_sub(MAX_TOLD) {
        0 => {}
        1 => texts.push("There is one more finding.".to_owned()),
        more => texts.push(format!("There are {more} more findings.")),
    }
    texts.push("This is advice and holds no mail back.".to_owned());
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(findings: Vec<DnsFinding>, failure: Option<&str>) -> DomainStanding {
        DomainStanding { findings, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn nothing_wrong_anywhere_holds() {
        let verdict = verdict(&[DomainStanding::default(), DomainStanding::default()]);
        assert_eq!((verdict.holds, verdict.reason), (Some(true), Reason::DnsPublished));
    }

    #[test]
    fn the_gravest_finding_of_all_domains_is_the_reason() {
        let standings = [
            standing(vec![DnsFinding::no_dmarc("a.example")], Some("SERVFAIL")),
            standing(vec![DnsFinding::no_spf("b.example", "spf.protection.outlook.com", &[])], None),
        ];
        let verdict = verdict(&standings);
        assert_eq!((verdict.holds, verdict.reason), (Some(false), Reason::SpfMissing));
        assert!(verdict.message.starts_with("b.example has no SPF record"), "{}", verdict.message);
        assert!(verdict.message.contains("_dmarc.a.example"), "{}", verdict.message);
        assert!(verdict.message.ends_with("holds no mail back."), "{}", verdict.message);
    }

    #[test]
    fn what_name_servers_cannot_tell_is_unknown_with_the_cause() {
        let verdict =
            verdict(&[standing(vec![], None), standing(vec![], Some("cannot look Mx of a.example up"))]);
        assert_eq!((verdict.holds, verdict.reason), (None, Reason::DnsUnavailable));
        assert!(
            verdict.message.starts_with("cannot look Mx of a.example up. Name servers"),
            "{}",
            verdict.message
        );
    }

    #[test]
    fn many_findings_are_counted() {
        let many = (0..64).map(|at| DnsFinding::no_dmarc(&format!("d{at}.example"))).collect();
        let verdict = verdict(&[standing(many, None)]);
        assert!(verdict.message.contains("There are 56 more findings."), "{}", verdict.message);
        assert!(verdict.message.len() < 2000);
    }
}
