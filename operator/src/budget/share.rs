//! What one namespace has of a mailbox: its own limits, what it has used, and what its silent pods may be sending.
//!
//! Whatever the pods of a namespace say about themselves ends here, so that it takes from this namespace and from no other.
//! Decides nothing; the sums of all namespaces, and who is next, are the ledger's.

use std::collections::HashMap;
use std::time::Duration;

use mailroute_limits::restraint::Restraint;
use mailroute_limits::window::Window;

use super::Limits;
use super::strangers::Strangers;
use super::terms::Terms;

/// Slots of the minute.
const MINUTE_SLOTS: u32 = 240;

/// Slots of the day: an hour each, as this window divides the mailbox's day among namespaces and bounds nothing at Microsoft.
const DAY_SLOTS: u32 = 24;

/// One namespace of a mailbox.
#[derive(Clone, Debug)]
pub struct Share {
    /// What its routes say that the limits are, and when that was heard last.
    routes: HashMap<String, (Limits, Duration)>,
    /// The smallest of that.
    pub limits: Limits,
    /// Messages that it used.
    pub minute: Window,
    /// Recipients that it used.
    pub day: Window,
    /// Recipients that it says it used without a lease.
    alone: Window,
    /// Less of its limits, after Exchange found it too much.
    pub restraint: Restraint,
    /// Its pods that may be sending without ever having been answered.
    pub strangers: Strangers,
    /// Messages set aside for its pods that take turns alone, and until when.
    reserved: (u64, Duration),
    /// When its pace allows the next message.
    pub next: Duration,
    /// When it was given something last.
    pub served: Duration,
    /// When it was heard last.
    pub heard: Duration,
}

impl Share {
    /// A namespace that has used nothing.
    pub fn new(terms: Terms, now: Duration) -> Self {
        Self {
            routes: HashMap::new(),
            limits: Limits { messages: 1, recipients: 1, connections: 1 },
            minute: Window::new(terms.minute, MINUTE_SLOTS),
            day: Window::new(terms.day, DAY_SLOTS),
            alone: Window::new(terms.day, DAY_SLOTS),
            restraint: Restraint::default(),
            strangers: Strangers::default(),
            reserved: (0, Duration::ZERO),
            next: Duration::ZERO,
            served: Duration::ZERO,
            heard: now,
        }
    }

    /// A namespace as it was written down. Its limits count until one of its routes is heard.
    pub fn restored(terms: Terms, limits: Limits, now: Duration) -> Self {
        let mut share = Self::new(terms, now);
        share.routes.insert(String::new(), (limits, now));
        share.limits = limits;
        share
    }

    /// A route of it says that these are the limits. Whether that changes them.
    pub fn limit(&mut self, route: &str, limits: Limits, now: Duration) -> bool {
        self.routes.remove("");
        match self.routes.get_mut(route) {
            Some(known) => *known = (limits, now),
            None => {
                self.routes.insert(route.to_owned(), (limits, now));
            }
        }
        self.choose()
    }

    /// Forgets routes that were not heard for long. Whether that changes the limits.
    pub fn forget_routes(&mut self, remembered: Duration, now: Duration) -> bool {
        self.routes.retain(|_, (_, seen)| now < *seen + remembered);
        self.choose()
    }

    /// What its routes say that the limits are; nothing when none is in use.
    pub fn says(&self) -> Option<Limits> {
        self.routes.values().map(|(limits, _)| *limits).reduce(Limits::least)
    }

    fn choose(&mut self) -> bool {
        let limits = self.says().unwrap_or(self.limits);
        std::mem::replace(&mut self.limits, limits) != limits
    }

    /// Whether its pods are there, so that it has a part of the day: they speak every half minute, also with nothing to send.
    pub fn is_present(&self, terms: Terms, now: Duration) -> bool {
        now < self.heard + terms.remembered()
    }

    /// Whether there is nothing to remember of it.
    pub fn is_empty(&mut self, terms: Terms, now: Duration) -> bool {
        !self.is_present(terms, now)
            && self.strangers.is_empty()
            && now >= self.reserved.1
            && self.minute.sum(now) == 0
            && self.day.sum(now) == 0
    }

    /// Recipients that its pods say they sent to without a lease, of which no more than `most` a day are believed. How many
    /// are.
    pub fn alone(&mut self, said: u64, most: u64, now: Duration) -> u64 {
        let believed = said.min(most.saturating_sub(self.alone.sum(now)));
        self.alone.add(now, believed);
        believed
    }

    /// Sets so many messages aside for its pods that take turns, at least, until then at least.
    pub fn set_aside(&mut self, messages: u64, now: Duration, until: Duration) {
        self.reserved = (self.set_aside_now(now).max(messages), self.reserved.1.max(until));
    }

    /// Whether something may be set aside for its pods.
    pub fn may_be_alone(&self, terms: Terms, now: Duration) -> bool {
        self.is_present(terms, now) || now < self.reserved.1 || !self.strangers.is_empty()
    }

    /// What is set aside for its pods that take turns.
    pub fn set_aside_now(&self, now: Duration) -> u64 {
        if now < self.reserved.1 { self.reserved.0 } else { 0 }
    }
}
