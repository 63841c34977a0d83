//! What is stored, and how a new leader starts from it.
//!
//! Decides what a record allows until the next one; the caller stores it. A new leader assumes that everything that the record
//! allows was granted, until it hears from those sidecars or nobody can be using it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::limits::{MailboxLimits, NO_LIMIT, Namespace, SidecarId};
use super::namespace::NamespaceShare;
use super::record::{IssuedLease, LedgerRecord, NamespaceRecord, Preallocation};
use super::slot_table::SlotTable;
use super::{Grantable, InheritedGrant, LeaseEnd, Ledger};
use crate::Amount;
use crate::throttle::{LastThrottle, Throttle};
use crate::timing::Timing;
use crate::window::UsageWindows;

/// Sidecars to which one record allows grants.
const PREALLOCATED_SIDECARS: usize = 4;

/// Lease numbers that one record allows.
const LEASE_NUMBERS: u64 = 1000;

impl Ledger {
    /// A ledger whose record is lost. Everything may be leased, so nothing is granted until all of that has left the minute. Lease
    /// numbers start from the time.
    pub fn lost(timing: Timing, now: Duration) -> Self {
        let opens = now + timing.cut_off() + timing.minute + 2 * timing.clock_skew();
        let next_id = u64::try_from(now.as_millis()).unwrap_or(u64::MAX / 2);
        // All time slots count, as their owners are not known.
        let owners_unknown_until = opens + timing.slots_after();
        Self { opens, next_id, lost: true, owners_unknown_until, ..Self::new(timing) }
    }

    /// A ledger as it was stored, perhaps by another leader with another clock. It listens before it grants anything: sidecars
    /// with mail report in that time, so that nothing is reserved for them and their leases are known.
    pub fn restore(timing: Timing, record: &LedgerRecord, now: Duration) -> Self {
        let mut ledger = Self { opens: now + timing.scan_interval(), scanned: now, ..Self::new(timing) };
        let skew = timing.clock_skew();
        // The other clock may have been ahead or behind; nothing was counted in the future.
        record.minute.iter().for_each(|&(at, count)| ledger.used.minute.add((at + skew).min(now), count));
        record.hour.iter().for_each(|&(at, count)| ledger.used.hour.add(at.min(now), count));
        record.day.iter().for_each(|&(at, count)| ledger.used.day.add(at.min(now), count));
        // The earlier leader may have been in contact with every holder until just now.
        let until = now + timing.cut_off() + skew;
        for &(id, lease) in &record.leases {
            let lease = IssuedLease { until, sequence: u64::MAX, since: now, ..lease };
            ledger.leases.insert((lease.holder, id), lease);
        }
        for it in &record.preallocated {
            let grant = InheritedGrant { instance: it.instance, amount: it.amount, until };
            ledger.inherited.insert(it.holder, grant);
        }
        ledger.ended = record.ended.iter().map(|&(id, who)| ((who, id), LeaseEnd::Persisted)).collect();
        ledger.next_id = record.next_id;
        ledger.slots = SlotTable::restored(record.slots.iter().copied());
        record.unacknowledged.iter().for_each(|&who| ledger.slots.set_acknowledged(who, false));
        for it in &record.namespaces {
            let mut share = NamespaceShare::restored(timing, it.limits, now);
            it.hour.iter().for_each(|&(at, count)| share.used.hour.add(at.min(now), count));
            it.day.iter().for_each(|&(at, count)| share.used.day.add(at.min(now), count));
            let last = it.throttle.map(|last| LastThrottle { at: last.at.min(now), ..last });
            share.throttle = Throttle::restored(last);
            ledger.shares.insert(it.name.clone(), Box::new(share));
        }
        let name = |place: u32| record.namespaces.get(place as usize).map(|it| it.name.clone());
        let members = record.members.iter().filter_map(|&(who, place)| Some((who, name(place)?)));
        ledger.namespaces = members.collect();
        ledger.agree_on_limits();
        ledger
    }

    /// What to store at `now`. It allows grants to the sidecar that asks and to the next in the queue. Nothing is granted until
    /// [`Ledger::persisted`], as this record would not cover it.
    pub fn record(&mut self, asks: Option<SidecarId>, now: Duration) -> LedgerRecord {
        self.expire(now);
        self.grantable = Grantable::default();
        self.dirty = false;
        let inherited = self.inherited.iter().map(|(&holder, grant)| Preallocation {
            holder,
            instance: grant.instance,
            amount: grant.amount,
        });
        let inherited: Vec<Preallocation> = inherited.collect();
        let ended = self.ended.iter().filter(|(_, end)| **end != LeaseEnd::Unknown);
        let ended = ended.map(|((who, id), _)| (*id, *who)).collect();
        let preallocated = inherited.into_iter().chain(self.preallocate(asks, now)).collect();
        let (namespaces, members) = self.namespace_records();
        LedgerRecord {
            namespaces,
            members,
            minute: self.used.minute.counted().collect(),
            hour: hour(&self.used, self.limits),
            day: self.used.day.counted().collect(),
            leases: self.leases.iter().map(|((_, id), lease)| (*id, *lease)).collect(),
            preallocated,
            preallocated_until: now + self.timing.persist_interval(),
            ended,
            next_id: self.next_id + LEASE_NUMBERS,
            slots: self.slots.assignments().collect(),
            unacknowledged: self.slots.unacknowledged().collect(),
        }
    }

    /// The namespaces, and each sidecar with the place of its namespace among them.
    fn namespace_records(&self) -> (Vec<NamespaceRecord>, Vec<(SidecarId, u32)>) {
        let record = |name: &Namespace, share: &NamespaceShare| NamespaceRecord {
            name: name.clone(),
            limits: share.limits,
            hour: hour(&share.used, share.limits),
            day: share.used.day.counted().collect(),
            throttle: share.throttle.last(),
        };
        let places: HashMap<&Namespace, u32> = self.shares.keys().zip(0..).collect();
        let members = self.namespaces.iter().filter_map(|(who, name)| Some((*who, *places.get(name)?)));
        let mut members: Vec<_> = members.collect();
        members.sort_unstable();
        (self.shares.iter().map(|(name, share)| record(name, share)).collect(), members)
    }

    /// Notes that a record made by [`Ledger::record`] is stored.
    pub fn persisted(&mut self, record: &LedgerRecord, now: Duration) {
        let stored: BTreeSet<(SidecarId, u64)> = record.ended.iter().map(|&(id, who)| (who, id)).collect();
        for (key, end) in &mut self.ended {
            if *end == LeaseEnd::Counted && stored.contains(key) {
                *end = LeaseEnd::Persisted;
            }
        }
        let own = record.preallocated.iter().filter(|it| !self.inherited.contains_key(&it.holder));
        let by_sidecar = own.map(|it| (it.holder, it.amount)).collect();
        self.grantable = Grantable { by_sidecar, until: record.preallocated_until, numbers: record.next_id };
        self.slots.persisted(&record.slots);
        self.stored_at = now;
        self.writes += 1;
    }

    /// How many records were stored.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether news has waited long enough to be stored.
    pub fn is_due(&self, now: Duration) -> bool {
        self.dirty && now >= self.stored_at + self.timing.persist_interval()
    }

    /// To whom the next record allows how much.
    fn preallocate(&mut self, asks: Option<SidecarId>, now: Duration) -> Vec<Preallocation> {
        let most = self.most_at_once();
        let uses = self.namespace_uses(now);
        let own = asks.and_then(|asks| Some((asks, self.queue.demand(asks)?)));
        let others = self.queue.first(PREALLOCATED_SIDECARS, &uses, self.limits);
        let mut preallocated = BTreeMap::new();
        for (holder, demand) in own.into_iter().chain(others).take(PREALLOCATED_SIDECARS) {
            let messages = demand.messages.min(most);
            let amount = Amount { messages, recipients: messages * demand.recipients };
            let instance = self.sidecars.get(&holder).map_or(0, |last| last.instance);
            preallocated.insert(holder, Preallocation { holder, instance, amount });
        }
        preallocated.into_values().collect()
    }
}

/// Messages of the hour by time, where they are limited.
fn hour(used: &UsageWindows, limits: MailboxLimits) -> Vec<(Duration, u64)> {
    if limits.messages_per_hour == NO_LIMIT { vec![] } else { used.hour.counted().collect() }
}
