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
//! * `hearing`: what sidecars say. `deciding`: what they are given.
//! * `aside`: what is kept for those out of contact. `recording`: what is written down, and what a new leader makes of it.

mod aside;
mod deciding;
mod hearing;
mod recording;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mailroute_limits::restraint::Restraint;
use mailroute_limits::window::Window;

use super::line::Line;
use super::strangers::Strangers;
use super::terms::Terms;
use super::turns::Turns;
use super::{Amount, Holder, Limits};
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
    by_route: HashMap<String, (Limits, Duration)>,
    minute: Window,
    day: Window,
    leases: BTreeMap<u64, Out>,
    foreign: BTreeMap<Holder, Foreign>,
    /// Leases that ended and were counted, until their holder does not name them any more; whether that is written down.
    ended: BTreeMap<u64, (Holder, bool)>,
    next_id: u64,
    sidecars: HashMap<Holder, Sidecar>,
    line: Line,
    turns: Turns,
    strangers: Strangers,
    restraint: Restraint,
    /// When the pace allows the next message.
    next: Duration,
    /// What is set aside, and until when.
    reserved: u64,
    reserved_until: Duration,
    looked: Duration,
    /// Nothing is given out before.
    opens: Duration,
    allowance: Allowance,
    written: Duration,
    writes: u64,
    dirty: bool,
    /// The record is lost, so leases that nobody knows of are believed.
    lost: bool,
}

impl Ledger {
    /// A ledger of a mailbox of which nothing was ever given out.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            limits: Limits { messages: 1, recipients: 1, connections: 1 },
            by_route: HashMap::new(),
            minute: Window::new(terms.minute, MINUTE_SLOTS),
            day: Window::new(terms.day, DAY_SLOTS),
            leases: BTreeMap::new(),
            foreign: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_id: 1,
            sidecars: HashMap::new(),
            line: Line::default(),
            turns: Turns::default(),
            strangers: Strangers::default(),
            restraint: Restraint::default(),
            next: Duration::ZERO,
            reserved: 0,
            reserved_until: Duration::ZERO,
            looked: Duration::ZERO,
            opens: Duration::ZERO,
            allowance: Allowance::default(),
            written: Duration::ZERO,
            writes: 0,
            dirty: false,
            lost: false,
        }
    }

    /// Whether there is nothing left to remember.
    pub fn is_empty(&mut self, now: Duration) -> bool {
        let nothing_out = self.leases.is_empty() && self.foreign.is_empty() && self.sidecars.is_empty();
        nothing_out && self.turns.owners().next().is_none() && self.day.sum(now) == 0
    }

    /// A route with this mailbox says that these are its limits. The smallest of what all routes in use say counts.
    pub fn limit(&mut self, route: &str, limits: Limits, now: Duration) {
        let known = self.by_route.get(route).map(|(limits, _)| *limits);
        if known.is_none() {
            self.by_route.insert(route.to_owned(), (limits, now));
        }
        if let Some(entry) = self.by_route.get_mut(route) {
            *entry = (limits, now);
        }
        if known != Some(limits) {
            self.choose_limits(now);
        }
    }

    /// How the limits are used, to be seen.
    pub fn view(&mut self, now: Duration) -> View {
        View {
            minute: (self.busy(now), self.limits.messages.into()),
            day: (self.day.sum(now) + self.out().recipients, self.limits.recipients.into()),
            share: self.restraint.share(now, self.terms.minute),
            waiting: self.line.len(),
            sidecars: self.sidecars.len(),
            reserved: self.aside(now).messages > 0,
        }
    }

    fn choose_limits(&mut self, now: Duration) {
        let remembered = self.terms.remembered();
        self.by_route.retain(|_, (_, seen)| now < *seen + remembered);
        if let Some(least) = self.by_route.values().map(|(limits, _)| *limits).reduce(Limits::least) {
            self.limits = least;
        }
    }

    fn count(&mut self, amount: Amount, now: Duration) {
        self.minute.add(now, amount.messages);
        self.day.add(now, amount.recipients);
        self.dirty = true;
    }

    /// What is out for longer than anybody can use it was used.
    fn expire(&mut self, now: Duration) {
        let over: Vec<Amount> = {
            let leases = self.leases.extract_if(.., |_, out| out.until <= now).map(|(_, out)| out.amount);
            let foreign = self.foreign.extract_if(.., |_, it| it.until <= now).map(|(_, it)| it.amount);
            leases.chain(foreign).collect()
        };
        over.into_iter().for_each(|amount| self.count(amount, now));
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Messages used or out, of the limit.
    pub minute: (u64, u64),
    /// Recipients used or out, of the limit.
    pub day: (u64, u64),
    /// The share of the limits that is given out after Microsoft found it too much, 1 without.
    pub share: f64,
    /// Sidecars in the line.
    pub waiting: usize,
    /// Sidecars heard.
    pub sidecars: usize,
    /// Whether a part is set aside for those out of contact.
    pub reserved: bool,
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
