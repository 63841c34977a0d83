//! The ledger of one mailbox: what was used, what is out, and who is next.
//!
//! Owns every decision about the mailbox's limits. Refuses to know pods, routes' texts, HTTP and where it is written down.
//!
//! What counts against the limit, at any time:
//!
//! ```text
//!  minute:      used in the window + leases out + what is allowed for by an earlier leader   ≤ limit − what is set aside
//!  day:         the same for recipients                                                      ≤ limit − what is set aside
//!  connections: sidecars with a lease out                                                    ≤ limit − what is set aside
//! ```
//!
//! The same, against its own limits, for each namespace. Of the day half of its fair part is kept for each namespace that is
//! there, and where there are several, one connection is for the others.
//!
//! * `hearing`: what sidecars say. `deciding`: what they are given. `fair`: how it is divided among namespaces.
//! * `aside`: what is kept for those out of contact. `recording`: what is written down, and what a new leader makes of it.

mod aside;
mod deciding;
mod fair;
mod hearing;
mod recording;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mailroute_limits::window::Window;

use super::line::Line;
use super::share::Share;
use super::terms::Terms;
use super::turns::Turns;
use super::{Amount, Holder, Limits, Namespace};
pub use aside::Living;
pub use deciding::Decision;

/// Slots of the minute, so that rounding costs less than a percent.
const MINUTE_SLOTS: u32 = 240;

/// Slots of the day: ten minutes each.
const DAY_SLOTS: u32 = 144;

/// A lease whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub holder: Holder,
    /// Which life of it asked. One that is over does not tell what it used.
    pub life: u64,
    pub amount: Amount,
    /// In answer to which claim of its holder; a claim after that one names it, or it was not received.
    pub sequence: u64,
    /// When it counts as used in full.
    pub until: Duration,
    /// When it was given.
    pub since: Duration,
}

/// Whether the end of a lease is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was counted, and is not written down.
    Counted,
    /// It is written down.
    Written,
    /// Nobody here knows of such a lease, so that there is nothing to write down.
    Unknown,
}

/// What an earlier leader may have given out after its last record.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    life: u64,
    amount: Amount,
    until: Duration,
}

/// One sidecar, as this leader has heard it.
#[derive(Clone, Copy, Debug)]
struct Sidecar {
    life: u64,
    sequence: u64,
    heard: Duration,
}

/// What may be given out without another record.
#[derive(Clone, Debug, Default)]
struct Allowance {
    by_name: BTreeMap<Holder, Amount>,
    until: Duration,
    numbers: u64,
}

/// The ledger of one mailbox.
#[derive(Clone, Debug)]
pub struct Ledger {
    terms: Terms,
    limits: Limits,
    shares: BTreeMap<Namespace, Share>,
    /// The namespace of each sidecar that is known, heard or not.
    homes: HashMap<Holder, Namespace>,
    minute: Window,
    day: Window,
    /// Leases that are out. By holder first, as anybody may name any number: nobody ends, extends or takes over another's.
    leases: BTreeMap<(Holder, u64), Out>,
    foreign: BTreeMap<Holder, Foreign>,
    /// Leases that ended, until their holder does not name them any more. By holder first, as anybody may name any number.
    ended: BTreeMap<(Holder, u64), End>,
    next_id: u64,
    sidecars: HashMap<Holder, Sidecar>,
    line: Line,
    turns: Turns,
    /// When the pace allows the next message.
    next: Duration,
    /// The most that is set aside for those who take turns, and until when.
    reserved: (u64, Duration),
    looked: Duration,
    /// Nothing is given out before.
    opens: Duration,
    allowance: Allowance,
    written: Duration,
    writes: u64,
    dirty: bool,
    /// The record is lost, so leases that nobody knows of are believed until it opens.
    lost: bool,
    /// What each sidecar is still believed to have been given when the record is lost.
    believed: HashMap<Holder, Amount>,
    /// Until then it is not known who may be taking turns.
    unknown_until: Duration,
}

impl Ledger {
    /// A ledger of a mailbox of which nothing was ever given out.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            limits: Limits { messages: 1, recipients: 1, connections: 1 },
            shares: BTreeMap::new(),
            homes: HashMap::new(),
            minute: Window::new(terms.minute, MINUTE_SLOTS),
            day: Window::new(terms.day, DAY_SLOTS),
            leases: BTreeMap::new(),
            foreign: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_id: 1,
            sidecars: HashMap::new(),
            line: Line::default(),
            turns: Turns::default(),
            next: Duration::ZERO,
            reserved: (0, Duration::ZERO),
            looked: Duration::ZERO,
            opens: Duration::ZERO,
            allowance: Allowance::default(),
            written: Duration::ZERO,
            writes: 0,
            dirty: false,
            lost: false,
            believed: HashMap::new(),
            unknown_until: Duration::ZERO,
        }
    }

    /// Whether there is nothing left to remember.
    pub fn is_empty(&mut self, now: Duration) -> bool {
        self.expire(now);
        let nothing_out = self.leases.is_empty() && self.foreign.is_empty() && self.sidecars.is_empty();
        nothing_out && now >= self.opens && self.turns.owners().next().is_none() && self.day.sum(now) == 0
    }

    /// A route of this namespace says that these are its mailbox's limits. They bound what the namespace gets; of several
    /// routes of it the smallest count.
    pub fn limit(&mut self, home: &Namespace, route: &str, limits: Limits, now: Duration) {
        let share = self.share(home, now);
        share.heard = now;
        if share.limit(route, limits, now) {
            self.agree();
        }
    }

    /// How the limits are used, to be seen.
    pub fn view(&mut self, now: Duration) -> View {
        let namespaces: Vec<Namespace> = self.shares.keys().cloned().collect();
        let restraint = self.shares.values().map(|share| share.restraint.share(now, self.terms.minute));
        let least = restraint.fold(1.0, f64::min);
        View {
            minute: (self.busy(now), self.limits.messages.into()),
            day: (self.day.sum(now) + self.out().recipients, self.limits.recipients.into()),
            share: least,
            waiting: self.line.len(),
            sidecars: self.sidecars.len(),
            reserved: self.aside(now).messages > 0,
            namespaces,
        }
    }

    fn share(&mut self, home: &Namespace, now: Duration) -> &mut Share {
        let terms = self.terms;
        self.shares.entry(home.clone()).or_insert_with(|| Share::new(terms, now))
    }

    /// The share of a sidecar's namespace.
    fn share_of(&mut self, who: Holder) -> Option<&mut Share> {
        self.shares.get_mut(self.homes.get(&who)?)
    }

    /// Takes the mailbox's limits from what its namespaces say.
    fn agree(&mut self) {
        if let Some(limits) = Limits::agreed(self.shares.values().filter_map(Share::says)) {
            self.limits = limits;
        }
    }

    fn count(&mut self, who: Holder, amount: Amount, now: Duration) {
        self.minute.add(now, amount.messages);
        self.day.add(now, amount.recipients);
        if let Some(share) = self.share_of(who) {
            share.minute.add(now, amount.messages);
            share.day.add(now, amount.recipients);
        }
        self.dirty = true;
    }

    /// What is out for longer than anybody can use it was used.
    fn expire(&mut self, now: Duration) {
        let over: Vec<(Holder, Amount)> = {
            let leases = self.leases.extract_if(.., |_, out| out.until <= now);
            let foreign = self.foreign.extract_if(.., |_, it| it.until <= now);
            let leases = leases.map(|(_, out)| (out.holder, out.amount));
            leases.chain(foreign.map(|(holder, it)| (holder, it.amount))).collect()
        };
        over.into_iter().for_each(|(holder, amount)| self.count(holder, amount, now));
    }

    fn busy(&mut self, now: Duration) -> u64 {
        self.minute.sum(now) + self.out().messages
    }

    fn out(&self) -> Amount {
        let leases = self.leases.values().map(|out| out.amount);
        leases.chain(self.foreign.values().map(|foreign| foreign.amount)).fold(Amount::default(), Amount::and)
    }
}

/// How the limits of a mailbox are used.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Messages used or out, of the limit.
    pub minute: (u64, u64),
    /// Recipients used or out, of the limit.
    pub day: (u64, u64),
    /// The smallest part of its share that a namespace gets after Microsoft found it too much, 1 without.
    pub share: f64,
    /// Sidecars in the line.
    pub waiting: usize,
    /// Sidecars heard.
    pub sidecars: usize,
    /// Whether a part is set aside for those out of contact.
    pub reserved: bool,
    /// The namespaces that use it.
    pub namespaces: Vec<Namespace>,
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod fair_tests;
#[cfg(test)]
mod tests;
