//! The SPF policy of a domain, followed through includes: whether receivers can evaluate it. Pure.

use super::record::{self, Directive, Mechanism, NotATerm, Record, Target};
use crate::preflight::known::Reader;

/// Most terms that need a look-up (RFC 7208 section 4.6.4).
const MAX_LOOK_UPS: u32 = 10;

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
        "the SPF record of {domain} needs more than {MAX_LOOK_UPS} DNS look-ups with all its includes, more than receivers \
         allow: remove includes that are not needed"
    )]
    TooManyLookUps {
        /// Whose.
        domain: String,
    },
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
