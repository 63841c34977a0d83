//! What waits for a lease.

use std::time::Duration;

use crate::budget::Amount;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) messages: bool,
    pub(super) probe: bool,
    pub(super) recipients: u64,
    pub(super) since: Duration,
    /// When somebody asked last. Who does not ask again has gone.
    pub(super) renewed: Duration,
}

impl Wish {
    /// Nothing is wished for yet.
    pub(super) const fn begun(now: Duration) -> Self {
        Self { messages: false, probe: false, recipients: 0, since: now, renewed: now }
    }

    /// Somebody waits for so much. Whether the operator has to hear of it.
    pub(super) fn add(&mut self, now: Duration, amount: Amount) -> bool {
        let probe = amount.messages == 0;
        let is_new = if probe { !self.probe } else { !self.messages || amount.recipients > self.recipients };
        self.renewed = now;
        self.probe |= probe;
        self.messages |= !probe;
        self.recipients = self.recipients.max(amount.recipients);
        is_new
    }
}
