//! The leases that the operator granted to this sidecar, and its time slots for when it has no contact.
//!
//! ```text
//!  a message ──► lease held? ──► take ──► settle ──► the lease ends ──► named in each claim until it is confirmed
//!                   │ no
//!                   ├─ in contact: demand, told in the next claim, at once
//!                   └─ without contact for long: this sidecar's own time slots, some messages in each
//! ```
//!
//! Times are since an epoch that outlives the process. Every length counts from when the claim was sent, so that this side
//! is always done before the operator assumes it to be. The caller carries claims and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::held_lease::{HeldLease, narrow};
use super::saved_leases::SavedLeases;
use super::wait::{Wait, WaitReason};
use crate::Amount;
use crate::slots::OpenSlot;
use crate::timing::{Timing, millis};
use crate::window::{DAY_SLOTS, HOUR_SLOTS, Window};
use crate::wire::{Allotment, Claim, MAX_LEASES, ShortOf, Throttled, TimeSlots};

/// What allows a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseSource {
    /// The lease of this number.
    Lease(u64),
    /// A time slot.
    Slot {
        /// When the message is aborted.
        cut_off: Duration,
    },
}

/// What waits for a lease.
#[derive(Clone, Copy, Debug)]
struct OpenDemand {
    messages: bool,
    check: bool,
    recipients: u64,
    since: Duration,
    /// When a caller last asked. A caller that does not ask again has gone.
    renewed: Duration,
}

impl OpenDemand {
    /// No demand yet.
    const fn new(now: Duration) -> Self {
        Self { messages: false, check: false, recipients: 0, since: now, renewed: now }
    }

    /// Adds an amount. Returns whether the operator has to hear of it.
    fn add(&mut self, now: Duration, amount: Amount) -> bool {
        let check = amount.messages == 0;
        let is_new = if check { !self.check } else { !self.messages || amount.recipients > self.recipients };
        self.renewed = now;
        self.check |= check;
        self.messages |= !check;
        self.recipients = self.recipients.max(amount.recipients);
        is_new
    }
}

/// What the last claim said, until it is answered.
#[derive(Clone, Copy, Debug, Default)]
struct Claimed {
    throttled: Option<Throttled>,
    in_slots: Amount,
    news: u64,
}

/// The slot that was last used, and how many messages went in it.
#[derive(Clone, Copy, Debug)]
struct UsedSlot {
    number: u64,
    messages: u32,
}

/// The leases of one mailbox.
#[derive(Clone, Debug)]
pub struct LeaseClient {
    timing: Timing,
    instance: u64,
    sequence: u64,
    leases: BTreeMap<u64, HeldLease>,
    demand: Option<OpenDemand>,
    throttled: Option<Throttled>,
    claimed: Claimed,
    /// When the last claim that was answered had been sent. At first the start, as the run before may have had an answer just then.
    contact: Duration,
    cut_off: Option<Duration>,
    slots: Option<TimeSlots>,
    /// The slots to use while the operator has never answered.
    unregistered_slots: Option<TimeSlots>,
    used_slot: Option<UsedSlot>,
    /// Recipients of messages in slots.
    slot_recipients: Window,
    /// Messages in slots.
    slot_messages: Window,
    unreported: Amount,
    short_of: Option<ShortOf>,
    /// When to claim next without news.
    again: Duration,
    tried: Duration,
    /// Counts what the operator should hear of at once.
    news: u64,
    save_due: bool,
}

impl LeaseClient {
    /// A client without leases. `saved` is what the run before left behind.
    pub fn new(timing: Timing, saved: &SavedLeases, now: Duration) -> Self {
        let mut slot_recipients = Window::new(timing.day, DAY_SLOTS);
        saved.slot_recipients.iter().for_each(|&(at, count)| slot_recipients.add_forward(at.min(now), count));
        let mut slot_messages = Window::new(timing.hour, HOUR_SLOTS);
        saved.slot_messages.iter().for_each(|&(at, count)| slot_messages.add_forward(at.min(now), count));
        Self {
            timing,
            instance: millis(now).max(saved.instance + 1),
            sequence: 0,
            leases: BTreeMap::new(),
            demand: None,
            throttled: None,
            claimed: Claimed::default(),
            contact: now,
            cut_off: None,
            slots: saved.slots,
            unregistered_slots: None,
            used_slot: None,
            slot_recipients,
            slot_messages,
            unreported: Amount::NOTHING,
            short_of: None,
            again: now,
            tried: Duration::ZERO,
            news: 0,
            save_due: true,
        }
    }

    /// Uses these slots until the operator answers for the first time.
    #[must_use]
    pub fn or_unregistered(mut self, slots: Option<TimeSlots>) -> Self {
        self.unregistered_slots = slots.filter(|_| self.slots.is_none());
        self
    }

    /// What has to outlive the process, if it has changed since the last call.
    pub fn save(&mut self, now: Duration) -> Option<SavedLeases> {
        if !std::mem::take(&mut self.save_due) {
            return None;
        }
        self.slot_recipients.sum(now);
        let slot_recipients = self.slot_recipients.counted().collect();
        self.slot_messages.sum(now);
        let slot_messages = self.slot_messages.counted().collect();
        Some(SavedLeases { instance: self.instance, slots: self.slots, slot_recipients, slot_messages })
    }

    /// Checks whether this amount could go now. If not, notes the demand.
    ///
    /// # Errors
    /// Not now; and when to look again, unless there is an answer before.
    pub fn may(&mut self, now: Duration, amount: Amount) -> Result<(), Wait> {
        if self.covering_lease(now, amount).is_some() || self.open_slot(now, amount).is_some() {
            return Ok(());
        }
        self.add_demand(now, amount);
        Err(Wait { until: self.worth_asking(now), why: self.wait_reason() })
    }

    /// Takes this amount; nothing when it cannot go now.
    pub fn take(&mut self, now: Duration, amount: Amount) -> Option<LeaseSource> {
        if let Some(id) = self.covering_lease(now, amount) {
            self.leases.get_mut(&id)?.take(amount);
            return Some(LeaseSource::Lease(id));
        }
        let OpenSlot { number, cut_off } = self.open_slot(now, amount)?;
        self.used_slot = Some(UsedSlot { number, messages: self.messages_in(number) + 1 });
        self.slot_recipients.add_forward(now, amount.recipients);
        self.slot_messages.add_forward(now, amount.messages);
        self.unreported = self.unreported.and(amount);
        self.save_due = true;
        Some(LeaseSource::Slot { cut_off })
    }

    /// Ends what was taken, of which this much may have been counted.
    pub fn settle(&mut self, source: LeaseSource, now: Duration, used: Amount) {
        let LeaseSource::Lease(id) = source else { return };
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.settle(now, used);
        }
        self.end_leases(now);
    }

    /// When what is sent by this source has to be aborted.
    pub fn cut_off_at(&self, source: LeaseSource) -> Duration {
        match source {
            LeaseSource::Slot { cut_off } => cut_off,
            LeaseSource::Lease(_) => self.contact + self.cut_off.unwrap_or(self.timing.minute),
        }
    }

    /// Notes that Microsoft throttled the mailbox.
    pub const fn throttled(&mut self, what: Throttled) {
        self.throttled = Some(what);
        self.news += 1;
    }

    /// When to claim next: at once with news, but not in a flood.
    pub fn due(&mut self, now: Duration) -> Duration {
        self.end_leases(now);
        let soonest = self.tried + self.timing.minute / 600;
        if self.news > 0 {
            return soonest;
        }
        let over = self.leases.values().filter_map(HeldLease::due);
        over.chain([self.again]).min().unwrap_or(self.again).max(soonest)
    }

    /// Whether something waits for a lease.
    pub fn has_demand(&self, now: Duration) -> bool {
        self.demand.is_some_and(|demand| now < demand.renewed + self.timing.minute / 3)
    }

    /// What to tell the operator now. The caller knows how many messages wait, and adds the mailbox.
    pub fn claim(&mut self, now: Duration) -> Claim {
        self.end_leases(now);
        if !self.has_demand(now) {
            self.demand = None;
        }
        self.sequence += 1;
        self.claimed = Claimed { throttled: self.throttled, in_slots: self.unreported, news: self.news };
        let demand = self.demand;
        let waited = demand.map_or(Duration::ZERO, |demand| now.saturating_sub(demand.since));
        Claim {
            instance: self.instance,
            sequence: self.sequence,
            mailbox: String::new(),
            messages: demand.map_or(0, |demand| u32::from(demand.messages)),
            recipients: demand.map_or(0, |demand| narrow(demand.recipients)),
            probe: demand.is_some_and(|demand| demand.check),
            waited_millis: millis(waited),
            throttled: self.throttled,
            leases: self.leases.iter().map(|(id, lease)| lease.report(*id, now)).take(MAX_LEASES).collect(),
            slot_assignment: self.slots.map(|slots| slots.assignment()),
            slot_recipients: narrow(self.unreported.recipients),
            slot_messages: narrow(self.unreported.messages),
            no_slots_used: self.slot_recipients.sum(now) == 0,
            leaving: false,
        }
    }

    /// Takes in the operator's answer to the claim that was sent at `sent`.
    pub fn answered(&mut self, sent: Duration, now: Duration, allotment: &Allotment) {
        self.contact = self.contact.max(sent);
        self.tried = now;
        if self.throttled == self.claimed.throttled {
            self.throttled = None;
        }
        self.unreported = self.unreported.less(self.claimed.in_slots);
        self.news = self.news.saturating_sub(self.claimed.news);
        self.claimed = Claimed::default();
        self.cut_off = Some(Duration::from_millis(allotment.cut_millis));
        self.again = now + Duration::from_millis(allotment.again_millis);
        self.short_of = allotment.short_of;
        self.unregistered_slots = None;
        for id in &allotment.confirmed {
            self.leases.remove(id);
        }
        if self.slots != allotment.slots {
            self.slots = allotment.slots;
            self.save_due = true;
        }
        if let Some(lease) = allotment.lease {
            self.leases.insert(lease.id, HeldLease::new(&lease, sent));
            self.demand = None;
        }
    }

    /// Notes that the claim came to nothing. The next one is worth it at `again`.
    pub const fn unanswered(&mut self, again: Duration) {
        self.tried = again;
        self.again = again;
    }

    /// Whether the operator has been out of reach for so long that only time slots are left.
    pub fn uses_slots(&self, now: Duration) -> bool {
        let after =
            self.current_slots().map_or(self.timing.minute, |it| Duration::from_millis(it.after_millis));
        now >= self.contact + after
    }

    /// Whether no exchange has succeeded for so long that messages are aborted.
    pub fn is_cut_off(&self, now: Duration) -> bool {
        now >= self.contact + self.cut_off.unwrap_or(self.timing.minute / 4)
    }

    const fn current_slots(&self) -> Option<TimeSlots> {
        match self.slots {
            Some(assigned) => Some(assigned),
            None => self.unregistered_slots,
        }
    }

    fn covering_lease(&self, now: Duration, amount: Amount) -> Option<u64> {
        self.leases.iter().find(|(_, lease)| lease.covers(now, amount)).map(|(id, _)| *id)
    }

    /// The slot of this sidecar in which one message may go now. A check of the upstream does not use it up.
    fn open_slot(&mut self, now: Duration, amount: Amount) -> Option<OpenSlot> {
        let slots = self.current_slots().filter(|_| amount.messages == 1 && self.uses_slots(now))?;
        let open = slots.open(now)?;
        let in_hour =
            slots.messages_per_hour.is_none_or(|most| self.slot_messages.sum(now) < u64::from(most));
        let in_day = self.slot_recipients.sum(now) + amount.recipients <= u64::from(slots.recipients);
        (in_hour && in_day && self.messages_in(open.number) < slots.messages).then_some(open)
    }

    fn messages_in(&self, slot: u64) -> u32 {
        self.used_slot.filter(|used| used.number == slot).map_or(0, |used| used.messages)
    }

    fn add_demand(&mut self, now: Duration, amount: Amount) {
        let lasting = self.demand.filter(|_| self.has_demand(now));
        let mut demand = lasting.unwrap_or(OpenDemand::new(now));
        self.news += u64::from(demand.add(now, amount));
        self.demand = Some(demand);
    }

    /// When to look again if no answer comes before.
    fn worth_asking(&self, now: Duration) -> Duration {
        let soon = now + self.timing.minute / 6;
        match self.current_slots().filter(|_| self.uses_slots(now)) {
            Some(slots) => slots.next(now).min(soon),
            None => soon.min(self.again.max(now + self.timing.minute / 60)),
        }
    }

    const fn wait_reason(&self) -> WaitReason {
        match self.short_of {
            Some(ShortOf::Recipients) => WaitReason::Day,
            _ => WaitReason::Lease,
        }
    }

    /// Ends leases that are used up or over, which is news.
    fn end_leases(&mut self, now: Duration) {
        let ended = self.leases.values_mut().filter_map(|lease| lease.end_if_over(now).then_some(1_u64));
        self.news += ended.sum::<u64>();
    }
}

#[cfg(test)]
#[path = "lease_client_tests.rs"]
mod tests;
