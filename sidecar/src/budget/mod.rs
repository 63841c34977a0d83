//! What the mailbox may still send: messages in any minute, recipients in any day, connections at a time.
//!
//! [`Budget`] is a value: time is passed in, nothing is read. Its promise holds on Microsoft's clock, not only on ours:
//! Microsoft counts a message at some moment between the permit and its settlement, so a permit fills its place from the
//! moment it is given until a whole window after it is settled. Whatever the delays, no window of Microsoft's holds more
//! than the limit.
//!
//! ```text
//!   request ──► permit ───── the message is sent ─────► settle ── counted ──────────► the place is free
//!               │◄──────────── fills a place ────────────────►◄── one whole window ──►│
//! ```
//!
//! Bursts are smoothed: while more than half of the minute is free a message goes at once, after that at the pace of the
//! limit, so that a long queue runs evenly at the full rate. After a refusal for too much, [`restraint`] makes it smaller
//! and slower for a while.
//!
//! * [`mailroute_limits::window`]: the sliding sums.
//! * [`gate`]: the budget shared by tasks, with a permit that settles itself when it is dropped.
//! * [`record`] and [`ledger`]: what survives a restart, as text and as a file.
//! * [`holding`]: what the operator leases of the limits that all sidecars of the mailbox share; [`memory`]: what of that
//!   survives a restart; [`stranger`]: what there is before its first word.
//!
//! Refuses to know mail, SMTP and who asks. Amounts are of any size, so a lease of many messages is one permit.

pub mod gate;
pub mod holding;
pub mod ledger;
pub mod memory;
pub mod record;
pub mod restraint;
pub mod stranger;

use std::collections::BTreeMap;
use std::time::Duration;

pub use mailroute_limits::Amount;
use mailroute_limits::window::Window;
use mailroute_route::condition::Reason;
use mailroute_route::control::Usage;
use serde::{Deserialize, Serialize};

use restraint::{Restraint, Throttle};

/// Slots of the minute: an eighth of a second each, so that rounding costs a third of a percent of the rate.
const MINUTE_SLOTS: u32 = 512;

/// Slots of the day: ten minutes each.
const DAY_SLOTS: u32 = 144;

/// The lengths of the windows. Tests shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The window of messages.
    pub minute: Duration,
    /// The window of recipients.
    pub day: Duration,
}

impl Default for Spans {
    fn default() -> Self {
        Self { minute: Duration::from_secs(60), day: Duration::from_secs(24 * 60 * 60) }
    }
}

/// The limits of one mailbox. An absent one is not known, and does not limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages in any minute.
    pub messages: Option<u32>,
    /// Recipients in any day.
    pub recipients: Option<u32>,
    /// Connections at a time.
    pub connections: u32,
}

impl From<&mailroute_route::file::Limits> for Limits {
    fn from(limits: &mailroute_route::file::Limits) -> Self {
        let connections = limits.connections.max(1);
        Self { messages: limits.messages_per_minute, recipients: limits.recipients_per_day, connections }
    }
}

/// Leave to send. Has to be settled, whatever came of it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not settled fills its place for ever"]
pub struct Permit {
    id: u64,
    amount: Amount,
}

impl Permit {
    /// Its number, unique in this budget.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// What it is for.
    pub const fn amount(&self) -> Amount {
        self.amount
    }
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The earliest moment at which asking again can help, unless a permit is settled unused or limits change before.
    pub until: Duration,
    /// Why.
    pub why: Why,
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The messages of a burst are spread out.
    Pace,
    /// The minute is full.
    Minute,
    /// Microsoft said that it was too much.
    Restraint,
    /// The day's recipients are used up.
    Day,
    /// All sidecars of the mailbox share its limits, and it is another one's turn.
    Lease,
}

impl Why {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Pace, Self::Minute, Self::Restraint, Self::Day, Self::Lease];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pace => "pace",
            Self::Minute => "minute",
            Self::Restraint => "restraint",
            Self::Day => "day",
            Self::Lease => "lease",
        }
    }

    /// What it means, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Pace => "messages are spread evenly over the minute",
            Self::Minute => "this minute's message limit is used up",
            Self::Restraint => "Microsoft 365 throttled the mailbox; sending is slowed for now",
            Self::Day => "the 24-hour recipient limit is used up",
            Self::Lease => "the pod waits for its share of the mailbox's limits",
        }
    }

    /// The reason to show to people. Smoothing a burst is no trouble.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Pace | Self::Minute | Self::Lease => None,
            Self::Restraint => Some(Reason::RateExceeded),
            Self::Day => Some(Reason::DailyQuotaExceeded),
        }
    }
}

/// What outlives the process: plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What was counted when, oldest first.
    pub counted: Vec<(Duration, Amount)>,
    /// Permits that were not settled.
    pub open: Vec<(u64, Amount)>,
}

/// How much of the limits is in use, to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// Used and limit of the minute; none where no limit is known.
    pub minute: Option<(u64, u64)>,
    /// Used and limit of the day.
    pub day: Option<(u64, u64)>,
    /// The share of the limits that is used after refusals, 1 without.
    pub share: f64,
}

/// The budget of one mailbox. Times are since any epoch that stays the same, also over restarts.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: Limits,
    spans: Spans,
    minute: Window,
    day: Window,
    open: BTreeMap<u64, Amount>,
    opened: Amount,
    next_id: u64,
    /// When the pace allows the next message.
    next: Duration,
    restraint: Restraint,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(limits: Limits, spans: Spans) -> Self {
        Self {
            limits,
            spans,
            minute: Window::new(spans.minute, MINUTE_SLOTS),
            day: Window::new(spans.day, DAY_SLOTS),
            open: BTreeMap::new(),
            opened: Amount::NOTHING,
            next_id: 1,
            next: Duration::ZERO,
            restraint: Restraint::new(spans.minute),
        }
    }

    /// The budget as it was. What was not settled counts in full and as of now: it may have been sent. Times that have
    /// not come yet, as after a clock was set back, count as of now, too.
    pub fn restore(limits: Limits, spans: Spans, snapshot: &Snapshot, now: Duration) -> Self {
        let mut budget = Self::new(limits, spans);
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
    pub fn snapshot(&mut self, now: Duration) -> Snapshot {
        self.minute.sum(now);
        self.day.sum(now);
        let messages = self.minute.counted().map(|(at, messages)| (at, Amount { messages, recipients: 0 }));
        let recipients = self.day.counted().map(|(at, recipients)| (at, Amount { messages: 0, recipients }));
        let mut counted: Vec<_> = messages.chain(recipients).collect();
        counted.sort_by_key(|(at, _)| *at);
        Snapshot { counted, open: self.open.iter().map(|(id, amount)| (*id, *amount)).collect() }
    }

    /// Other limits from now on. What was used stays used.
    pub const fn reconfigure(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether there is anything to keep to.
    pub const fn is_limited(&self) -> bool {
        self.limits.messages.is_some() || self.limits.recipients.is_some()
    }

    /// Whether so much could go now.
    ///
    /// # Errors
    /// Not now.
    pub fn may(&mut self, now: Duration, amount: Amount) -> Result<(), Wait> {
        self.wait(now, amount).map(|_| ())
    }

    /// Asks for leave to send so much.
    ///
    /// # Errors
    /// Not now; nothing was taken.
    pub fn request(&mut self, now: Duration, amount: Amount) -> Result<Permit, Wait> {
        let burst = self.wait(now, amount)?;
        if let Some(pace) = self.pace(now, amount.messages) {
            // What is late by less than one pace is caught up, so that late timers do not slow the whole down.
            let due = if burst { now } else { self.next.max(now.saturating_sub(pace)) };
            self.next = due + pace;
        }
        let permit = Permit { id: self.next_id, amount };
        self.next_id += 1;
        self.open.insert(permit.id, amount);
        self.opened = self.opened.and(amount);
        Ok(permit)
    }

    /// Takes back a permit, with what the upstream counts of it. What is not known counts in full.
    pub fn settle(&mut self, permit: Permit, now: Duration, used: Amount) {
        if let Some(amount) = self.open.remove(&permit.id) {
            self.opened.messages -= amount.messages;
            self.opened.recipients -= amount.recipients;
            self.count(now, used);
        }
    }

    /// Learns that the upstream found it too much.
    pub fn throttled(&mut self, what: Throttle, now: Duration) {
        self.restraint.throttled(what, now);
    }

    /// How many connections may be used at `now`.
    pub fn connections(&self, now: Duration) -> u32 {
        let left = self.restraint.of(u64::from(self.limits.connections), now);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Whether as many permits are under way as there may be connections, while the upstream finds it too much.
    pub fn is_crowded(&self, now: Duration) -> bool {
        let few = u64::from(self.connections(now));
        self.restraint.share(now) < 1.0 && self.open.len() as u64 >= few
    }

    /// What is free at `now`; nothing where no limit is known.
    pub fn room(&mut self, now: Duration) -> (Option<u64>, Option<u64>) {
        let (used, day) = (self.used_minute(now), self.used_day(now));
        let messages = self.minute_limit(now).map(|limit| limit.saturating_sub(used));
        (messages, self.limits.recipients.map(|limit| u64::from(limit).saturating_sub(day)))
    }

    /// How much of the limits is in use at `now`.
    pub fn view(&mut self, now: Duration) -> View {
        let (minute, day) = (self.used_minute(now), self.used_day(now));
        View {
            minute: self.limits.messages.map(|limit| (minute, u64::from(limit))),
            day: self.limits.recipients.map(|limit| (day, u64::from(limit))),
            share: self.restraint.share(now),
        }
    }

    /// What counts against the limits at `now`.
    pub fn usage(&mut self, now: Duration) -> Usage {
        Usage { messages_last_minute: self.minute.sum(now), recipients_last_24h: self.day.sum(now) }
    }

    /// Whether it may go now, and if so, whether as part of a burst. The longest of all waits is the one to tell.
    fn wait(&mut self, now: Duration, amount: Amount) -> Result<bool, Wait> {
        let quiet = self.restraint.quiet_until();
        let mut waits = vec![Wait { until: quiet, why: Why::Restraint }];
        waits.extend(self.wait_for_day(now, amount.recipients));
        let mut burst = true;
        if let Some(limit) = self.minute_limit(now) {
            let used = self.used_minute(now);
            burst = limit.saturating_sub(used) > limit / 2;
            waits.push(Wait { until: if burst { now } else { self.next }, why: Why::Pace });
            let excess = (used + amount.messages).saturating_sub(limit);
            if excess > 0 {
                let until = self.minute.falls_by(excess).unwrap_or(now + self.spans.minute);
                waits.push(Wait { until, why: self.why_full(now) });
            }
        }
        match waits.into_iter().filter(|wait| wait.until > now).max_by_key(|wait| wait.until) {
            Some(wait) => Err(wait),
            None => Ok(burst),
        }
    }

    fn wait_for_day(&mut self, now: Duration, recipients: u64) -> Option<Wait> {
        let limit = u64::from(self.limits.recipients?);
        let short = (self.used_day(now) + recipients).checked_sub(limit).filter(|short| *short > 0)?;
        let until = self.day.falls_by(short).unwrap_or(now + self.spans.day);
        Some(Wait { until, why: Why::Day })
    }

    /// The minute is full at the limit, or only at what is left of it.
    fn why_full(&self, now: Duration) -> Why {
        if self.restraint.share(now) < 1.0 { Why::Restraint } else { Why::Minute }
    }

    /// Time between two messages at the pace of the limit.
    fn pace(&self, now: Duration, messages: u64) -> Option<Duration> {
        let limit = self.minute_limit(now)?.max(1);
        Some(self.spans.minute.mul_f64(messages as f64 / limit as f64))
    }

    fn minute_limit(&self, now: Duration) -> Option<u64> {
        self.limits.messages.map(|limit| self.restraint.of(u64::from(limit), now))
    }

    fn used_minute(&mut self, now: Duration) -> u64 {
        self.minute.sum(now) + self.opened.messages
    }

    fn used_day(&mut self, now: Duration) -> u64 {
        self.day.sum(now) + self.opened.recipients
    }

    fn count(&mut self, at: Duration, amount: Amount) {
        self.minute.add_forward(at, amount.messages);
        self.day.add_forward(at, amount.recipients);
        // What is old must not pile up, also where nobody asks.
        self.minute.sum(at);
        self.day.sum(at);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
