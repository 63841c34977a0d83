//! The SPF policy of a domain, with its includes: can receivers evaluate it, and does it allow the servers that this route's mail
//! comes from? Pure.
//!
//! This is less than a receiver does (RFC 7208 section 4.6), who judges one message: a [`Policy`] is the sum of all terms that
//! allow. The order of terms does not count, nor does an exception such as `-ip4`. What depends on the message (macros, `ptr`,
//! `exists`) or could not be looked up is no finding.
//!
//! Invariant: [`Policy::read`] ends, since ten look-ups are the most that a policy may need: a circle of includes needs more.

pub mod record;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use self::record::{Directive, Mechanism, Record, Target};
use super::known::Reader;

/// Most terms that need a look-up (RFC 7208 section 4.6.4).
const MAX_LOOK_UPS: u32 = 10;

/// Most mail exchangers of one `mx` term (same section).
const MAX_EXCHANGERS: usize = 10;

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
    #[error("in the SPF record of {domain} {term:?} is not understood: correct or remove it")]
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

/// The senders that a domain allows, with all that it includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy<'a> {
    /// The domain's own record, as it is published.
    pub text: &'a str,
    /// Everyone: `+all`, or terms that depend on the message or could not be looked up.
    is_open: bool,
    /// Addresses that depend on the message or could not be looked up.
    has_unknown_hosts: bool,
    /// The domains whose records count.
    includes: BTreeSet<String>,
    networks: BTreeSet<(IpAddr, u8)>,
}

impl<'a> Policy<'a> {
    /// The policy of a domain; none while its record is not known, and none within when there is none. Hosts are looked up for the
    /// families of `addresses` alone.
    ///
    /// # Errors
    /// Within: why receivers cannot evaluate it, as far as it is known.
    pub fn read(
        reader: &Reader<'a>,
        domain: &str,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<Result<Option<Self>, Broken>> {
        let whole = |(text, record): (&'a str, Record)| {
            let policy = Self { text, ..Self::default() };
            let mut walk = Walk { reader, whole: domain, addresses, look_ups: 0, policy };
            walk.add(domain, &record, true).map(|()| walk.policy)
        };
        Some(published(reader, domain)?.and_then(|found| found.map(whole).transpose()))
    }

    /// Whether this address may certainly not send.
    pub fn leaves_out(&self, ip: IpAddr) -> bool {
        !self.is_open && !self.has_unknown_hosts && !self.lists(ip)
    }

    /// Whether a service, known by the name that one includes for it, may certainly not send. Some domains list its networks in place
    /// of the include.
    pub fn leaves_out_service(&self, reader: &Reader<'_>, service: &str) -> bool {
        if self.is_open || self.includes.contains(service) {
            return false;
        }
        // Without a record of its own we do not know the service as well as we think.
        let Some(Ok(Some((_, record)))) = published(reader, service) else { return false };
        let networks = record.directives.iter().filter_map(|directive| match directive.mechanism {
            Mechanism::Network(base @ IpAddr::V4(_), _) if directive.passes => Some(base),
            _ => None,
        });
        let listed: Vec<_> = networks.map(|base| self.lists(base)).collect();
        listed.is_empty() || listed.contains(&false)
    }

    fn lists(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|(base, length)| is_within(ip, *base, *length))
    }
}

/// The record that a domain publishes, as text and as a value; none while it is not known, and none within when there is none.
fn published<'a>(reader: &Reader<'a>, domain: &str) -> Option<Result<Option<(&'a str, Record)>, Broken>> {
    let texts = reader.texts(domain)?;
    let records: Vec<_> = texts.iter().filter(|text| record::is_spf(text)).collect();
    Some(match records.as_slice() {
        [] => Ok(None),
        [text] => record::parse(text)
            .map(|record| Some((text.as_str(), record)))
            .map_err(|term| Broken::Term { domain: domain.to_owned(), term }),
        several => Err(Broken::Several { domain: domain.to_owned(), count: several.len() }),
    })
}

/// Goes through a policy once: counts look-ups, and sums up whom it allows.
struct Walk<'r, 'a> {
    reader: &'r Reader<'a>,
    whole: &'r str,
    addresses: &'r BTreeSet<IpAddr>,
    look_ups: u32,
    policy: Policy<'a>,
}

impl<'a> Walk<'_, 'a> {
    /// Adds a record. In an include that does not allow, only look-ups are counted, and `counts` is false.
    fn add(&mut self, domain: &str, record: &Record, counts: bool) -> Result<(), Broken> {
        for Directive { passes, mechanism } in &record.directives {
            let counts = counts && *passes;
            match mechanism {
                Mechanism::All => self.policy.is_open |= counts,
                Mechanism::Include(target) => self.follow(domain, target, counts)?,
                Mechanism::Network(base, length) if counts => {
                    self.policy.networks.insert((*base, *length));
                }
                Mechanism::Network(..) => {}
                _ => self.count()?,
            }
            if counts {
                self.add_hosts(domain, mechanism);
            }
        }
        record.redirect.as_ref().map_or(Ok(()), |target| self.follow(domain, target, counts))
    }

    fn count(&mut self) -> Result<(), Broken> {
        self.look_ups += 1;
        if self.look_ups > MAX_LOOK_UPS {
            return Err(Broken::TooManyLookUps { domain: self.whole.to_owned() });
        }
        Ok(())
    }

    fn follow(&mut self, domain: &str, target: &Target, counts: bool) -> Result<(), Broken> {
        self.count()?;
        let Target::Name(name) = target else {
            self.policy.is_open |= counts;
            return Ok(());
        };
        match published(self.reader, name).transpose()? {
            None => self.policy.is_open |= counts,
            Some(None) => {
                return Err(Broken::NoRecord { domain: domain.to_owned(), target: name.clone() });
            }
            Some(Some((_, record))) => {
                if counts {
                    self.policy.includes.insert(name.clone());
                }
                self.add(name, &record, counts)?;
            }
        }
        Ok(())
    }

    /// Adds the addresses of the hosts of a term that allows, or notes that they are not known.
    fn add_hosts(&mut self, domain: &str, mechanism: &Mechanism) {
        let hosts = match mechanism {
            Mechanism::All | Mechanism::Include(_) | Mechanism::Network(..) => return,
            Mechanism::Exists(_) => return self.policy.is_open = true,
            Mechanism::Ptr => None,
            Mechanism::A(target, lengths) => name_of(target, domain).map(|host| (vec![host], lengths)),
            Mechanism::Mx(target, lengths) => self.exchangers(target, domain).map(|hosts| (hosts, lengths)),
        };
        let Some((hosts, lengths)) = hosts else { return self.policy.has_unknown_hosts = true };
        for (host, like) in
            hosts.into_iter().flat_map(|host| self.addresses.iter().map(move |ip| (host, *ip)))
        {
            match self.reader.addresses(host, like) {
                Some(found) => self.policy.networks.extend(found.iter().map(|ip| (*ip, lengths.of(*ip)))),
                None => self.policy.has_unknown_hosts = true,
            }
        }
    }

    fn exchangers<'n>(&self, target: &'n Target, domain: &'n str) -> Option<Vec<&'n str>>
    where
        'a: 'n,
    {
        if self.addresses.is_empty() {
            return Some(Vec::new());
        }
        let exchangers = self.reader.exchangers(name_of(target, domain)?)?.iter().take(MAX_EXCHANGERS);
        Some(exchangers.map(|it| it.name.as_str()).filter(|name| !name.is_empty()).collect())
    }
}

fn name_of<'t>(target: &'t Target, own: &'t str) -> Option<&'t str> {
    match target {
        Target::Own => Some(own),
        Target::Name(name) => Some(name),
        Target::Macro => None,
    }
}

/// Whether an address is in the network of this base and length.
fn is_within(ip: IpAddr, base: IpAddr, length: u8) -> bool {
    let same_bits = match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => (ip.to_bits() ^ base.to_bits()).leading_zeros(),
        (IpAddr::V6(ip), IpAddr::V6(base)) => (ip.to_bits() ^ base.to_bits()).leading_zeros(),
        _ => return false,
    };
    same_bits >= length.into()
}
