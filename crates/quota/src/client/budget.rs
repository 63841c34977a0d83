//! What the mailbox may still send by the route's own limits: messages in any minute and any hour, recipients in any day, connections
//! at a time.
//!
//! The promise holds on Microsoft's clock, not only on ours. Microsoft counts a message at some time between its request and its
//! settlement, so an entry fills its place from the request until a whole window after the settlement:
//!
//! ```text
//!   request ─► entry ────── the message is sent ─────► settle ── counted ──────────► the place is free
//!              │◄──────────── fills a place ───────────────►◄── one whole window ──►│
//! ```
//!
//! Bursts are smoothed: while more than half of the minute is free a message goes at once, after that at the pace of the
//! limit, so that a long queue runs evenly at the full rate. After Microsoft throttled the mailbox, nothing goes for a moment, and then
//! less for a while ([`crate::throttle`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wait::{Wait, WaitReason};
use crate::throttle::Throttle;
use crate::timing::Timing;
use crate::window::{DAY_SLOTS, UsageWindows, Window};
use crate::wire::Throttled;
use crate::{Amount, RouteLimits, Utilization};

/// Slots of the minute: an eighth of a second each, so that rounding costs a third of a percent of the rate.
const MINUTE_SLOTS: u32 = 512;

/// One message in the budget. Has to be settled, whatever came of it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an entry that is not settled fills its place for ever"]
pub struct BudgetEntry {
    id: u64,
    amount: Amount,
}

impl BudgetEntry {
    /// Its number, unique in this budget.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// What it is for.
    pub const fn amount(&self) -> Amount {
        self.amount
    }
}

/// What of a budget outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetSnapshot {
    /// What was counted when, oldest first.
    pub counted: Vec<(Duration, Amount)>,
    /// Entries that were not settled.
    pub open: Vec<(u64, Amount)>,
}

/// How much of the limits is in use, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BudgetView {
    /// Messages of the minute; nothing where no limit is known.
    pub minute: Option<Utilization>,
    /// Messages of the hour; nothing where no limit is known.
    pub hour: Option<Utilization>,
    /// Recipients of the day; nothing where no limit is known.
    pub day: Option<Utilization>,
    /// The share of the limits that may be used after Microsoft throttled the mailbox, 1 without.
    pub share: f64,
}

/// The budget of one mailbox. Times are since any epoch that stays the same, even over restarts.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: RouteLimits,
    timing: Timing,
    used: UsageWindows,
    open: BTreeMap<u64, Amount>,
    opened: Amount,
    next_id: u64,
    /// When the pace allows the next message.
    next: Duration,
    throttle: Throttle,
    /// Microsoft throttled the mailbox, and nothing goes before.
    paused_until: Duration,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(limits: RouteLimits, timing: Timing) -> Self {
        Self {
            limits,
            timing,
            used: UsageWindows::new(timing, MINUTE_SLOTS, DAY_SLOTS),
            open: BTreeMap::new(),
            opened: Amount::NOTHING,
            next_id: 1,
            next: Duration::ZERO,
            throttle: Throttle::default(),
            paused_until: Duration::ZERO,
        }
    }

    /// The budget as it was. What was not settled counts in full and as of now: it may have been sent. Future times, as after
    /// a clock was set back, count as of now, too.
    pub fn restore(limits: RouteLimits, timing: Timing, snapshot: &BudgetSnapshot, now: Duration) -> Self {
        let mut budget = Self::new(limits, timing);
        for (at, amount) in &snapshot.counted {
            budget.count((*at).min(now), *amount);
        }
        for (_, amount) in &snapshot.open {
            budget.count(now, *amount);
        }
        budget.next_id = snapshot.open.iter().map(|(id, _)| id + 1).max().unwrap_or(1);
        budget
    }

    /// What has to outlive the process at `now`.
    pub fn snapshot(&mut self, now: Duration) -> BudgetSnapshot {
        self.used.expire(now);
        // Messages of the hour are those of the minute, too, if less finely divided.
        let of_messages =
            if self.limits.messages_per_hour.is_some() { &self.used.hour } else { &self.used.minute };
        let messages = of_messages.counted().map(|(at, messages)| (at, Amount { messages, recipients: 0 }));
        let recipients =
            self.used.day.counted().map(|(at, recipients)| (at, Amount { messages: 0, recipients }));
        let mut counted: Vec<_> = messages.chain(recipients).collect();
        counted.sort_by_key(|(at, _)| *at);
        BudgetSnapshot { counted, open: self.open.iter().map(|(id, amount)| (*id, *amount)).collect() }
    }

    /// The lengths of the windows.
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// Keeps to other limits from now on. What was used stays used.
    pub const fn reconfigure(&mut self, limits: RouteLimits) {
        self.limits = limits;
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        self.limits.messages.or(self.limits.messages_per_hour).or(self.limits.recipients).is_some()
    }

    /// Checks whether this amount could go now.
    ///
    /// # Errors
    /// Not now.
    pub fn may(&mut self, now: Duration, amount: Amount) -> Result<(), Wait> {
        self.wait(now, amount).map(|_| ())
    }

    /// Takes this amount.
    ///
    /// # Errors
    /// Not now; nothing was taken.
    pub fn request(&mut self, now: Duration, amount: Amount) -> Result<BudgetEntry, Wait> {
        let burst = self.wait(now, amount)?;
        if let Some(pace) = self.pace(now, amount.messages) {
            // Being late by less than one pace is caught up, so that late timers do not slow the whole down.
            let due = if burst { now } else { self.next.max(now.saturating_sub(pace)) };
            self.next = due + pace;
        }
        let entry = BudgetEntry { id: self.next_id, amount };
        self.next_id += 1;
        self.open.insert(entry.id, amount);
        self.opened = self.opened.and(amount);
        Ok(entry)
    }

    /// Takes back an entry, with what the upstream counts of it.
    pub fn settle(&mut self, entry: BudgetEntry, now: Duration, used: Amount) {
        if let Some(amount) = self.open.remove(&entry.id) {
            self.opened.messages -= amount.messages;
            self.opened.recipients -= amount.recipients;
            self.count(now, used);
        }
    }

    /// Notes that Microsoft throttled the mailbox.
    pub fn throttled(&mut self, what: Throttled, now: Duration) {
        self.throttle.throttled(now, self.timing.minute);
        // A rate is counted by the minute; a connection is free again when another message has ended.
        let pause = match what {
            Throttled::Rate => self.timing.minute / 2,
            Throttled::Connections => self.timing.minute / 20,
        };
        self.paused_until = self.paused_until.max(now + pause);
    }

    /// Until when nothing goes, since Microsoft throttled the mailbox a moment ago; nothing without such a pause.
    pub fn pause(&self, now: Duration) -> Option<Duration> {
        Some(self.paused_until).filter(|until| *until > now)
    }

    /// How many connections may be used at `now`.
    pub fn connections(&self, now: Duration) -> u32 {
        let left = self.throttle.of(u64::from(self.limits.connections), now, self.timing.minute);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Whether as many messages are being sent as there may be connections, while the mailbox is throttled.
    pub fn is_crowded(&self, now: Duration) -> bool {
        let few = u64::from(self.connections(now));
        self.share(now) < 1.0 && self.open.len() as u64 >= few
    }

    /// What is free at `now`; nothing where no limit is known.
    pub fn room(&mut self, now: Duration) -> (Option<u64>, Option<u64>) {
        let (used, hour, day) = (self.used_minute(now), self.used_hour(now), self.used_day(now));
        let minute = self.minute_limit(now).map(|limit| limit.saturating_sub(used));
        let hour = self.limits.messages_per_hour.map(|limit| u64::from(limit).saturating_sub(hour));
        let messages = minute.into_iter().chain(hour).min();
        (messages, self.limits.recipients.map(|limit| u64::from(limit).saturating_sub(day)))
    }

    /// How much of the limits is in use at `now`.
    pub fn view(&mut self, now: Duration) -> BudgetView {
        let (minute, hour, day) = (self.used_minute(now), self.used_hour(now), self.used_day(now));
        let of = |used, limit: u32| Utilization { used, limit: limit.into() };
        BudgetView {
            minute: self.limits.messages.map(|limit| of(minute, limit)),
            hour: self.limits.messages_per_hour.map(|limit| of(hour, limit)),
            day: self.limits.recipients.map(|limit| of(day, limit)),
            share: self.share(now),
        }
    }

    /// What was sent: messages in the last minute, and recipients in the last day.
    pub fn usage(&mut self, now: Duration) -> Amount {
        Amount { messages: self.used.minute.sum(now), recipients: self.used.day.sum(now) }
    }

    /// Checks whether the amount may go now; if so, returns whether as part of a burst. Of all waits, the longest counts.
    fn wait(&mut self, now: Duration, amount: Amount) -> Result<bool, Wait> {
        let mut waits = vec![Wait { until: self.paused_until, why: WaitReason::Restraint }];
        waits.extend(self.wait_for_hour(now, amount.messages));
        waits.extend(self.wait_for_day(now, amount.recipients));
        let mut burst = true;
        if let Some(limit) = self.minute_limit(now) {
            let used = self.used_minute(now);
            burst = limit.saturating_sub(used) > limit / 2;
            waits.push(Wait { until: if burst { now } else { self.next }, why: WaitReason::Pace });
            let excess = (used + amount.messages).saturating_sub(limit);
            if excess > 0 {
                let until = self.used.minute.falls_by(excess).unwrap_or(now + self.timing.minute);
                waits.push(Wait { until, why: self.why_full(now) });
            }
        }
        match waits.into_iter().filter(|wait| wait.until > now).max_by_key(|wait| wait.until) {
            Some(wait) => Err(wait),
            None => Ok(burst),
        }
    }

    fn wait_for_hour(&mut self, now: Duration, messages: u64) -> Option<Wait> {
        let used = self.used_hour(now);
        let until = until_room(&self.used.hour, self.limits.messages_per_hour?, used + messages)?;
        Some(Wait { until: until.unwrap_or(now + self.timing.hour), why: WaitReason::Hour })
    }

    fn wait_for_day(&mut self, now: Duration, recipients: u64) -> Option<Wait> {
        let used = self.used_day(now);
        let until = until_room(&self.used.day, self.limits.recipients?, used + recipients)?;
        Some(Wait { until: until.unwrap_or(now + self.timing.day), why: WaitReason::Day })
    }

    /// Why the minute is full: at the limit, or only at what throttling leaves of it.
    fn why_full(&self, now: Duration) -> WaitReason {
        if self.share(now) < 1.0 { WaitReason::Restraint } else { WaitReason::Minute }
    }

    /// Time between two messages at the pace of the limit.
    fn pace(&self, now: Duration, messages: u64) -> Option<Duration> {
        let limit = self.minute_limit(now)?.max(1);
        Some(self.timing.minute.mul_f64(messages as f64 / limit as f64))
    }

    fn minute_limit(&self, now: Duration) -> Option<u64> {
        self.limits.messages.map(|limit| self.throttle.of(u64::from(limit), now, self.timing.minute))
    }

    fn share(&self, now: Duration) -> f64 {
        self.throttle.share(now, self.timing.minute)
    }

    fn used_minute(&mut self, now: Duration) -> u64 {
        self.used.minute.sum(now) + self.opened.messages
    }

    fn used_hour(&mut self, now: Duration) -> u64 {
        self.used.hour.sum(now) + self.opened.messages
    }

    fn used_day(&mut self, now: Duration) -> u64 {
        self.used.day.sum(now) + self.opened.recipients
    }

    fn count(&mut self, at: Duration, amount: Amount) {
        self.used.minute.add_forward(at, amount.messages);
        self.used.hour.add_forward(at, amount.messages);
        self.used.day.add_forward(at, amount.recipients);
        // Old sums must not pile up, even if nobody asks.
        self.used.expire(at);
    }
}

/// When a window has room for what would make the sum `wanted`: nothing if it has room now, `Some(None)` if not by what is counted.
#[expect(
    clippy::option_option,
    reason = "two questions: whether it has to wait, and whether it is known until when"
)]
fn until_room(window: &Window, limit: u32, wanted: u64) -> Option<Option<Duration>> {
    let excess = wanted.checked_sub(limit.into()).filter(|excess| *excess > 0)?;
    Some(window.falls_by(excess))
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
