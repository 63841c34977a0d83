//! One lease, from its grant until the operator confirms its end.

use std::time::Duration;

use crate::Amount;
use crate::timing::millis;
use crate::wire::{Lease, LeaseUse};

/// A lease as the sidecar holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldLease {
    granted: Amount,
    left: Amount,
    used: Amount,
    /// Messages that are being sent.
    open: u32,
    /// Whether anything was sent under it.
    touched: bool,
    begin_before: Duration,
    settled: Duration,
    ended: bool,
}

impl HeldLease {
    /// What was granted for the claim that was sent at `sent`.
    pub(super) fn new(lease: &Lease, sent: Duration) -> Self {
        let granted = Amount { messages: lease.messages.into(), recipients: lease.recipients.into() };
        Self {
            granted,
            left: granted,
            used: Amount::NOTHING,
            open: 0,
            touched: false,
            begin_before: sent + Duration::from_millis(lease.valid_millis),
            settled: sent,
            ended: false,
        }
    }

    /// Whether this amount may begin under it.
    pub(super) fn covers(&self, now: Duration, amount: Amount) -> bool {
        !self.ended && now < self.begin_before && amount.within(self.left)
    }

    /// Begins this amount.
    pub(super) fn take(&mut self, amount: Amount) {
        self.left = self.left.less(amount);
        self.open += 1;
        self.touched = true;
    }

    /// Ends something that was begun, of which this much may have been counted.
    pub(super) fn settle(&mut self, now: Duration, used: Amount) {
        self.open = self.open.saturating_sub(1);
        self.used = self.used.and(used);
        self.settled = now;
    }

    /// Ends the lease when it is used up or over and nothing is being sent under it. Returns whether that is news.
    pub(super) fn end_if_over(&mut self, now: Duration) -> bool {
        let used_up = self.touched && self.left.messages == 0;
        let ends = !self.ended && self.open == 0 && (used_up || now >= self.begin_before);
        self.ended |= ends;
        ends
    }

    /// When there will be something to report, if nothing begins before. A message may take longer than its lease, which is then
    /// reported when the message ends.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.ended && self.open == 0).then_some(self.begin_before)
    }

    /// What a claim says about it.
    pub(super) fn report(&self, id: u64, now: Duration) -> LeaseUse {
        LeaseUse {
            id,
            messages: narrow(self.granted.messages),
            recipients: narrow(self.granted.recipients),
            ended: self.ended,
            used_messages: narrow(self.used.messages),
            used_recipients: narrow(self.used.recipients),
            age_millis: millis(now.saturating_sub(self.settled)),
        }
    }
}

/// A count for the wire.
pub(super) fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
