//! What is not leased because sidecars without contact may be sending: those that own time slots, and unregistered ones.
//!
//! The reserve stays until the last message that was sent in a slot has left the window. No namespace has more reserved for its pods
//! than an equal part of the largest reserve.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ledger;
use super::limits::{NO_LIMIT, Namespace, SidecarId};
use super::unregistered::Reserve;
use crate::Amount;
use crate::slots::UNREGISTERED_RECIPIENTS;
use crate::wire::{SlotAssignment, TimeSlots};

/// A sidecar that runs, heard or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningSidecar {
    /// Its id.
    pub id: SidecarId,
    /// The namespace of its pod.
    pub namespace: Namespace,
    /// Its slot as an unregistered sidecar, by [`crate::slots::unregistered_index`].
    pub unregistered_index: u32,
    /// When its pod was created.
    pub since: Duration,
}

impl Ledger {
    /// Notes the sidecars that use the mailbox. Those that may never have had an answer, and for long, may be sending all the same.
    pub fn expect(&mut self, running: impl IntoIterator<Item = RunningSidecar>, now: Duration) {
        let until = now + self.timing.unregistered_for();
        for RunningSidecar { id, namespace, unregistered_index, since } in running {
            let last = self.sidecars.get(&id).map_or(since, |last| last.heard);
            if !self.slots.has_acknowledged(id) && last + self.timing.unregistered_after() <= now {
                self.namespaces.insert(id, namespace.clone());
                self.share(&namespace, now).unregistered.expect(id, unregistered_index, until);
            }
        }
        let unheard: Vec<SidecarId> =
            self.shares.values_mut().flat_map(|share| share.unregistered.expire(now)).collect();
        for who in unheard {
            // What they sent is not known.
            self.count_unleased(who, Amount { messages: 0, recipients: UNREGISTERED_RECIPIENTS.into() }, now);
            if !self.slots.owns(who) {
                self.namespaces.remove(&who);
            }
        }
    }

    /// What is reserved for owners of time slots and for unregistered sidecars. Never the whole limit.
    pub(super) fn reserve(&mut self, now: Duration) -> Reserve {
        self.scan_for_silent(now);
        // A lease that is granted now counts until it is cut off. It meets what was sent in the minute before, and what is sent in
        // the minute after.
        let (minute, skew) = (self.timing.minute, self.timing.clock_skew());
        let from = now.saturating_sub(minute + skew);
        let until = now + self.timing.cut_off() + minute + skew;
        let has_slots = self.limits.messages_per_slot(1) > 0;
        let (part, is_shared) = (self.part_of_slots(now), self.sharers(now) > 1);
        let (mut all, mut in_slots, mut unregistered) = (0, 0, Reserve::default());
        for share in self.shares.values() {
            let own_slots = if has_slots { share.slot_reserve.at(now).min(part) } else { 0 };
            let mut own_unregistered = share.unregistered.reserve(from, until, minute);
            own_unregistered.messages = own_unregistered.messages.min(part);
            if is_shared {
                own_unregistered.connections = own_unregistered.connections.min(1);
            }
            all += (own_slots + own_unregistered.messages).min(part);
            in_slots += own_slots;
            unregistered.messages += own_unregistered.messages;
            unregistered.connections += own_unregistered.connections;
        }
        // A window meets two slots, of whichever namespaces.
        let mut in_slots = in_slots.min(self.slot_reserve.at(now));
        if has_slots && now < self.owners_unknown_until {
            in_slots = self.limits.most_in_slots();
            all += in_slots;
        }
        Reserve {
            messages: all.min(in_slots + unregistered.messages).min(self.limits.most_in_slots()),
            connections: (u64::from(in_slots > 0) + unregistered.connections)
                .min(u64::from(self.limits.connections.saturating_sub(1))),
        }
    }

    /// The most messages that are reserved for the pods of one namespace.
    fn part_of_slots(&self, now: Duration) -> u64 {
        self.limits.most_in_slots() / self.sharers(now)
    }

    /// How many namespaces share the reserve, at least one.
    fn sharers(&self, now: Duration) -> u64 {
        let shares = self.shares.values().filter(|share| share.may_use_slots(self.timing, now));
        (shares.count() as u64).max(1)
    }

    /// Recipients of the day that are kept for unregistered sidecars.
    pub(super) fn unregistered_recipients(&self, now: Duration) -> u64 {
        let most = u64::from(self.limits.recipients / 3) / self.sharers(now);
        let of = |count: usize| (count as u64 * u64::from(UNREGISTERED_RECIPIENTS)).min(most);
        self.shares.values().map(|share| of(share.unregistered.len())).sum()
    }

    /// Reserves what a sidecar may have sent in a slot just now.
    pub(super) fn reserve_for_used_slot(&mut self, who: SidecarId, now: Duration) {
        let sent = self.slots.assignment(who).map_or(0, |assignment| self.most_in_window(assignment));
        let Some(namespace) = self.namespaces.get(&who).cloned() else { return };
        let until = self.slots_leave_window(now);
        self.share(&namespace, now).slot_reserve.raise(sent, now, until);
        let part = self.part_of_slots(now);
        self.slot_reserve.raise(sent.min(part), now, until);
    }

    /// Reserves messages while owners of slots are silent, and until the last of their messages has left the window.
    fn scan_for_silent(&mut self, now: Duration) {
        if now < self.scanned + self.timing.scan_interval() {
            return;
        }
        self.scanned = now;
        let silent = self.timing.silent_after();
        let heard = |who: SidecarId| self.sidecars.get(&who).map(|last| last.heard);
        let is_silent = |who: &SidecarId| heard(*who).is_none_or(|heard| heard + silent <= now);
        let mut all = TwoGreatest::default();
        let mut by_namespace = BTreeMap::<Namespace, TwoGreatest>::new();
        for (who, assignment) in self.slots.assignments().filter(|(who, _)| is_silent(who)) {
            let Some(namespace) = self.namespaces.get(&who) else { continue };
            all.add(self.most_in_window(assignment));
            by_namespace.entry(namespace.clone()).or_default().add(self.most_in_window(assignment));
        }
        let until = self.slots_leave_window(now);
        for (namespace, greatest) in &by_namespace {
            self.share(namespace, now).slot_reserve.raise(greatest.sum(), now, until);
        }
        if !by_namespace.is_empty() {
            self.slot_reserve.raise(all.sum(), now, until);
        }
    }

    /// The slots of an assignment: messages and recipients are an equal share of what all slots carry.
    pub(super) fn time_slots(&self, assignment: SlotAssignment) -> Option<TimeSlots> {
        let messages = self.limits.messages_per_slot(assignment.of);
        let messages = u32::try_from(messages).ok().filter(|messages| *messages > 0)?;
        let all = self.limits.kept_for_slots();
        let part = |all: u64| {
            let equal = all / u64::from(assignment.of);
            // With less than one for each, some sidecars have one.
            let part = if equal == 0 { u64::from(u64::from(assignment.index) < all) } else { equal };
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let has_hour = self.limits.messages_per_hour < NO_LIMIT;
        let slots = TimeSlots::new(
            assignment,
            messages,
            part(all.recipients),
            self.timing.slots_after(),
            self.timing,
        );
        Some(TimeSlots { messages_per_hour: has_hour.then(|| part(all.messages)), ..slots })
    }

    /// When what is sent in a slot that ends now has left the window.
    fn slots_leave_window(&self, now: Duration) -> Duration {
        now + self.timing.scan_interval() + self.timing.minute + self.timing.cut_off()
    }

    /// The most that one sidecar sends in its slots within a window, which meets two slots.
    fn most_in_window(&self, assignment: SlotAssignment) -> u64 {
        self.limits.messages_per_slot(assignment.of) * if assignment.of == 1 { 2 } else { 1 }
    }
}

/// The two greatest of some numbers.
#[derive(Clone, Copy, Debug, Default)]
struct TwoGreatest {
    first: u64,
    second: u64,
}

impl TwoGreatest {
    fn add(&mut self, number: u64) {
        if number > self.first {
            *self = Self { first: number, second: self.first };
        } else {
            self.second = self.second.max(number);
        }
    }

    const fn sum(self) -> u64 {
        self.first + self.second
    }
}
