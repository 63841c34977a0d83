//! What sidecars report, and what of it counts as used.
//!
//! Every lease ends here: reported, never received, or its sidecar gone. Nothing is granted here. A claim that arrives after a later
//! one changes nothing, what nobody accounts for was used in full, and no claim counts for more than was granted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::limits::{Namespace, SidecarId};
use super::record::IssuedLease;
use super::wait_queue::Demand;
use super::{LastClaim, LeaseEnd, Ledger};
use crate::Amount;
use crate::slots::UNREGISTERED_RECIPIENTS;
use crate::wire::{Claim, LeaseUse, MAX_LEASES, SlotAssignment};

/// Most recipients of one message that a claim can ask for. Exchange Online takes at most 1000.
const MOST_RECIPIENTS: u32 = 1000;

impl Ledger {
    /// Takes in a claim of a sidecar in a namespace. Returns whether to answer it: not if a later one was heard before.
    pub fn claim(&mut self, namespace: &Namespace, who: SidecarId, claim: &Claim, now: Duration) -> bool {
        self.expire(now);
        let last = self.sidecars.get(&who).copied();
        if last.is_some_and(|last| (claim.instance, claim.sequence) <= (last.instance, last.sequence)) {
            return false;
        }
        self.namespaces.insert(who, namespace.clone());
        // A new leader has not heard it yet, although the previous one may have until just now.
        let was_silent = last.is_none_or(|last| last.heard + self.timing.silent_after() <= now);
        if was_silent && self.slots.owns(who) && !claim.no_slots_used {
            self.reserve_for_used_slot(who, now);
        }
        let heard = LastClaim { instance: claim.instance, sequence: claim.sequence, heard: now };
        self.sidecars.insert(who, heard);
        let share = self.share(namespace, now);
        share.heard = now;
        share.unregistered.heard(who);
        self.count_slots(who, claim, now);
        self.slots.set_acknowledged(who, claim.slot_assignment.is_some());
        self.settle(who, claim, now);
        if claim.throttled.is_some() {
            let minute = self.timing.minute;
            self.share(namespace, now).throttle.throttled(now, minute);
            self.dirty = true;
        }
        if claim.leaving {
            self.forget(who, now);
            return true;
        }
        let known = claim.slot_assignment.filter(SlotAssignment::is_valid);
        if self.limits.messages_per_slot(1) > 0 && self.slots.assign(who, known, self.sidecars.len()) {
            self.dirty = true;
        }
        self.enqueue(who, namespace, claim, now);
        true
    }

    /// Counts messages and recipients of time slots: at most what the sidecar's slots allowed, or the recipients of an unregistered
    /// sidecar. The minute counts them by the reserve.
    fn count_slots(&mut self, who: SidecarId, claim: &Claim, now: Duration) {
        let slots = self.slots.assignment(who).and_then(|assignment| self.time_slots(assignment));
        let recipients = slots.map_or(0, |slots| slots.recipients).max(UNREGISTERED_RECIPIENTS);
        let messages = slots.and_then(|slots| slots.messages_per_hour).unwrap_or(0);
        let allowed = Amount { messages: messages.into(), recipients: recipients.into() };
        let said = Amount { messages: claim.slot_messages.into(), recipients: claim.slot_recipients.into() };
        self.count_unleased(who, said.least(allowed), now);
    }

    /// Counts what went without a lease, as far as the sidecar's namespace is believed.
    pub(super) fn count_unleased(&mut self, who: SidecarId, amount: Amount, now: Duration) {
        let believed = self.believe(who, amount, now);
        let Some(share) = self.share_of(who) else { return };
        share.used.add_beyond_minute(now, believed);
        self.used.add_beyond_minute(now, believed);
    }

    /// How much of this, which no lease allowed, is believed: for each namespace as much as is kept for time slots.
    fn believe(&mut self, who: SidecarId, amount: Amount, now: Duration) -> Amount {
        let (messages, recipients) = (self.limits.messages_per_hour / 10, self.limits.recipients / 20);
        let most = Amount { messages: messages.into(), recipients: recipients.into() };
        self.share_of(who).map_or(Amount::NOTHING, |share| share.count_unleased(amount, most, now))
    }

    /// Forgets a sidecar whose pod is gone. What it had counts as used just now.
    pub fn forget(&mut self, who: SidecarId, now: Duration) {
        let lost: Vec<IssuedLease> =
            self.leases.extract_if(.., |_, lease| lease.holder == who).map(|(_, lease)| lease).collect();
        lost.iter().for_each(|lease| self.count(who, lease.amount, now));
        if let Some(grant) = self.inherited.remove(&who) {
            self.count(who, grant.amount, now);
        }
        let last = self.sidecars.remove(&who);
        self.queue.remove(who);
        self.ended.retain(|(holder, _), _| *holder != who);
        if self.slots.owns(who) {
            if last.is_none_or(|last| last.heard + self.timing.silent_after() <= now) {
                self.reserve_for_used_slot(who, now);
            }
            self.slots.release(who);
            self.dirty = true;
        }
        self.namespaces.remove(&who);
    }

    /// Forgets all sidecars that do not exist any more.
    pub fn forget_unless(&mut self, exists: impl Fn(SidecarId) -> bool, now: Duration) {
        let leases = self.leases.values().map(|lease| lease.holder);
        let known = self.sidecars.keys().copied().chain(self.slots.owners()).chain(leases);
        let gone: BTreeSet<SidecarId> =
            known.chain(self.inherited.keys().copied()).filter(|who| !exists(*who)).collect();
        gone.into_iter().for_each(|who| self.forget(who, now));
        let timing = self.timing;
        for share in self.shares.values_mut() {
            share.expire_routes(timing.routes_kept(), now);
        }
        self.shares.retain(|_, share| !share.is_empty(timing, now));
        self.agree_on_limits();
    }

    fn enqueue(&mut self, who: SidecarId, namespace: &Namespace, claim: &Claim, now: Duration) {
        if claim.messages == 0 && !claim.probe || claim.leases.len() >= MAX_LEASES {
            return self.queue.remove(who);
        }
        let recipients = u64::from(claim.recipients.clamp(1, MOST_RECIPIENTS));
        let demand = Demand { messages: u64::from(claim.messages), recipients };
        let waited = Duration::from_millis(claim.waited_millis).min(self.timing.day);
        self.queue.add(who, namespace, demand, now.saturating_sub(waited));
    }

    /// Takes in what the claim says about leases.
    fn settle(&mut self, who: SidecarId, claim: &Claim, now: Duration) {
        // Most claims have nothing to say about leases.
        let has_lease = self.leases.range((who, 0)..=(who, u64::MAX)).next().is_some();
        if claim.leases.is_empty() && !has_lease && !self.inherited.contains_key(&who) {
            return self.ended.retain(|(holder, _), _| *holder != who);
        }
        let until = now + self.timing.cut_off() + self.timing.clock_skew();
        let named: BTreeMap<u64, &LeaseUse> =
            claim.leases.iter().take(MAX_LEASES).map(|lease| (lease.id, lease)).collect();
        let own = self.leases.range((who, 0)..=(who, u64::MAX));
        let own: Vec<(u64, IssuedLease)> = own.map(|((_, id), lease)| (*id, *lease)).collect();
        for (id, lease) in own {
            match named.get(&id) {
                _ if lease.instance < claim.instance => self.end_unreported(id, lease, now),
                Some(reported) if reported.ended => self.end(who, lease.amount, reported, now),
                Some(_) => {
                    let until = until.max(lease.until).min(lease.since + self.timing.longest_lease());
                    self.leases.insert((who, id), IssuedLease { until, ..lease });
                }
                // The sidecar did not receive the lease and never will, as it has asked again since. The same holds for a lease
                // of an earlier leader, which answers no more.
                None if lease.sequence == u64::MAX || lease.sequence < claim.sequence => {
                    self.end_unused(who, id)
                }
                None => {}
            }
        }
        self.settle_inherited(who, claim, &named, now);
        // A lease that is not known here, as after the route's tenant has changed, is not counted, but its end is confirmed.
        for reported in named.values().filter(|it| it.ended && !self.leases.contains_key(&(who, it.id))) {
            self.ended.entry((who, reported.id)).or_insert(LeaseEnd::Unknown);
        }
        self.ended.retain(|(holder, id), _| *holder != who || named.contains_key(id));
    }

    /// Settles what an earlier leader may have granted.
    fn settle_inherited(
        &mut self,
        who: SidecarId,
        claim: &Claim,
        named: &BTreeMap<u64, &LeaseUse>,
        now: Duration,
    ) {
        let inherited = self.inherited.remove(&who);
        if let Some(grant) = inherited.filter(|grant| grant.instance < claim.instance) {
            self.count(who, grant.amount, now);
        }
        // Once this leader grants leases itself, it knows all that can be in use.
        if inherited.is_none() && !(self.lost && now < self.opens) {
            return;
        }
        // At most what may have been granted; with a lost record, what one sidecar gets at once, however many claims it sends.
        let messages = self.most_at_once();
        let at_once = Amount { messages, recipients: messages * u64::from(MOST_RECIPIENTS) };
        let believed = self.believed.get(&who).copied().unwrap_or(at_once);
        let mut left = inherited.map_or(believed, |grant| grant.amount);
        for reported in named.values() {
            let key = (who, reported.id);
            let is_known = self.leases.contains_key(&key) || self.ended.contains_key(&key);
            if is_known || reported.id >= self.next_id {
                continue;
            }
            let said = Amount { messages: reported.messages.into(), recipients: reported.recipients.into() };
            let mut amount = said.least(left);
            left = left.less(amount);
            if inherited.is_none() {
                amount.recipients = self.believe(who, Amount { messages: 0, ..amount }, now).recipients;
            }
            if reported.ended {
                self.end(who, amount, reported, now);
            } else {
                let until = now + self.timing.cut_off() + self.timing.clock_skew();
                let (instance, sequence) = (claim.instance, claim.sequence);
                let lease = IssuedLease { holder: who, instance, amount, sequence, until, since: now };
                self.leases.insert(key, lease);
            }
        }
        if inherited.is_none() {
            self.believed.insert(who, left);
        }
        self.dirty = true;
    }

    /// Ends a lease of a run of the sidecar that is over: it counts as used just now.
    fn end_unreported(&mut self, id: u64, lease: IssuedLease, now: Duration) {
        self.leases.remove(&(lease.holder, id));
        self.count(lease.holder, lease.amount, now);
    }

    /// Ends a lease for this amount as its sidecar reports it.
    fn end(&mut self, who: SidecarId, amount: Amount, reported: &LeaseUse, now: Duration) {
        let age = Duration::from_millis(reported.age_millis).min(self.timing.minute);
        let (messages, recipients) = (reported.used_messages.into(), reported.used_recipients.into());
        let used = Amount { messages, recipients };
        self.leases.remove(&(who, reported.id));
        self.return_pace(who, amount.less(used).messages);
        self.count(who, used.least(amount), now.saturating_sub(age));
        self.ended.insert((who, reported.id), LeaseEnd::Counted);
        self.dirty = true;
    }

    /// Ends a lease that its sidecar did not receive.
    fn end_unused(&mut self, who: SidecarId, id: u64) {
        if let Some(lease) = self.leases.remove(&(who, id)) {
            self.return_pace(lease.holder, lease.amount.messages);
        }
        self.dirty = true;
    }
}
