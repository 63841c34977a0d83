//! How a mailbox is divided among the namespaces that send as it.
//!
//! Messages and connections go to whoever's namespace has least at that moment ([`crate::budget::line`]), so what one does not
//! want is the others'. Of the day, which cannot be waited out, half of its fair part is kept for each namespace that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Ledger;
use crate::budget::line::Standing;
use crate::budget::share::Share;
use crate::budget::{Amount, Holder, Limits, Namespace};

/// What a namespace has out: messages and recipients leased, and who holds a connection for them.
#[derive(Debug, Default)]
struct Held {
    amount: Amount,
    holders: BTreeSet<Holder>,
}

impl Ledger {
    /// How each namespace stands.
    pub(super) fn standings(&mut self, now: Duration) -> BTreeMap<Namespace, Standing> {
        let (held, active) = (self.held(), self.active(now));
        let (limits, minute, present) = (self.limits, self.terms.minute, self.present(now));
        let stand = |(name, share): (&Namespace, &mut Share)| {
            let nothing = Held::default();
            let held = held.get(name).unwrap_or(&nothing);
            let messages = share.minute.sum(now) + held.amount.messages;
            let connections = held.holders.len() as u64;
            let allowed = Self::own_limits(share, limits, active, present, now, minute);
            let more_messages = paced(allowed.messages.into(), messages, share.next, now);
            let more_connections = u64::from(allowed.connections).saturating_sub(connections);
            let room = usize::try_from(more_messages.min(more_connections)).unwrap_or(usize::MAX);
            (name.clone(), Standing { messages, connections, room, served: share.served })
        };
        self.shares.iter_mut().map(stand).collect()
    }

    /// What a namespace may have of the minute and of the connections: by its own limits; less of its fair part for a while after
    /// Exchange found it too much; and one connection less than all, where there are others.
    fn own_limits(
        share: &Share,
        limits: Limits,
        active: u64,
        present: usize,
        now: Duration,
        minute: Duration,
    ) -> Limits {
        let part = |whole: u32| u32::try_from(u64::from(whole) / active).unwrap_or(whole).max(1);
        let restrained = |own: u32, whole: u32| {
            if share.restraint.share(now, minute) >= 1.0 {
                return own;
            }
            let left = share.restraint.of(part(whole).into(), now, minute);
            own.min(u32::try_from(left).unwrap_or(own))
        };
        let connections =
            if present > 1 { limits.connections.saturating_sub(1).max(1) } else { limits.connections };
        Limits {
            messages: restrained(share.limits.messages.min(limits.messages), limits.messages),
            connections: restrained(share.limits.connections.min(connections), limits.connections),
            recipients: share.limits.recipients.min(limits.recipients),
        }
    }

    /// What the namespace of a sidecar may have.
    pub(super) fn allowed(&mut self, home: &Namespace, now: Duration) -> Limits {
        let (active, present) = (self.active(now), self.present(now));
        let (limits, minute) = (self.limits, self.terms.minute);
        match self.shares.get(home) {
            Some(share) => Self::own_limits(share, limits, active, present, now, minute),
            None => Limits { messages: 0, recipients: 0, connections: 0 },
        }
    }

    /// Recipients of the day that a namespace may have now: what its own limit leaves, and of what is left of the mailbox's all but
    /// that which is kept for the others.
    pub(super) fn free_recipients(&mut self, home: &Namespace, now: Duration) -> u64 {
        let held = self.held();
        let out = |name: &Namespace| held.get(name).map_or(0, |held| held.amount.recipients);
        let whole = u64::from(self.limits.recipients) - self.limits.reserved_recipients();
        let whole = whole.saturating_sub(self.recipients_of_strangers(now));
        let left = whole.saturating_sub(self.day.sum(now) + self.out().recipients);
        let (terms, present) = (self.terms, self.present(now) as u64);
        let kept_for_each = whole / (2 * present.max(1));
        let (mut kept, mut own) = (0, 0);
        for (name, share) in &mut self.shares {
            let used = share.day.sum(now) + out(name);
            if name == home {
                own = u64::from(share.limits.recipients).saturating_sub(used);
            } else if share.is_present(terms, now) {
                kept += kept_for_each.min(share.limits.recipients.into()).saturating_sub(used);
            }
        }
        left.saturating_sub(kept).min(own)
    }

    /// How many namespaces are there.
    pub(super) fn present(&self, now: Duration) -> usize {
        self.shares.values().filter(|share| share.is_present(self.terms, now)).count()
    }

    /// How many namespaces want or use some of the minute, at least one.
    fn active(&mut self, now: Duration) -> u64 {
        let waiting: BTreeSet<Namespace> = self.line.namespaces().cloned().collect();
        let active = |(name, share): &mut (&Namespace, &mut Share)| {
            waiting.contains(*name) || share.minute.sum(now) > 0
        };
        let active = self.shares.iter_mut().filter_map(|mut share| active(&mut share).then_some(1_u64));
        active.sum::<u64>().max(1)
    }

    fn held(&self) -> BTreeMap<Namespace, Held> {
        let mut held = BTreeMap::<Namespace, Held>::new();
        let leases = self.leases.values().map(|out| (out.holder, out.amount));
        for (holder, amount) in leases.chain(self.foreign.iter().map(|(holder, it)| (*holder, it.amount))) {
            let Some(home) = self.homes.get(&holder) else { continue };
            let held = held.entry(home.clone()).or_default();
            held.amount = held.amount.and(amount);
            held.holders.insert(holder);
        }
        held
    }
}

/// How much may be given out at this moment. The first half of a limit at once, the rest at its pace.
pub(super) fn paced(limit: u64, busy: u64, next: Duration, now: Duration) -> u64 {
    let (room, half) = (limit.saturating_sub(busy), limit / 2);
    if busy < half.max(1) {
        return room.min(half.max(1) - busy);
    }
    if now >= next { room.min(1) } else { 0 }
}
