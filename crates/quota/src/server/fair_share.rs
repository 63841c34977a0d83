//! How a mailbox is divided among the namespaces that send as it.
//!
//! Messages and connections go to the namespace that has least at that moment ([`super::wait_queue`]), so what one does not want is
//! the others'. The hour and the day cannot be waited out, so half of an equal share of each is kept for each namespace that has
//! pods.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Ledger;
use super::limits::{MailboxLimits, Namespace, SidecarId};
use super::namespace::NamespaceShare;
use super::wait_queue::NamespaceUse;
use crate::Amount;
use crate::timing::Timing;
use crate::window::UsageWindows;

/// What a namespace has leased: the amount, and the sidecars with a connection.
#[derive(Debug, Default)]
struct NamespaceLeases {
    amount: Amount,
    holders: BTreeSet<SidecarId>,
}

/// Among how many namespaces a mailbox is divided.
#[derive(Clone, Copy, Debug)]
struct Division {
    /// Those that want or use some of the minute, at least one.
    active: u64,
    /// Those that have pods.
    present: usize,
}

impl Ledger {
    /// What each namespace has of the mailbox.
    pub(super) fn namespace_uses(&mut self, now: Duration) -> BTreeMap<Namespace, NamespaceUse> {
        let (leases, division) = (self.leases_by_namespace(), self.division(now));
        let (limits, timing) = (self.limits, self.timing);
        let used = |(name, share): (&Namespace, &mut Box<NamespaceShare>)| {
            let nothing = NamespaceLeases::default();
            let leased = leases.get(name).unwrap_or(&nothing);
            let messages = share.used.minute.sum(now) + leased.amount.messages;
            let connections = leased.holders.len() as u64;
            let own = limits_of(share, limits, division, timing, now);
            let more_messages = paced(own.messages.into(), messages, share.next, now);
            let more_connections = u64::from(own.connections).saturating_sub(connections);
            let room = usize::try_from(more_messages.min(more_connections)).unwrap_or(usize::MAX);
            (name.clone(), NamespaceUse { messages, connections, room, served: share.served })
        };
        self.shares.iter_mut().map(used).collect()
    }

    /// What a namespace may have.
    pub(super) fn own_limits(&mut self, namespace: &Namespace, now: Duration) -> MailboxLimits {
        let division = self.division(now);
        match self.shares.get(namespace) {
            Some(share) => limits_of(share, self.limits, division, self.timing, now),
            None => MailboxLimits { messages: 0, messages_per_hour: 0, recipients: 0, connections: 0 },
        }
    }

    /// Messages of the hour and recipients of the day that a namespace may have now: what its own limits leave, and what is left of
    /// the mailbox's without the part that is kept for the others.
    pub(super) fn free_beyond_minute(&mut self, namespace: &Namespace, now: Duration) -> Amount {
        let leases = self.leases_by_namespace();
        let leased = |name: &Namespace| leases.get(name).map_or(Amount::NOTHING, |leased| leased.amount);
        let unregistered = Amount { messages: 0, recipients: self.unregistered_recipients(now) };
        let whole = self.limits.beyond_minute().less(self.limits.kept_for_slots()).less(unregistered);
        let left = whole.less(beyond_minute(&mut self.used, now).and(self.leased()));
        let (timing, present) = (self.timing, self.present(now) as u64);
        let parts = 2 * present.max(1);
        let kept_for_each = Amount { messages: whole.messages / parts, recipients: whole.recipients / parts };
        let (mut kept, mut own) = (Amount::NOTHING, Amount::NOTHING);
        for (name, share) in &mut self.shares {
            let used = beyond_minute(&mut share.used, now).and(leased(name));
            let limits = share.limits.beyond_minute();
            if name == namespace {
                own = limits.less(used);
            } else if share.is_present(timing, now) {
                kept = kept.and(kept_for_each.least(limits).less(used));
            }
        }
        left.less(kept).least(own)
    }

    /// How many namespaces have pods.
    pub(super) fn present(&self, now: Duration) -> usize {
        self.shares.values().filter(|share| share.is_present(self.timing, now)).count()
    }

    fn division(&mut self, now: Duration) -> Division {
        let waiting: BTreeSet<Namespace> = self.queue.namespaces().cloned().collect();
        let mut active = 0;
        for (name, share) in &mut self.shares {
            active += u64::from(waiting.contains(name) || share.used.minute.sum(now) > 0);
        }
        Division { active: active.max(1), present: self.present(now) }
    }

    fn leases_by_namespace(&self) -> BTreeMap<Namespace, NamespaceLeases> {
        let mut all = BTreeMap::<Namespace, NamespaceLeases>::new();
        let leases = self.leases.values().map(|lease| (lease.holder, lease.amount));
        let inherited = self.inherited.iter().map(|(who, grant)| (*who, grant.amount));
        for (who, amount) in leases.chain(inherited) {
            let Some(namespace) = self.namespaces.get(&who) else { continue };
            let leased = all.entry(namespace.clone()).or_default();
            leased.amount = leased.amount.and(amount);
            leased.holders.insert(who);
        }
        all
    }
}

/// Messages of the hour and recipients of the day.
fn beyond_minute(used: &mut UsageWindows, now: Duration) -> Amount {
    Amount { messages: used.hour.sum(now), recipients: used.day.sum(now) }
}

/// What a namespace may have of the minute and of the connections: its own limits; a part of an equal share for a while after
/// Microsoft throttled it; and one connection less than all where there are others.
fn limits_of(
    share: &NamespaceShare,
    limits: MailboxLimits,
    division: Division,
    timing: Timing,
    now: Duration,
) -> MailboxLimits {
    let equal = |whole: u32| u32::try_from(u64::from(whole) / division.active).unwrap_or(whole).max(1);
    let throttled = |own: u32, whole: u32| {
        if share.throttle.share(now, timing.minute) >= 1.0 {
            return own;
        }
        let left = share.throttle.of(equal(whole).into(), now, timing.minute);
        own.min(u32::try_from(left).unwrap_or(own))
    };
    let connections =
        if division.present > 1 { limits.connections.saturating_sub(1).max(1) } else { limits.connections };
    MailboxLimits {
        messages: throttled(share.limits.messages.min(limits.messages), limits.messages),
        connections: throttled(share.limits.connections.min(connections), limits.connections),
        ..share.limits.least(limits)
    }
}

/// How many messages may be granted at this moment: the first half of a limit at once, the rest at its pace.
pub(super) fn paced(limit: u64, busy: u64, next: Duration, now: Duration) -> u64 {
    let (room, half) = (limit.saturating_sub(busy), limit / 2);
    if busy < half.max(1) {
        return room.min(half.max(1) - busy);
    }
    if now >= next { room.min(1) } else { 0 }
}
