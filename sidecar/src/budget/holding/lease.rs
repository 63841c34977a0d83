//! One lease as it is held, until the operator confirms its end.

use std::time::Duration;

use mailroute_route::control::{Lease, LeaseUse};

use super::{millis, number};
use crate::budget::Amount;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    granted: Amount,
    left: Amount,
    used: Amount,
    /// Under way.
    open: u32,
    /// Whether anything was begun by it.
    touched: bool,
    begun_by: Duration,
    settled: Duration,
    ended: bool,
}

impl Held {
    /// What was granted for the claim that left at `sent`.
    pub(super) fn new(lease: &Lease, sent: Duration) -> Self {
        let granted = Amount { messages: lease.messages.into(), recipients: lease.recipients.into() };
        Self {
            granted,
            left: granted,
            used: Amount::NOTHING,
            open: 0,
            touched: false,
            begun_by: sent + Duration::from_millis(lease.valid_millis),
            settled: sent,
            ended: false,
        }
    }

    /// Whether so much may be begun by it.
    pub(super) fn covers(&self, now: Duration, amount: Amount) -> bool {
        !self.ended && now < self.begun_by && amount.within(self.left)
    }

    /// So much is begun by it.
    pub(super) fn take(&mut self, amount: Amount) {
        self.left = self.left.less(amount);
        self.open += 1;
        self.touched = true;
    }

    /// Something that was begun is over, and so much of it may have been counted.
    pub(super) fn settle(&mut self, now: Duration, used: Amount) {
        self.open = self.open.saturating_sub(1);
        self.used = self.used.and(used);
        self.settled = now;
    }

    /// Ends it when it is used up or over, and nothing is under way. Whether that is news.
    pub(super) fn ends(&mut self, now: Duration) -> bool {
        let used_up = self.touched && self.left.messages == 0;
        let ends = !self.ended && self.open == 0 && (used_up || now >= self.begun_by);
        self.ended |= ends;
        ends
    }

    /// When there will be something to tell of it, if nothing is begun before. What is under way may take longer than its
    /// lease, and is told of when it ends.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.ended && self.open == 0).then_some(self.begun_by)
    }

    /// As a claim tells of it.
    pub(super) fn told(&self, id: u64, now: Duration) -> LeaseUse {
        LeaseUse {
            id,
            messages: number(self.granted.messages),
            recipients: number(self.granted.recipients),
            ended: self.ended,
            used_messages: number(self.used.messages),
            used_recipients: number(self.used.recipients),
            age_millis: millis(now.saturating_sub(self.settled)),
        }
    }
}
