//! Permission to send one message, handed out and taken back.
//!
//! Owns what a permit counts when it ends, whichever way. Refuses to know why it was given.

use std::sync::Arc;

use super::Gate;
use super::account::Account;
use crate::budget::holding::Source;
use crate::budget::{Amount, Permit, ledger};
use crate::clock;

/// Permission to send one message. Dropped without being settled, it counts in full: nobody knows what the upstream saw.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts in full"]
pub struct SendPermit {
    gate: Arc<Gate>,
    pub(super) account: Arc<Account>,
    permit: Option<Permit>,
    /// By which lease of the operator's.
    pub(super) source: Option<Source>,
    /// Whether it was handed out. Before that, nothing was sent.
    pub(super) out: bool,
}

impl SendPermit {
    pub(super) fn new(
        gate: &Arc<Gate>,
        account: Arc<Account>,
        permit: Option<Permit>,
        source: Option<Source>,
        out: bool,
    ) -> Self {
        Self { gate: Arc::clone(gate), account, permit, source, out }
    }

    /// Gives the permit back, with what the upstream counts of it, and whether it accepted the message.
    pub fn settle(mut self, used: Amount, accepted: bool) {
        if accepted {
            self.account.state().last_accepted = Some(clock::now());
        }
        self.end(used);
    }

    /// Gives the permit back: nothing is sent.
    pub fn unused(self) {
        self.settle(Amount::NOTHING, false);
    }

    fn end(&mut self, used: Amount) {
        let now = self.gate.clock.now();
        let mut state = self.account.state();
        if let (Some(source), Some(holding)) = (self.source.take(), state.holding.as_mut()) {
            holding.settle(source, now, used);
            self.gate.news.notify_one();
        }
        let Some(permit) = self.permit.take() else { return };
        if state.budget.is_limited() {
            ledger::settled(permit.id(), now, used, &mut state.lines);
        }
        state.budget.settle(permit, now, used);
        drop(state);
        self.gate.changed.notify_waiters();
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        let full = self.permit.as_ref().map_or(Amount::NOTHING, Permit::amount);
        self.end(if self.out { full } else { Amount::NOTHING });
    }
}
