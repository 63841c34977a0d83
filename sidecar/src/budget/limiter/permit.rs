//! Permission to send one message.
//!
//! Owns what a permit counts when it ends, whichever way.

use std::sync::Arc;

use mailroute_quota::Amount;
use mailroute_quota::client::Charge;

use super::RateLimiter;
use super::account::Account;
use crate::clock;

/// Permission to send one message, or to check the upstream. Dropped without being settled, it counts in full: nobody knows what
/// the upstream saw.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts in full"]
pub struct SendPermit {
    limiter: Arc<RateLimiter>,
    pub(super) account: Arc<Account>,
    /// What was taken; nothing once it is settled.
    pub(super) charge: Option<Charge>,
    /// Whether the permit was handed out. Before that, nothing was sent.
    pub(super) is_out: bool,
}

impl SendPermit {
    pub(super) fn new(
        limiter: &Arc<RateLimiter>,
        account: Arc<Account>,
        charge: Charge,
        is_out: bool,
    ) -> Self {
        Self { limiter: Arc::clone(limiter), account, charge: Some(charge), is_out }
    }

    /// Gives the permit back, with what the upstream counts of it, and whether it accepted the message.
    pub fn settle(mut self, used: Amount, accepted: bool) {
        if accepted {
            self.account.state().last_accepted = Some(clock::now());
        }
        self.end(used);
    }

    /// Gives the permit back: nothing was sent.
    pub fn unused(self) {
        self.settle(Amount::NOTHING, false);
    }

    fn end(&mut self, used: Amount) {
        let Some(charge) = self.charge.take() else { return };
        self.account.settle(charge, self.limiter.clock.now(), used);
        self.limiter.news.notify_one();
        self.limiter.changed.notify_waiters();
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        let full = self.charge.as_ref().map_or(Amount::NOTHING, Charge::amount);
        self.end(if self.is_out { full } else { Amount::NOTHING });
    }
}
