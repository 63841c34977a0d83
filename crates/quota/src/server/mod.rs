//! The operator's end: one [`Ledger`] for each mailbox, which decides who may send how much.
//!
//! The caller carries claims and answers, knows which pods exist, and stores the record. What counts against the limits at any time:
//!
//! ```text
//!  minute:      used in the window + leased + inherited from an earlier leader   ≤ limit − reserve
//!  hour:        the same, where the mailbox has such a limit                     ≤ limit − what is kept for time slots
//!  day:         the same for recipients                                          ≤ limit − reserve
//!  connections: sidecars with a lease                                            ≤ limit − reserve
//! ```
//!
//! The same holds for each namespace with its own limits. Where there are several namespaces, one connection is kept for the
//! others, and half of an equal share of the hour and of the day for each.
//!
//! * [`claim`]: what sidecars report. [`grant`]: what they are given. [`persist`]: what is stored, and how a new leader starts.
//! * [`fair_share`]: how the mailbox is divided among namespaces. [`namespace`]: one namespace. [`wait_queue`]: who is next.
//! * [`reserve`]: what is held back for sidecars without contact. [`slot_table`], [`unregistered`]: their time slots.
//! * [`application`]: connections of one application over all its mailboxes, where Microsoft limits those.
//! * [`limits`]: limits and ids. [`record`]: the stored text.

pub mod application;
pub mod claim;
pub mod fair_share;
pub mod grant;
pub mod limits;
pub mod namespace;
pub mod persist;
pub mod record;
pub mod reserve;
pub mod slot_table;
pub mod unregistered;
pub mod wait_queue;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use limits::{MailboxLimits, NO_LIMIT, Namespace, SidecarId};
use namespace::{NamespaceShare, SlotReserve};
use record::IssuedLease;
use slot_table::SlotTable;
use wait_queue::WaitQueue;

use crate::timing::Timing;
use crate::window::{DAY_SLOTS, UsageWindows};
use crate::{Amount, Utilization};

/// Slots of the minute's window, so that rounding costs less than a percent.
const MINUTE_SLOTS: u32 = 240;

/// How far the end of a lease has been recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseEnd {
    /// Counted, and not yet stored.
    Counted,
    /// Stored.
    Persisted,
    /// The lease is not known here, so there is nothing to store.
    Unknown,
}

/// What an earlier leader may have granted after its last record.
#[derive(Clone, Copy, Debug)]
struct InheritedGrant {
    instance: u64,
    amount: Amount,
    until: Duration,
}

/// The last claim of a sidecar.
#[derive(Clone, Copy, Debug)]
struct LastClaim {
    instance: u64,
    sequence: u64,
    heard: Duration,
}

/// What may be granted without another record.
#[derive(Clone, Debug, Default)]
struct Grantable {
    by_sidecar: BTreeMap<SidecarId, Amount>,
    until: Duration,
    /// Lease numbers below this one.
    numbers: u64,
}

/// The ledger of one mailbox.
#[derive(Clone, Debug)]
pub struct Ledger {
    timing: Timing,
    limits: MailboxLimits,
    /// In boxes: a node of the map has room for eleven, and most mailboxes have one namespace.
    shares: BTreeMap<Namespace, Box<NamespaceShare>>,
    /// The namespace of each known sidecar, heard or not.
    namespaces: HashMap<SidecarId, Namespace>,
    used: UsageWindows,
    /// By sidecar first, as any sidecar may name any number: none ends, extends or takes over another's lease.
    leases: BTreeMap<(SidecarId, u64), IssuedLease>,
    inherited: BTreeMap<SidecarId, InheritedGrant>,
    /// Leases that ended, until their sidecar no longer names them. By sidecar first, as any sidecar may name any number.
    ended: BTreeMap<(SidecarId, u64), LeaseEnd>,
    next_id: u64,
    sidecars: HashMap<SidecarId, LastClaim>,
    queue: WaitQueue,
    slots: SlotTable,
    /// When the pace allows the next message.
    next: Duration,
    /// The most that all namespaces together need for time slots.
    slot_reserve: SlotReserve,
    scanned: Duration,
    /// Nothing is granted before.
    opens: Duration,
    grantable: Grantable,
    stored_at: Duration,
    writes: u64,
    dirty: bool,
    /// The record is lost, so leases that are not known here are believed until `opens`.
    lost: bool,
    /// With a lost record: what each sidecar is still believed to have been granted.
    believed: HashMap<SidecarId, Amount>,
    /// Until then it is not known who may be using time slots.
    owners_unknown_until: Duration,
}

impl Ledger {
    /// A ledger of a mailbox of which nothing was ever granted.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            limits: MailboxLimits::LEAST,
            shares: BTreeMap::new(),
            namespaces: HashMap::new(),
            used: UsageWindows::new(timing, MINUTE_SLOTS, DAY_SLOTS),
            leases: BTreeMap::new(),
            inherited: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_id: 1,
            sidecars: HashMap::new(),
            queue: WaitQueue::default(),
            slots: SlotTable::default(),
            next: Duration::ZERO,
            slot_reserve: SlotReserve::default(),
            scanned: Duration::ZERO,
            opens: Duration::ZERO,
            grantable: Grantable::default(),
            stored_at: Duration::ZERO,
            writes: 0,
            dirty: false,
            lost: false,
            believed: HashMap::new(),
            owners_unknown_until: Duration::ZERO,
        }
    }

    /// Whether there is nothing left to remember.
    pub fn is_empty(&mut self, now: Duration) -> bool {
        self.expire(now);
        let nothing_out = self.leases.is_empty() && self.inherited.is_empty() && self.sidecars.is_empty();
        nothing_out && now >= self.opens && self.slots.owners().next().is_none() && self.used.expire(now)
    }

    /// Notes the limits that a route of this namespace names. They bound what the namespace gets; of several routes the smallest
    /// count.
    pub fn set_limits(&mut self, namespace: &Namespace, route: &str, limits: MailboxLimits, now: Duration) {
        let share = self.share(namespace, now);
        share.heard = now;
        if share.set_limits(route, limits, now) {
            self.agree_on_limits();
        }
    }

    /// How the limits are used, for people.
    pub fn view(&mut self, now: Duration) -> MailboxView {
        let namespaces: Vec<Namespace> = self.shares.keys().cloned().collect();
        let throttles = self.shares.values().map(|share| share.throttle.share(now, self.timing.minute));
        let throttle = throttles.fold(1.0, f64::min);
        let leased = self.leased();
        let (messages, recipients) =
            (self.used.hour.sum(now) + leased.messages, self.used.day.sum(now) + leased.recipients);
        MailboxView {
            minute: Utilization { used: self.busy(now), limit: self.limits.messages.into() },
            hour: (self.limits.messages_per_hour < NO_LIMIT)
                .then(|| Utilization { used: messages, limit: self.limits.messages_per_hour.into() }),
            day: Utilization { used: recipients, limit: self.limits.recipients.into() },
            throttle,
            waiting: self.queue.len(),
            sidecars: self.sidecars.len(),
            has_reserve: self.reserve(now).messages > 0,
            namespaces,
        }
    }

    fn share(&mut self, namespace: &Namespace, now: Duration) -> &mut NamespaceShare {
        let timing = self.timing;
        self.shares.entry(namespace.clone()).or_insert_with(|| Box::new(NamespaceShare::new(timing, now)))
    }

    /// The share of a sidecar's namespace.
    fn share_of(&mut self, who: SidecarId) -> Option<&mut NamespaceShare> {
        self.shares.get_mut(self.namespaces.get(&who)?).map(Box::as_mut)
    }

    /// Derives the mailbox's limits from those that its namespaces name.
    fn agree_on_limits(&mut self) {
        let named = self.shares.values().filter_map(|share| share.named_limits());
        if let Some(limits) = MailboxLimits::agreed(named) {
            self.limits = limits;
        }
    }

    fn count(&mut self, who: SidecarId, amount: Amount, now: Duration) {
        self.used.add(now, amount);
        if let Some(share) = self.share_of(who) {
            share.used.add(now, amount);
        }
        self.dirty = true;
    }

    /// Counts leases that nobody can be using any more as used.
    fn expire(&mut self, now: Duration) {
        let over: Vec<(SidecarId, Amount)> = {
            let leases = self.leases.extract_if(.., |_, lease| lease.until <= now);
            let inherited = self.inherited.extract_if(.., |_, grant| grant.until <= now);
            let leases = leases.map(|(_, lease)| (lease.holder, lease.amount));
            leases.chain(inherited.map(|(who, grant)| (who, grant.amount))).collect()
        };
        over.into_iter().for_each(|(who, amount)| self.count(who, amount, now));
    }

    /// Messages of the minute that are used or leased.
    fn busy(&mut self, now: Duration) -> u64 {
        self.used.minute.sum(now) + self.leased().messages
    }

    fn leased(&self) -> Amount {
        let leases = self.leases.values().map(|lease| lease.amount);
        leases.chain(self.inherited.values().map(|grant| grant.amount)).fold(Amount::default(), Amount::and)
    }
}

/// How the limits of a mailbox are used.
#[derive(Clone, Debug, PartialEq)]
pub struct MailboxView {
    /// Messages of the minute.
    pub minute: Utilization,
    /// Messages of the hour; nothing where it has no limit.
    pub hour: Option<Utilization>,
    /// Recipients of the day.
    pub day: Utilization,
    /// The smallest part of its share that a namespace may use after Microsoft throttled it, 1 without.
    pub throttle: f64,
    /// Sidecars in the wait queue.
    pub waiting: usize,
    /// Sidecars that were heard.
    pub sidecars: usize,
    /// Whether something is held back for sidecars without contact.
    pub has_reserve: bool,
    /// The namespaces that use the mailbox.
    pub namespaces: Vec<Namespace>,
}

#[cfg(test)]
mod fair_share_tests;
#[cfg(test)]
mod tests;
