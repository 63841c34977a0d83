//! One namespace's share of a mailbox: its own limits, what it has used, and what its silent pods may be sending.
//!
//! Whatever pods of a namespace claim about themselves is kept here, so that it counts against this namespace and no other. The
//! sums over all namespaces, and every decision, are the ledger's.

use std::collections::HashMap;
use std::time::Duration;

use super::limits::MailboxLimits;
use super::unregistered::UnregisteredSidecars;
use crate::Amount;
use crate::throttle::Throttle;
use crate::timing::Timing;
use crate::window::UsageWindows;

/// Slots of the minute's window.
const MINUTE_SLOTS: u32 = 240;

/// Slots of the day's window: an hour each, as it divides the mailbox's day among namespaces and bounds nothing at Microsoft.
const DAY_SLOTS: u32 = 24;

/// Messages held back for time slots until some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotReserve {
    messages: u64,
    until: Duration,
}

impl SlotReserve {
    /// What is held back at `now`.
    pub fn at(self, now: Duration) -> u64 {
        if now < self.until { self.messages } else { 0 }
    }

    /// Whether nothing is held back any more.
    pub fn is_over(self, now: Duration) -> bool {
        now >= self.until
    }

    /// Holds back at least this much, at least until then.
    pub fn raise(&mut self, messages: u64, now: Duration, until: Duration) {
        *self = Self { messages: self.at(now).max(messages), until: self.until.max(until) };
    }
}

/// The limits that a route names, and when one of its sidecars was last heard.
#[derive(Clone, Copy, Debug)]
struct NamedLimits {
    limits: MailboxLimits,
    heard: Duration,
}

/// One namespace of a mailbox.
#[derive(Clone, Debug)]
pub struct NamespaceShare {
    routes: HashMap<String, NamedLimits>,
    /// The smallest limits that its routes name.
    pub limits: MailboxLimits,
    /// What it used.
    pub used: UsageWindows,
    /// What it says it used without a lease.
    unleased: UsageWindows,
    /// Smaller limits after Microsoft throttled it.
    pub throttle: Throttle,
    /// Its pods that may be sending without ever having had an answer.
    pub unregistered: UnregisteredSidecars,
    /// Held back for the time slots of its pods.
    pub slot_reserve: SlotReserve,
    /// When its pace allows the next message.
    pub next: Duration,
    /// When it was last granted a lease.
    pub served: Duration,
    /// When one of its sidecars was last heard.
    pub heard: Duration,
}

impl NamespaceShare {
    /// A namespace that has used nothing.
    pub fn new(timing: Timing, now: Duration) -> Self {
        Self {
            routes: HashMap::new(),
            limits: MailboxLimits::LEAST,
            used: UsageWindows::new(timing, MINUTE_SLOTS, DAY_SLOTS),
            unleased: UsageWindows::new(timing, MINUTE_SLOTS, DAY_SLOTS),
            throttle: Throttle::default(),
            unregistered: UnregisteredSidecars::default(),
            slot_reserve: SlotReserve::default(),
            next: Duration::ZERO,
            served: Duration::ZERO,
            heard: now,
        }
    }

    /// A namespace as it was stored. The stored limits count until one of its routes is heard.
    pub fn restored(timing: Timing, limits: MailboxLimits, now: Duration) -> Self {
        let mut share = Self::new(timing, now);
        share.routes.insert(String::new(), NamedLimits { limits, heard: now });
        share.limits = limits;
        share
    }

    /// Notes the limits that a route names. Returns whether the namespace's limits change.
    pub fn set_limits(&mut self, route: &str, limits: MailboxLimits, now: Duration) -> bool {
        self.routes.remove("");
        let named = NamedLimits { limits, heard: now };
        match self.routes.get_mut(route) {
            Some(known) => *known = named,
            None => {
                self.routes.insert(route.to_owned(), named);
            }
        }
        self.update_limits()
    }

    /// Forgets routes that were not heard for this long.
    pub fn expire_routes(&mut self, kept: Duration, now: Duration) {
        self.routes.retain(|_, named| now < named.heard + kept);
        self.update_limits();
    }

    /// The smallest limits that its routes name; nothing without a route.
    pub fn named_limits(&self) -> Option<MailboxLimits> {
        self.routes.values().map(|named| named.limits).reduce(MailboxLimits::least)
    }

    fn update_limits(&mut self) -> bool {
        let limits = self.named_limits().unwrap_or(self.limits);
        std::mem::replace(&mut self.limits, limits) != limits
    }

    /// Whether it has pods, so that a part of the day is kept for it: they report every half minute, even with nothing to send.
    pub fn is_present(&self, timing: Timing, now: Duration) -> bool {
        now < self.heard + timing.routes_kept()
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&mut self, timing: Timing, now: Duration) -> bool {
        !self.is_present(timing, now)
            && self.unregistered.is_empty()
            && self.slot_reserve.is_over(now)
            && self.used.expire(now)
    }

    /// Counts what its pods say they used without a lease: at most `most`, messages in an hour and recipients in a day. Returns
    /// what counts.
    pub fn count_unleased(&mut self, said: Amount, most: Amount, now: Duration) -> Amount {
        let known = Amount { messages: self.unleased.hour.sum(now), recipients: self.unleased.day.sum(now) };
        let counted = said.least(most.less(known));
        self.unleased.add_beyond_minute(now, counted);
        counted
    }

    /// Whether its pods may be using time slots.
    pub fn may_use_slots(&self, timing: Timing, now: Duration) -> bool {
        self.is_present(timing, now) || !self.slot_reserve.is_over(now) || !self.unregistered.is_empty()
    }
}
