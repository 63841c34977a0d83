//! The text of an SPF record as a value (RFC 7208 sections 4.5, 4.6 and 12).
//!
//! Invariants: a text is read in one pass and in bounded memory; a term that the grammar does not allow is an error that names it,
//! since receivers then answer `permerror`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// In the order in which they are tried; those behind `all` are never tried and left out.
    pub directives: Vec<Directive>,
    /// The domain whose record goes on where this one ends without a match.
    pub redirect: Option<Target>,
}

/// A mechanism and what its match means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Whether a match lets send.
    pub passes: bool,
    /// What matches.
    pub mechanism: Mechanism,
}

/// What matches a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Everyone.
    All,
    /// Whom the record of another domain lets send.
    Include(Target),
    /// The addresses of a host, as networks of this length.
    A(Target, Lengths),
    /// The addresses of mail exchangers, as networks of this length.
    Mx(Target, Lengths),
    /// Names by reverse look-up; discouraged.
    Ptr,
    /// Whether a name exists.
    Exists(Target),
    /// A network.
    Network(IpAddr, u8),
}

/// The name that a term is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The domain of the record itself.
    Own,
    /// A name, in lower case.
    Name(String),
    /// Made from the message by macros: nobody can tell in advance.
    Macro,
}

/// Lengths of prefixes, bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// For IPv4.
    pub four: u8,
    /// For IPv6.
    pub six: u8,
}

impl Lengths {
    /// For the family of this address.
    pub const fn of(self, ip: IpAddr) -> u8 {
        if ip.is_ipv4() { self.four } else { self.six }
    }
}

/// Longest term that an error quotes, characters.
const MAX_QUOTE: usize = 80;

/// Whether a TXT record is an SPF record (RFC 7208 section 4.5).
pub fn is_spf(text: &str) -> bool {
    let version = text.split(' ').next().unwrap_or_default();
    version.eq_ignore_ascii_case("v=spf1")
}

/// Reads a record for which [`is_spf`] holds.
///
/// # Errors
/// The first term that is not allowed, or its beginning.
pub fn parse(text: &str) -> Result<Record, String> {
    let mut record = Record::default();
    let (mut is_closed, mut is_explained) = (false, false);
    for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
        let wrong = || term.chars().take(MAX_QUOTE).collect::<String>();
        match modifier(term) {
            Some(("redirect", value)) if record.redirect.is_none() => {
                record.redirect = Some(target(value).ok_or_else(wrong)?);
            }
            // Either may stand once (section 6).
            Some(("redirect", _)) => return Err(wrong()),
            Some(("exp", _)) if is_explained => return Err(wrong()),
            Some((name, _)) => is_explained |= name == "exp",
            None => {
                let directive = directive(term).ok_or_else(wrong)?;
                let is_all = directive.mechanism == Mechanism::All;
                if !is_closed {
                    record.directives.push(directive);
                }
                is_closed |= is_all;
            }
        }
    }
    if is_closed {
        record.redirect = None;
    }
    Ok(record)
}

/// `name=value`. Unknown ones are allowed and mean nothing (section 6).
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_name = begins && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    // Names of modifiers have no case either.
    let known = ["redirect", "exp"].into_iter().find(|known| name.eq_ignore_ascii_case(known));
    is_name.then_some((known.unwrap_or(name), value))
}

fn directive(term: &str) -> Option<Directive> {
    let (passes, rest) = match term.split_at_checked(1)? {
        ("+", rest) => (true, rest),
        ("-" | "~" | "?", rest) => (false, rest),
        _ => (true, term),
    };
    Some(Directive { passes, mechanism: mechanism(rest)? })
}

fn mechanism(text: &str) -> Option<Mechanism> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let value = rest.strip_prefix(':');
    match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Some(Mechanism::All),
        "include" => target(value?).map(Mechanism::Include),
        "exists" => target(value?).map(Mechanism::Exists),
        "a" => host(rest).map(|(target, lengths)| Mechanism::A(target, lengths)),
        "mx" => host(rest).map(|(target, lengths)| Mechanism::Mx(target, lengths)),
        "ptr" if rest.is_empty() || target(value?).is_some() => Some(Mechanism::Ptr),
        "ip4" => network::<Ipv4Addr>(value?, 32),
        "ip6" => network::<Ipv6Addr>(value?, 128),
        _ => None,
    }
}

/// `[:domain][/length4][//length6]`.
fn host(rest: &str) -> Option<(Target, Lengths)> {
    let (domain, lengths) = rest.split_at(lengths_begin(rest));
    let target = match domain.strip_prefix(':') {
        Some(domain) => target(domain)?,
        None if domain.is_empty() => Target::Own,
        None => return None,
    };
    let (four, six) = match lengths.split_once("//") {
        Some((four, six)) => (four, Some(six)),
        None => (lengths, None),
    };
    let four = match four.strip_prefix('/') {
        Some(length) => self::length(length, 32)?,
        None if four.is_empty() => 32,
        None => return None,
    };
    Some((target, Lengths { four, six: six.map_or(Some(128), |length| self::length(length, 128))? }))
}

/// Where the lengths begin; a `/` inside of a macro is none.
fn lengths_begin(text: &str) -> usize {
    let macros_end = text.rfind('}').map_or(0, |at| at + 1);
    text[macros_end..].find('/').map_or(text.len(), |at| macros_end + at)
}

fn network<T: std::str::FromStr + Into<IpAddr>>(text: &str, longest: u8) -> Option<Mechanism> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, self::length(length, longest)?),
        None => (text, longest),
    };
    Some(Mechanism::Network(address.parse::<T>().ok()?.into(), length))
}

fn length(text: &str, longest: u8) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    (is_number && is_plain).then(|| text.parse().ok()).flatten().filter(|&length| length <= longest)
}

/// A domain name, possibly with macros (section 7).
fn target(text: &str) -> Option<Target> {
    if text.contains('%') {
        return text.bytes().all(|b| b.is_ascii_graphic()).then_some(Target::Macro);
    }
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    (name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)).then_some(Target::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Target {
        Target::Name(name.into())
    }

    #[test]
    fn records_are_told_from_other_texts() {
        for text in ["v=spf1", "v=spf1 -all", "V=SPF1 a"] {
            assert!(is_spf(text), "{text}");
        }
        for text in ["", "v=spf10 -all", "v=spf1-all", "spf2.0/pra", "MS=ms123", " v=spf1"] {
            assert!(!is_spf(text), "{text}");
        }
    }

    #[test]
    fn what_administrators_publish_is_read() {
        let text = "v=spf1 ip4:203.0.113.0/24 ip6:2001:db8::/32 a mx:mail.contoso.com/28//64 include:SPF.protection.outlook.com ~all";
        let mechanisms: Vec<_> =
            parse(text).unwrap().directives.into_iter().map(|d| (d.passes, d.mechanism)).collect();
        assert_eq!(
            mechanisms,
            [
                (true, Mechanism::Network("203.0.113.0".parse().unwrap(), 24)),
                (true, Mechanism::Network("2001:db8::".parse().unwrap(), 32)),
                (true, Mechanism::A(Target::Own, Lengths { four: 32, six: 128 })),
                (true, Mechanism::Mx(name("mail.contoso.com"), Lengths { four: 28, six: 64 })),
                (true, Mechanism::Include(name("spf.protection.outlook.com"))),
                (false, Mechanism::All),
            ]
        );
    }

    #[test]
    fn nothing_counts_behind_all() {
        let record =
            parse("v=spf1 -all include:spf.protection.outlook.com redirect=_spf.contoso.com").unwrap();
        assert_eq!((record.directives.len(), record.redirect), (1, None));
        let record = parse("v=spf1 redirect=_spf.contoso.com").unwrap();
        assert_eq!(record.redirect, Some(name("_spf.contoso.com")));
    }

    #[test]
    fn macros_and_unknown_modifiers_are_allowed() {
        let record = parse(
            "v=spf1 include:%{i}._ip.%{h}._ehlo.%{d}._spf.vali.example exists:%{ir}.x.example/24 ra=postmaster exp=e.example ?all",
        );
        let record = record.unwrap();
        assert_eq!(record.directives[0].mechanism, Mechanism::Include(Target::Macro));
        assert_eq!(record.directives.len(), 3);
        assert_eq!(parse("v=spf1 a:%{d1r/}.contoso.com/24").unwrap().directives.len(), 1);
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_named() {
        for (text, term) in [
            ("v=spf1 include: -all", "include:"),
            ("v=spf1 ip4:203.0.113.256 -all", "ip4:203.0.113.256"),
            ("v=spf1 ip4:203.0.113.0/33", "ip4:203.0.113.0/33"),
            ("v=spf1 ip4:2001:db8::1", "ip4:2001:db8::1"),
            ("v=spf1 ipv4:203.0.113.1", "ipv4:203.0.113.1"),
            ("v=spf1 203.0.113.1", "203.0.113.1"),
            ("v=spf1 include:spf.protection.outlook.com, -all", "include:spf.protection.outlook.com,"),
            ("v=spf1 mx/ -all", "mx/"),
            ("v=spf1 all:x", "all:x"),
            ("v=spf1 a.contoso.com", "a.contoso.com"),
            ("v=spf1 redirect=a.example redirect=b.example", "redirect=b.example"),
            ("v=spf1 exp=a.example exp=b.example", "exp=b.example"),
            ("v=spf1 -", "-"),
        ] {
            assert_eq!(parse(text), Err(term.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_does_harm(text in "(v=spf1 )?[ -~é]{0,300}") {
            if let Ok(record) = parse(&text) {
                assert!(record.directives.len() <= text.len());
            }
        }

        #[test]
        fn terms_in_any_order_are_all_read(terms in proptest::collection::vec(
            proptest::sample::select(vec!["a", "mx", "ip4:192.0.2.1", "include:a.example", "?ptr", "-exists:b.example", "~ip6:::1/8"]), 0..40
        )) {
            let text = format!("v=spf1 {} -all", terms.join(" "));
            assert_eq!(parse(&text).unwrap().directives.len(), terms.len() + 1);
        }
    }
}
