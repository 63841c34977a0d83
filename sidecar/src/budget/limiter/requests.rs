//! Requests for permission to send, and waiting for it.
//!
//! Owns the order of tasks that wait: first come, first served. A permit is written down before it is handed out.

use std::sync::Arc;
use std::time::Duration;

use mailroute_quota::client::wait::{Wait, WaitReason};
use tokio::sync::futures::Notified;

use super::{Denied, RateLimiter, SendPermit};
use crate::clock::{self, Instant};

/// Minutes over which checks of the upstream are spread while the operator shares no connections out: a check takes a second or
/// two, so that some hundred pods rarely have more than three under way.
const SPREAD: f64 = 4.0;

impl RateLimiter {
    /// Requests permission to send one message to this many recipients.
    ///
    /// # Errors
    /// Not now.
    pub async fn take(self: &Arc<Self>, recipients: u64) -> Result<SendPermit, Denied> {
        self.request(recipients).await.inspect_err(|denied| self.observe.waits(denied.why))
    }

    /// The same, waiting until `deadline` at most. Tasks are served in the order in which they came.
    ///
    /// # Errors
    /// Not until then.
    pub async fn take_until(
        self: &Arc<Self>,
        recipients: u64,
        deadline: Instant,
    ) -> Result<SendPermit, Denied> {
        let denied = match self.turn.try_lock() {
            Ok(_turn) => match self.request(recipients).await {
                Ok(permit) => return Ok(permit),
                Err(denied) => denied,
            },
            Err(_) => Denied { until: clock::now(), why: WaitReason::Pace },
        };
        self.observe.waits(denied.why);
        let mut last = denied;
        let waiting = self.wait_in_turn(recipients, deadline, &mut last);
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last),
        }
    }

    /// Permission to check the upstream without a message, which takes one of the mailbox's connections. Without contact to the
    /// operator it is given some minutes later: then the check matters more. Nothing if others send for all of `patience`.
    pub async fn admit(self: &Arc<Self>, patience: Duration) -> Option<SendPermit> {
        let deadline = clock::now() + patience;
        // Pods of a deployment start together, and nobody spreads their checks then.
        let spread = self.timing.minute.mul_f64(SPREAD * clock::chance());
        loop {
            let changed = self.changed();
            let account = self.account();
            let request = account.state().quota.request_check(self.clock.now(), spread);
            let until = match request {
                Ok(charge) => return Some(SendPermit::new(self, account, charge, true)),
                Err(wait) => self.clock.instant(wait.until),
            };
            self.news.notify_one();
            if clock::now() >= deadline {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(deadline)) => {}
                () = changed => {}
            }
        }
    }

    /// Completes at the next change that may let a denied request through: a settlement, a lease, or other limits. Counts from this
    /// call on.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    async fn wait_in_turn(
        self: &Arc<Self>,
        recipients: u64,
        deadline: Instant,
        last: &mut Denied,
    ) -> Result<SendPermit, Denied> {
        let _turn = self.turn.lock().await;
        loop {
            let changed = self.changed.notified();
            match self.request(recipients).await {
                Ok(permit) => return Ok(permit),
                // When a lease comes is not known, as the operator was only asked just now.
                Err(denied) if denied.until > deadline && denied.why != WaitReason::Lease => {
                    return Err(denied);
                }
                Err(denied) => *last = denied,
            }
            tokio::select! {
                () = tokio::time::sleep_until(last.until) => {}
                () = changed => {}
            }
        }
    }

    async fn request(self: &Arc<Self>, recipients: u64) -> Result<SendPermit, Denied> {
        let (account, now) = (self.account(), self.clock.now());
        let charge = account.request(now, recipients).map_err(|Wait { until, why }| {
            self.news.notify_one();
            Denied { until: self.clock.instant(until), why }
        })?;
        let (is_limited, is_in_slot) = (account.is_limited(), charge.is_in_slot());
        let mut permit = SendPermit::new(self, Arc::clone(&account), charge, !is_limited);
        if is_limited {
            let written = Arc::clone(&account);
            // Fails only when the program ends, and then nothing is sent.
            let _ = tokio::task::spawn_blocking(move || written.write(now)).await;
            if is_in_slot {
                self.save(account).await;
            }
        }
        permit.is_out = true;
        Ok(permit)
    }
}
