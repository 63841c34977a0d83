//! DMARC records (RFC 7489 section 6.3): what a domain asks of receivers. Pure.

/// What receivers are asked to do with mail that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    None,
    /// To treat it as suspicious.
    Quarantine,
    /// To refuse it.
    Reject,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// For the domain.
    pub policy: Policy,
    /// For those below it.
    pub below: Policy,
}

/// Longest record that is read, octets; those of administrators have a few hundred.
const MAX_TEXT: usize = 4096;

impl Policy {
    /// As in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Quarantine, Self::Reject]
            .into_iter()
            .find(|policy| text.eq_ignore_ascii_case(policy.as_str()))
    }
}

/// Whether a TXT record is a DMARC record: its first tag is the version.
pub fn is_dmarc(text: &str) -> bool {
    tags(text).next() == Some(("v", "DMARC1"))
}

/// Reads a record for which [`is_dmarc`] holds; none when it has no policy that can be read.
pub fn parse(text: &str) -> Option<Record> {
    let value =
        |name: &str| tags(text).find(|(tag, _)| tag.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    if text.len() > MAX_TEXT {
        return None;
    }
    let policy = Policy::parse(value("p")?)?;
    // A policy for subdomains that cannot be read counts as none given.
    Some(Record { policy, below: value("sp").and_then(Policy::parse).unwrap_or(policy) })
}

fn tags(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|tag| tag.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// The names below which a policy for `domain` is looked for, nearest first: the domain, then those above it down to two
/// labels. Receivers ask at the domain and at the one that was registered; which that is, only a list can tell, and a name
/// between them has no record, as a rule.
pub fn places(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |name| above(name)).take(MAX_PLACES)
}

fn above(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, above)| above).filter(|above| above.contains('.'))
}

/// Most names that are asked for a policy, as in the tree walk of the DMARC revision (DMARCbis section 4.10).
const MAX_PLACES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_other_texts() {
        for text in ["v=DMARC1; p=none", "v = DMARC1;p=none", "v=DMARC1"] {
            assert!(is_dmarc(text), "{text}");
        }
        for text in ["", "p=none; v=DMARC1", "v=DMARC10; p=none", "v=spf1 -all", "v=dmarc1; p=none"] {
            assert!(!is_dmarc(text), "{text}");
        }
    }

    #[test]
    fn the_policy_is_read_for_the_domain_and_for_those_below() {
        for (text, policy, below) in [
            ("v=DMARC1; p=none; rua=mailto:d@contoso.com", Policy::None, Policy::None),
            ("v=DMARC1;p=REJECT;sp=quarantine", Policy::Reject, Policy::Quarantine),
            ("v=DMARC1; p=quarantine; pct=100; sp=nonsense;", Policy::Quarantine, Policy::Quarantine),
        ] {
            assert_eq!(parse(text), Some(Record { policy, below }), "{text}");
        }
        for text in ["v=DMARC1", "v=DMARC1; p=", "v=DMARC1; p=rejected", "v=DMARC1; rua=mailto:a@b.example"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_policy_is_looked_for_from_the_domain_upwards() {
        let all: Vec<_> = places("a.b.contoso.com").collect();
        assert_eq!(all, ["a.b.contoso.com", "b.contoso.com", "contoso.com"]);
        assert_eq!(places("contoso.com").collect::<Vec<_>>(), ["contoso.com"]);
        assert_eq!(places(&"a.".repeat(50)).count(), MAX_PLACES);
    }

    proptest::proptest! {
        #[test]
        fn no_text_does_harm(text in "(v=DMARC1;)?[ -~é]{0,300}") {
            let _ = (is_dmarc(&text), parse(&text));
        }

        #[test]
        fn order_and_unknown_tags_do_not_matter(before in "([a-o]{1,3}=[a-z:@.]{0,9}; ?){0,4}") {
            proptest::prop_assume!(!before.contains("p=") );
            let record = parse(&format!("v=DMARC1; {before}p=reject"));
            assert_eq!(record.map(|record| record.policy), Some(Policy::Reject));
        }
    }
}
