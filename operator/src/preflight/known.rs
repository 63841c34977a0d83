//! What name servers have answered, and what else has to be asked. Pure: nothing here asks.
//!
//! Evaluations look at records through [`Reader`]. It notes what is not known yet as wanted; once that has been asked, the
//! evaluation is done again. So evaluations stay functions of values.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mailroute_dns::message::{Answer, Exchanger, Wanted};

/// Most records of one answer that are kept. A domain has two or three; many more are an attack.
const MAX_RECORDS: usize = 64;

/// Longest text that is kept, octets. What is longer is no policy that a receiver would evaluate.
const MAX_TEXT: usize = 16 * 1024;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name, in lower case, without the final dot.
    pub name: String,
    /// What of it.
    pub wanted: Wanted,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The name does not exist.
    NoSuchName,
    /// Its mail exchangers, possibly none.
    Exchangers(Vec<Exchanger>),
    /// Its texts, possibly none.
    Texts(Vec<String>),
    /// The names that it is an alias of, possibly none.
    Aliases(Vec<String>),
    /// Its addresses, possibly none.
    Addresses(Vec<IpAddr>),
    /// No name server answered, for this reason.
    Failed(String),
}

/// All answers about one domain.
#[derive(Clone, Debug, Default)]
pub struct Known {
    facts: BTreeMap<Question, Fact>,
    /// How long all of it is valid; none while no answer had a record.
    pub ttl: Option<Duration>,
}

/// Reads what is known and notes what is not.
#[derive(Debug)]
pub struct Reader<'a> {
    known: &'a Known,
    wanted: RefCell<BTreeSet<Question>>,
    failed: RefCell<BTreeSet<&'a str>>,
}

impl Question {
    /// What `wanted` says of `name`.
    pub fn new(name: &str, wanted: Wanted) -> Self {
        Self { name: name.trim_end_matches('.').to_ascii_lowercase(), wanted }
    }
}

impl Fact {
    /// What an answer says, bounded, and how long it is valid.
    pub fn read(wanted: Wanted, answer: &Answer) -> (Self, Option<Duration>) {
        if answer.has_no_name() {
            return (Self::NoSuchName, None);
        }
        match wanted {
            Wanted::Mx => {
                let records = answer.exchangers();
                (Self::Exchangers(bounded(records.found)), records.ttl)
            }
            Wanted::Txt => {
                let records = answer.texts();
                let short = records.found.into_iter().filter(|text| text.len() <= MAX_TEXT);
                (Self::Texts(bounded(short.collect())), records.ttl)
            }
            Wanted::Cname => {
                let records = answer.aliases();
                (Self::Aliases(bounded(records.found)), records.ttl)
            }
            Wanted::A | Wanted::Aaaa => {
                let records = answer.addresses();
                (Self::Addresses(bounded(records.found)), records.ttl)
            }
        }
    }
}

fn bounded<T>(mut records: Vec<T>) -> Vec<T> {
    records.truncate(MAX_RECORDS);
    records
}

impl Known {
    /// Stores an answer, valid for `ttl`.
    pub fn learn(&mut self, question: Question, fact: Fact, ttl: Option<Duration>) {
        self.ttl = self.ttl.into_iter().chain(ttl).min();
        self.facts.insert(question, fact);
    }

    /// How many questions were answered, or tried.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether nothing was asked yet.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }
}

impl<'a> Reader<'a> {
    /// Reads `known`.
    pub const fn new(known: &'a Known) -> Self {
        Self { known, wanted: RefCell::new(BTreeSet::new()), failed: RefCell::new(BTreeSet::new()) }
    }

    /// Mail exchangers of a name; none while they are not known.
    pub fn exchangers(&self, name: &str) -> Option<&'a [Exchanger]> {
        match self.fact(name, Wanted::Mx)? {
            Fact::Exchangers(found) => Some(found),
            _ => Some(&[]),
        }
    }

    /// Texts of a name; none while they are not known.
    pub fn texts(&self, name: &str) -> Option<&'a [String]> {
        match self.fact(name, Wanted::Txt)? {
            Fact::Texts(found) => Some(found),
            _ => Some(&[]),
        }
    }

    /// The names that a name is an alias of; none while they are not known.
    pub fn aliases(&self, name: &str) -> Option<&'a [String]> {
        match self.fact(name, Wanted::Cname)? {
            Fact::Aliases(found) => Some(found),
            _ => Some(&[]),
        }
    }

    /// Addresses of a name, of the family of `like`; none while they are not known.
    pub fn addresses(&self, name: &str, like: IpAddr) -> Option<&'a [IpAddr]> {
        let wanted = if like.is_ipv4() { Wanted::A } else { Wanted::Aaaa };
        match self.fact(name, wanted)? {
            Fact::Addresses(found) => Some(found),
            _ => Some(&[]),
        }
    }

    /// Whether the name is known not to exist.
    pub fn is_no_name(&self, name: &str) -> bool {
        matches!(self.fact(name, Wanted::Mx), Some(Fact::NoSuchName))
    }

    /// What has to be asked before more can be said.
    pub fn into_wanted(self) -> BTreeSet<Question> {
        self.wanted.into_inner()
    }

    /// Why name servers did not answer something that was needed.
    pub fn failures(&self) -> Vec<String> {
        self.failed.borrow().iter().map(|failure| (*failure).to_owned()).collect()
    }

    fn fact(&self, name: &str, wanted: Wanted) -> Option<&'a Fact> {
        let question = Question::new(name, wanted);
        match self.known.facts.get(&question) {
            Some(Fact::Failed(why)) => {
                self.failed.borrow_mut().insert(why);
                None
            }
            Some(fact) => Some(fact),
            None => {
                self.wanted.borrow_mut().insert(question);
                None
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A zone: names with their TXT, MX, CNAME and A records; a name that is not in it does not exist.
    pub(crate) fn answer_from(zone: &[(&str, Wanted, &[&str])], question: &Question) -> Fact {
        let of_name: Vec<_> = zone.iter().filter(|(name, ..)| *name == question.name).collect();
        if of_name.is_empty() {
            return Fact::NoSuchName;
        }
        let values = of_name.iter().filter(|(_, wanted, _)| *wanted == question.wanted);
        let values: Vec<&str> = values.flat_map(|(.., values)| values.iter().copied()).collect();
        let owned = || values.iter().map(|value| (*value).to_owned()).collect();
        match question.wanted {
            Wanted::Txt => Fact::Texts(owned()),
            Wanted::Cname => Fact::Aliases(owned()),
            Wanted::Mx => {
                let exchanger = |(at, name): (usize, &&str)| Exchanger {
                    preference: u16::try_from(at).unwrap(),
                    name: (*name).to_owned(),
                };
                Fact::Exchangers(values.iter().enumerate().map(exchanger).collect())
            }
            Wanted::A | Wanted::Aaaa => {
                Fact::Addresses(values.iter().map(|ip| ip.parse().unwrap()).collect())
            }
        }
    }

    #[test]
    fn what_is_not_known_is_wanted_once_whatever_its_spelling() {
        let known = Known::default();
        let reader = Reader::new(&known);
        assert_eq!(reader.texts("Contoso.COM."), None);
        assert_eq!(reader.texts("contoso.com"), None);
        assert_eq!(
            reader.into_wanted().into_iter().collect::<Vec<_>>(),
            [Question::new("contoso.com", Wanted::Txt)]
        );
    }

    #[test]
    fn a_failure_is_not_asked_again_and_is_told() {
        let mut known = Known::default();
        known.learn(Question::new("contoso.com", Wanted::Txt), Fact::Failed("SERVFAIL".into()), None);
        let reader = Reader::new(&known);
        assert_eq!(reader.texts("contoso.com"), None);
        assert_eq!(reader.failures(), ["SERVFAIL"]);
        assert!(reader.into_wanted().is_empty());
    }

    #[test]
    fn all_is_good_as_long_as_the_shortest_lived() {
        let mut known = Known::default();
        for (name, ttl) in [("a", Some(300)), ("b", None), ("c", Some(60))] {
            known.learn(Question::new(name, Wanted::Txt), Fact::Texts(vec![]), ttl.map(Duration::from_secs));
        }
        assert_eq!(known.ttl, Some(Duration::from_secs(60)));
    }
}
