//! Requesting permission to send, and waiting for it.
//!
//! Owns the order of those who wait: first come, first served. A permit is written down before it is handed out. Refuses to know
//! what it is for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::{Denied, Gate, SendPermit};
use crate::budget::holding::Source;
use crate::budget::{Amount, Wait, Why, ledger};
use crate::clock::{self, Instant};

/// Minutes over which looks are spread where nobody shares the connections out: a look takes a second or two, so that some hundred
/// pods rarely have more than three under way.
const SPREAD: f64 = 4.0;

impl Gate {
    /// Requests permission to send one message to so many recipients.
    ///
    /// # Errors
    /// Not now.
    pub async fn take(self: &Arc<Self>, recipients: u64) -> Result<SendPermit, Denied> {
        self.ask(recipients).await.inspect_err(|denied| self.observe.waits(denied.why))
    }

    /// The same, waiting until `deadline` at most. Those who wait are served in the order in which they came.
    ///
    /// # Errors
    /// Not until then.
    pub async fn take_until(
        self: &Arc<Self>,
        recipients: u64,
        deadline: Instant,
    ) -> Result<SendPermit, Denied> {
        let denied = match self.turn.try_lock() {
            Ok(_turn) => match self.ask(recipients).await {
                Ok(permit) => return Ok(permit),
                Err(denied) => denied,
            },
            Err(_) => Denied { until: clock::now(), why: Why::Pace },
        };
        self.observe.waits(denied.why);
        let mut last = denied;
        let waiting = self.wait_in_turn(recipients, deadline, &mut last);
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last),
        }
    }

    /// Permission to look at the way without a message, which takes one of the mailbox's connections. Without any word from the
    /// operator it is given some minutes later: then it is the look that matters. None within `patience` while others send.
    pub async fn admit(self: &Arc<Self>, patience: Duration) -> Option<SendPermit> {
        let deadline = clock::now() + patience;
        // Pods of a deployment start together, and nobody tells them apart then.
        let spread = self.spans.minute.mul_f64(SPREAD * clock::chance());
        loop {
            let changed = self.changed();
            let account = self.account();
            let until = {
                let (mut state, now) = (account.state(), self.clock.now());
                let Some(holding) = &mut state.holding else {
                    drop(state);
                    return Some(SendPermit::new(self, account, None, None, true));
                };
                let may = holding.may(now, Amount::NOTHING);
                let source = holding.take(now, Amount::NOTHING);
                if may.is_ok() || holding.is_cut_off(now.saturating_sub(spread)) {
                    drop(state);
                    return Some(SendPermit::new(self, account, None, source, true));
                }
                self.news.notify_one();
                self.clock.instant(now + self.spans.minute / 20)
            };
            if clock::now() >= deadline {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(deadline)) => {}
                () = changed => {}
            }
        }
    }

    /// Completes at the next change that may let somebody go who was denied: a settlement, a lease, or other limits. Counts
    /// from this call on.
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
            match self.ask(recipients).await {
                Ok(permit) => return Ok(permit),
                // When a lease comes is not known, as the operator was only asked just now.
                Err(denied) if denied.until > deadline && denied.why != Why::Lease => return Err(denied),
                Err(denied) => *last = denied,
            }
            tokio::select! {
                () = tokio::time::sleep_until(last.until) => {}
                () = changed => {}
            }
        }
    }

    async fn ask(self: &Arc<Self>, recipients: u64) -> Result<SendPermit, Denied> {
        let account = self.account();
        let mut permit = {
            let (mut state, now) = (account.state(), self.clock.now());
            if state.budget.is_crowded(now) {
                // The end of another message comes first; this is for those who do not wait for it.
                let until = self.clock.instant(now + self.spans.minute / 20);
                return Err(Denied { until, why: Why::Restraint });
            }
            let amount = Amount::message(recipients);
            let until = |wait: Wait| Denied { until: self.clock.instant(wait.until), why: wait.why };
            state.budget.may(now, amount).map_err(until)?;
            if let Some(holding) = &mut state.holding {
                holding.may(now, amount).map_err(until).inspect_err(|_| self.news.notify_one())?;
            }
            let permit = state.budget.request(now, amount).map_err(until)?;
            let source = state.holding.as_mut().and_then(|holding| holding.take(now, amount));
            if !state.budget.is_limited() {
                drop(state);
                return Ok(SendPermit::new(self, account, Some(permit), source, true));
            }
            ledger::taken(permit.id(), permit.amount(), &mut state.lines);
            drop(state);
            SendPermit::new(self, Arc::clone(&account), Some(permit), source, false)
        };
        let now = self.clock.now();
        // Fails only when the program ends, and then nothing is sent.
        let written = Arc::clone(&account);
        let _ = tokio::task::spawn_blocking(move || written.write(now)).await;
        if matches!(permit.source, Some(Source::Turn(_))) {
            self.remember(account).await;
        }
        permit.out = true;
        Ok(permit)
    }
}
