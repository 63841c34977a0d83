//! Whom a policy lets send. Pure.
//!
//! As a receiver decides it (RFC 7208 section 4.6), with one difference: what depends on the message (macros, `ptr`,
//! `exists`) or could not be looked up is neither yes nor no.
//!
//! Invariant: [`permits`] ends because [`super::policy::check`] did: ten look-ups are the most that a policy may need, so a circle of
//! includes is found there.

use std::net::IpAddr;

use super::policy::published;
use super::record::{Directive, Lengths, Mechanism, Record, Target};
use crate::preflight::known::Reader;

/// Most mail exchangers of one `mx` term (same section).
const MAX_EXCHANGERS: usize = 10;

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

/// Whether `record` of `domain`, for which [`super::policy::check`] holds, lets `sender` send.
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
            // What cannot be evaluated was found by `policy::check`.
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
