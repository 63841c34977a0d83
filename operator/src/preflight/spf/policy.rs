//! The SPF policy of a domain, followed through includes: whether it can be evaluated, and whom it lets send. Pure.
//!
//! As a receiver does it (RFC 7208 section 4.6), with one difference: what depends on the message (macros, `ptr`,
//! `exists`) or could not be looked up is neither yes nor no.
//!
//! Invariant: [`permits`] ends because [`check`] did: ten look-ups are the most that a policy may need, so a circle of
//! includes is found there.

use std::net::IpAddr;

use super::super::known::Reader;
use super::record::{self, Directive, Lengths, Mechanism, NotATerm, Record, Target};

/// Most terms that need a look-up (RFC 7208 section 4.6.4).
const MAX_LOOK_UPS: u32 = 10;

/// Most mail exchangers of one `mx` term (same section).
const MAX_EXCHANGERS: usize = 10;

/// The record that a domain publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// As it is published.
    pub text: &'a str,
    /// What it says.
    pub record: Record,
}

/// Why receivers cannot evaluate a policy (`permerror`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Broken {
    /// More than one record.
    #[error("{domain} has {count} SPF records: merge them into one")]
    Several {
        /// Whose.
        domain: String,
        /// How many.
        count: usize,
    },
    /// A term that the grammar does not allow.
    #[error("in the SPF record of {domain} {term}: correct or remove it")]
    Term {
        /// Whose.
        domain: String,
        /// The term.
        term: String,
    },
    /// An include or redirect leads to a domain without a record.
    #[error("the SPF record of {domain} includes {target}, which has none: remove that part")]
    NoRecord {
        /// Whose record leads there.
        domain: String,
        /// Where.
        target: String,
    },
    /// The policy as a whole needs too much.
    #[error(
        "the SPF record of {domain} needs more than {MAX_LOOK_UPS} DNS look-ups with all its includes, and receivers stop there: remove includes that are not needed"
    )]
    TooManyLookUps {
        /// Whose.
        domain: String,
    },
}

/// Who wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender<'a> {
    /// A service, by the name that one includes for it.
    Service(&'a str),
    /// An address.
    Address(IpAddr),
}

/// Whether somebody may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The policy says so.
    Yes,
    /// The policy does not say so.
    No,
    /// It depends, or could not be looked up.
    Unsure,
}

/// The record of a domain; none while it is not known, and none within when there is none.
pub fn published<'a>(reader: &Reader<'a>, domain: &str) -> Option<Result<Option<Published<'a>>, Broken>> {
    let texts = reader.texts(domain)?;
    let records: Vec<_> = texts.iter().filter(|text| record::is_spf(text)).collect();
    Some(match records.as_slice() {
        [] => Ok(None),
        [text] => match record::parse(text) {
            Ok(record) => Ok(Some(Published { text, record })),
            Err(term @ NotATerm(_)) => {
                Err(Broken::Term { domain: domain.to_owned(), term: term.to_string() })
            }
        },
        several => Err(Broken::Several { domain: domain.to_owned(), count: several.len() }),
    })
}

/// Whether receivers can evaluate the policy, as far as it is known.
///
/// # Errors
/// Why they cannot.
pub fn check(reader: &Reader<'_>, domain: &str, record: &Record) -> Result<(), Broken> {
    Measure { reader, whole: domain, look_ups: 0 }.add(domain, record)
}

/// Whether `record` of `domain`, for which [`check`] holds, lets `sender` send.
pub fn permits(reader: &Reader<'_>, domain: &str, record: &Record, sender: Sender<'_>) -> Permit {
    let judged = Judge { reader, sender }.judge(domain, record);
    match sender {
        Sender::Service(service) if judged == Permit::No => spelled_out(reader, domain, record, service),
        _ => judged,
    }
}

/// Whether the record lists every IPv4 network of a service that it does not include: some flatten their records.
fn spelled_out(reader: &Reader<'_>, domain: &str, record: &Record, service: &str) -> Permit {
    // Without a record of its own we do not know the service as well as we think.
    let Some(Ok(Some(of_service))) = published(reader, service) else { return Permit::Unsure };
    let networks = of_service.record.directives.iter().filter_map(|directive| match directive.mechanism {
        Mechanism::Network(address @ IpAddr::V4(_), _) if directive.passes => Some(address),
        _ => None,
    });
    let permits = networks.map(|ip| Judge { reader, sender: Sender::Address(ip) }.judge(domain, record));
    permits.reduce(Permit::and).unwrap_or(Permit::No)
}

impl Permit {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::No, _) | (_, Self::No) => Self::No,
            _ => Self::Unsure,
        }
    }
}

/// Counts look-ups.
struct Measure<'r, 'a> {
    reader: &'r Reader<'a>,
    whole: &'r str,
    look_ups: u32,
}

impl Measure<'_, '_> {
    fn add(&mut self, domain: &str, record: &Record) -> Result<(), Broken> {
        for Directive { mechanism, .. } in &record.directives {
            match mechanism {
                Mechanism::All | Mechanism::Network(..) => {}
                Mechanism::A(..) | Mechanism::Mx(..) | Mechanism::Ptr | Mechanism::Exists(_) => {
                    self.count()?
                }
                Mechanism::Include(target) => self.follow(domain, target)?,
            }
        }
        record.redirect.as_ref().map_or(Ok(()), |target| self.follow(domain, target))
    }

    fn count(&mut self) -> Result<(), Broken> {
        self.look_ups += 1;
        if self.look_ups > MAX_LOOK_UPS {
            return Err(Broken::TooManyLookUps { domain: self.whole.to_owned() });
        }
        Ok(())
    }

    fn follow(&mut self, domain: &str, target: &Target) -> Result<(), Broken> {
        self.count()?;
        let Target::Name(name) = target else { return Ok(()) };
        match published(self.reader, name).transpose()?.map(|found| found.map(|it| it.record)) {
            None => Ok(()),
            Some(None) => Err(Broken::NoRecord { domain: domain.to_owned(), target: name.clone() }),
            Some(Some(record)) => self.add(name, &record),
        }
    }
}

/// Goes through a policy for one sender.
struct Judge<'r, 'a> {
    reader: &'r Reader<'a>,
    sender: Sender<'r>,
}

impl Judge<'_, '_> {
    /// The first match decides (section 4.6.2).
    fn judge(&self, domain: &str, record: &Record) -> Permit {
        let mut otherwise = Permit::No;
        for Directive { passes, mechanism } in &record.directives {
            match self.matches(domain, mechanism) {
                Permit::Yes if *passes => return Permit::Yes,
                Permit::Yes => return otherwise,
                Permit::Unsure if *passes => otherwise = Permit::Unsure,
                Permit::Unsure | Permit::No => {}
            }
        }
        match &record.redirect {
            None => otherwise,
            Some(target) => match self.included(target) {
                Permit::No => otherwise,
                other => other,
            },
        }
    }

    fn matches(&self, domain: &str, mechanism: &Mechanism) -> Permit {
        match (mechanism, self.sender) {
            (Mechanism::All, _) => Permit::Yes,
            (Mechanism::Include(Target::Name(name)), Sender::Service(service)) if name == service => {
                Permit::Yes
            }
            (Mechanism::Include(target), _) => self.included(target),
            (Mechanism::Exists(_), _) => Permit::Unsure,
            (_, Sender::Service(_)) => Permit::No,
            (Mechanism::Ptr, Sender::Address(_)) => Permit::Unsure,
            (Mechanism::Network(network, length), Sender::Address(ip)) => {
                when(is_within(ip, *network, Lengths { four: *length, six: *length }))
            }
            (Mechanism::A(target, lengths), Sender::Address(ip)) => {
                name_of(target, domain).map_or(Permit::Unsure, |host| self.host(host, ip, *lengths))
            }
            (Mechanism::Mx(target, lengths), Sender::Address(ip)) => {
                name_of(target, domain).map_or(Permit::Unsure, |name| self.exchangers(name, ip, *lengths))
            }
        }
    }

    fn included(&self, target: &Target) -> Permit {
        let Target::Name(name) = target else { return Permit::Unsure };
        match published(self.reader, name) {
            Some(Ok(Some(found))) => self.judge(name, &found.record),
            // What cannot be evaluated was found by `check`.
            Some(_) => Permit::No,
            None => Permit::Unsure,
        }
    }

    fn host(&self, host: &str, ip: IpAddr, lengths: Lengths) -> Permit {
        let addresses = self.reader.addresses(host, ip);
        addresses.map_or(Permit::Unsure, |found| when(found.iter().any(|it| is_within(ip, *it, lengths))))
    }

    fn exchangers(&self, name: &str, ip: IpAddr, lengths: Lengths) -> Permit {
        let Some(exchangers) = self.reader.exchangers(name) else { return Permit::Unsure };
        let hosts = exchangers.iter().take(MAX_EXCHANGERS).filter(|exchanger| !exchanger.name.is_empty());
        let permits = hosts.map(|exchanger| self.host(&exchanger.name, ip, lengths));
        permits.fold(Permit::No, |all, one| match (all, one) {
            (Permit::Yes, _) | (_, Permit::Yes) => Permit::Yes,
            (Permit::No, Permit::No) => Permit::No,
            _ => Permit::Unsure,
        })
    }
}

const fn when(holds: bool) -> Permit {
    if holds { Permit::Yes } else { Permit::No }
}

fn name_of<'t>(target: &'t Target, own: &'t str) -> Option<&'t str> {
    match target {
        Target::Own => Some(own),
        Target::Name(name) => Some(name),
        Target::Macro => None,
    }
}

/// Whether an address is in the network of this base and length.
fn is_within(ip: IpAddr, base: IpAddr, lengths: Lengths) -> bool {
    match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => {
            let host_bits = 32_u32.saturating_sub(lengths.four.into());
            (ip.to_bits() ^ base.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) => {
            let host_bits = 128_u32.saturating_sub(lengths.six.into());
            (ip.to_bits() ^ base.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use mailroute_dns::message::Wanted::{self, A, Aaaa, Mx, Txt};

    use super::super::super::known::Known;
    use super::super::super::known::tests::answer_from;
    use super::*;

    const EXCHANGE: &str = "spf.protection.outlook.com";
    const MICROSOFT: (&str, Wanted, &[&str]) =
        (EXCHANGE, Txt, &["v=spf1 ip4:40.92.0.0/15 ip4:40.107.0.0/16 ip6:2a01:111:f400::/48 -all"]);

    /// What is known when all that is wanted was asked for.
    fn asked<T>(zone: &[(&str, Wanted, &[&str])], evaluate: impl Fn(&Reader<'_>) -> T) -> T {
        let mut known = Known::default();
        loop {
            let reader = Reader::new(&known);
            let said = evaluate(&reader);
            let wanted = reader.into_wanted();
            if wanted.is_empty() {
                return said;
            }
            for question in wanted {
                let fact = answer_from(zone, &question);
                known.learn(question, fact, None);
            }
            assert!(known.len() < 100, "it has to end");
        }
    }

    /// The policy of contoso.com for a sender, with these records.
    fn judged(zone: &[(&str, Wanted, &[&str])], sender: Sender<'_>) -> Result<Permit, Broken> {
        asked(zone, |reader| match published(reader, "contoso.com") {
            None => Ok(Permit::Unsure),
            Some(found) => {
                let record = found?.expect("a record").record;
                check(reader, "contoso.com", &record)?;
                Ok(permits(reader, "contoso.com", &record, sender))
            }
        })
    }

    fn of_text(text: &str, sender: Sender<'_>) -> Result<Permit, Broken> {
        judged(&[("contoso.com", Txt, &[text]), MICROSOFT], sender)
    }

    fn address(ip: &str) -> Sender<'static> {
        Sender::Address(ip.parse().unwrap())
    }

    #[test]
    fn a_service_may_send_when_it_is_included_before_all() {
        for (text, permit) in [
            ("v=spf1 include:spf.protection.outlook.com -all", Permit::Yes),
            ("v=spf1 +include:SPF.Protection.Outlook.com ~all", Permit::Yes),
            ("v=spf1 redirect=spf.protection.outlook.com", Permit::Yes),
            ("v=spf1 +all", Permit::Yes),
            ("v=spf1 -all", Permit::No),
            ("v=spf1 ?include:spf.protection.outlook.com -all", Permit::No),
            ("v=spf1 -all include:spf.protection.outlook.com", Permit::No),
            ("v=spf1 ip4:40.92.0.0/15 -all", Permit::No),
            ("v=spf1 exists:%{i}.example.net -all", Permit::Unsure),
            ("v=spf1 include:%{d}.example.net include:spf.protection.outlook.com -all", Permit::Yes),
        ] {
            let expected = Ok(permit);
            let redirected = text.contains("redirect");
            // A redirect evaluates the other record in place of one's own: the addresses decide.
            let sender = if redirected { address("40.92.3.4") } else { Sender::Service(EXCHANGE) };
            assert_eq!(of_text(text, sender), expected, "{text}");
        }
    }

    #[test]
    fn a_service_whose_networks_are_spelled_out_may_send() {
        assert_eq!(of_text("v=spf1 ip4:40.0.0.0/8 -all", Sender::Service(EXCHANGE)), Ok(Permit::Yes));
        let redirect = "v=spf1 redirect=spf.protection.outlook.com";
        assert_eq!(of_text(redirect, Sender::Service(EXCHANGE)), Ok(Permit::Yes));
    }

    #[test]
    fn a_service_that_does_not_publish_anything_is_not_judged() {
        let zone: &[(&str, Wanted, &[&str])] = &[("contoso.com", Txt, &["v=spf1 -all"])];
        assert_eq!(judged(zone, Sender::Service(EXCHANGE)), Ok(Permit::Unsure));
    }

    #[test]
    fn includes_are_followed_and_only_their_pass_counts() {
        let zone: &[(&str, Wanted, &[&str])] = &[
            ("contoso.com", Txt, &["MS=ms1", "v=spf1 include:a.example -all"]),
            (
                "a.example",
                Txt,
                &["v=spf1 -ip4:203.0.113.9 ip4:203.0.113.0/24 include:spf.protection.outlook.com ~all"],
            ),
            MICROSOFT,
        ];
        assert_eq!(judged(zone, Sender::Service(EXCHANGE)), Ok(Permit::Yes));
        assert_eq!(judged(zone, address("203.0.113.7")), Ok(Permit::Yes));
        assert_eq!(judged(zone, address("203.0.113.9")), Ok(Permit::No));
        assert_eq!(judged(zone, address("198.51.100.1")), Ok(Permit::No));
        assert_eq!(judged(zone, address("40.93.1.1")), Ok(Permit::Yes));
    }

    #[test]
    fn hosts_and_mail_exchangers_stand_for_their_addresses() {
        let zone: &[(&str, Wanted, &[&str])] = &[
            ("contoso.com", Txt, &["v=spf1 a/24 mx:mail.contoso.com//64 -all"]),
            ("contoso.com", A, &["192.0.2.1"]),
            ("mail.contoso.com", Mx, &["one.contoso.com", ""]),
            ("one.contoso.com", A, &["198.51.100.7"]),
            ("one.contoso.com", Aaaa, &["2001:db8:1:2::1"]),
        ];
        for (ip, permit) in [
            ("192.0.2.200", Permit::Yes),
            ("192.0.3.1", Permit::No),
            ("198.51.100.7", Permit::Yes),
            ("198.51.100.8", Permit::No),
            ("2001:db8:1:2::ffff", Permit::Yes),
            ("2001:db8:1:3::1", Permit::No),
        ] {
            assert_eq!(judged(zone, address(ip)), Ok(permit), "{ip}");
        }
    }

    #[test]
    fn what_receivers_cannot_evaluate_is_said() {
        let broken = |zone: &[(&str, Wanted, &[&str])]| judged(zone, Sender::Service(EXCHANGE)).unwrap_err();
        let two = broken(&[("contoso.com", Txt, &["v=spf1 -all", "v=spf1 a -all"])]);
        assert_eq!(two.to_string(), "contoso.com has 2 SPF records: merge them into one");
        let term = broken(&[("contoso.com", Txt, &["v=spf1 ipv4:1.2.3.4 -all"])]);
        assert!(term.to_string().contains("\"ipv4:1.2.3.4\" is not understood"), "{term}");
        let none = broken(&[("contoso.com", Txt, &["v=spf1 include:gone.example -all"])]);
        assert!(none.to_string().contains("includes gone.example, which has none"), "{none}");
        let nested = broken(&[
            ("contoso.com", Txt, &["v=spf1 include:a.example -all"]),
            ("a.example", Txt, &["v=spf1 a b"]),
        ]);
        assert!(matches!(nested, Broken::Term { domain, .. } if domain == "a.example"));
    }

    #[test]
    fn ten_look_ups_are_allowed_and_eleven_are_not() {
        let of = |count| {
            let text =
                format!("v=spf1 {} include:{EXCHANGE} -all", vec!["exists:x.example"; count].join(" "));
            of_text(&text, Sender::Service(EXCHANGE))
        };
        assert_eq!(of(9), Ok(Permit::Yes));
        assert_eq!(of(10), Err(Broken::TooManyLookUps { domain: "contoso.com".into() }));
    }

    #[test]
    fn a_circle_of_includes_ends() {
        let zone: &[(&str, Wanted, &[&str])] = &[
            ("contoso.com", Txt, &["v=spf1 include:a.example -all"]),
            ("a.example", Txt, &["v=spf1 redirect=contoso.com"]),
        ];
        let sender = Sender::Service(EXCHANGE);
        assert!(matches!(judged(zone, sender), Err(Broken::TooManyLookUps { .. })));
    }

    #[test]
    fn what_cannot_be_looked_up_is_neither_yes_nor_no() {
        let mut known = Known::default();
        let learn = |known: &mut Known, name, fact| {
            known.learn(super::super::super::known::Question::new(name, Txt), fact, None)
        };
        use super::super::super::known::Fact;
        learn(&mut known, "contoso.com", Fact::Texts(vec!["v=spf1 include:a.example -all".into()]));
        learn(&mut known, "a.example", Fact::Failed("SERVFAIL".into()));
        let reader = Reader::new(&known);
        let record = published(&reader, "contoso.com").unwrap().unwrap().unwrap().record;
        assert_eq!(check(&reader, "contoso.com", &record), Ok(()));
        assert_eq!(permits(&reader, "contoso.com", &record, address("192.0.2.1")), Permit::Unsure);
        assert_eq!(reader.failures(), ["SERVFAIL"]);
    }

    proptest::proptest! {
        #[test]
        fn every_policy_ends(texts in proptest::collection::vec(proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "mx", "-a:d0.example/8", "include:d0.example", "include:d1.example", "?include:d2.example", "exists:%{i}.x.example",
                "ip4:192.0.2.0/24", "redirect=d1.example", "all", "~all", "ptr", "nonsense",
            ]), 0..14), 3)) {
            let texts: Vec<String> = texts.iter().map(|terms| format!("v=spf1 {}", terms.join(" "))).collect();
            let texts: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
            let zone: &[(&str, Wanted, &[&str])] = &[
                ("contoso.com", Txt, &texts[0]), ("d0.example", Txt, &texts[0]),
                ("d1.example", Txt, &texts[1]), ("d2.example", Txt, &texts[2]),
                ("d0.example", A, &["192.0.2.1"]), ("contoso.com", Mx, &["d0.example", "d1.example"]),
            ];
            // No more than the terms that need a look-up, the addresses of exchangers and the service's own record.
            let _ = judged(zone, address("192.0.2.77"));
            let _ = judged(zone, Sender::Service(EXCHANGE));
        }
    }
}
