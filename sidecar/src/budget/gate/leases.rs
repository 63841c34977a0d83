//! What is exchanged with the operator about leases.
//!
//! Owns when there is something to say, and that what of it has to outlive the process is written down. Refuses to know how it
//! travels: whoever exchanges words with the operator asks here what to say ([`Gate::claim`]) and brings the answer.

use std::sync::Arc;
use std::time::Duration;

use mailroute_route::control::{Allotment, Claim};

use super::account::Account;
use super::{Gate, SendPermit};
use crate::budget::memory;

impl Gate {
    /// What to say to the operator now about leases, and when it was said; nothing where it leases none.
    pub fn claim(&self) -> Option<(Claim, Duration)> {
        let account = self.account();
        let (mut state, now) = (account.state(), self.clock.now());
        let claim = Claim { mailbox: account.subject.clone(), ..state.holding.as_mut()?.claim(now) };
        drop(state);
        Some((claim, now))
    }

    /// The operator has answered what was said at `sent`.
    pub async fn answered(self: &Arc<Self>, sent: Duration, allotment: &Allotment) {
        let account = self.account();
        if let Some(holding) = &mut account.state().holding {
            holding.answered(sent, self.clock.now(), allotment);
        }
        self.remember(account).await;
        self.changed.notify_waiters();
    }

    /// The operator was not reached; it will be tried again after `pause`.
    pub fn unanswered(&self, pause: Duration) {
        let now = self.clock.now();
        if let Some(holding) = &mut self.account().state().holding {
            holding.unanswered(now + pause);
        }
    }

    /// Whether anybody waits for a lease.
    pub fn is_wanting(&self) -> bool {
        let now = self.clock.now();
        self.account().state().holding.as_ref().is_some_and(|holding| holding.is_wanted(now))
    }

    /// Completes when it is time to speak to the operator about leases; never where there are none.
    pub async fn due(&self) {
        loop {
            let news = self.news.notified();
            let now = self.clock.now();
            let due = self.account().state().holding.as_mut().map(|holding| holding.due(now));
            match due {
                None => news.await,
                Some(due) if due <= now => return,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.instant(due)) => {}
                    () = news => {}
                },
            }
        }
    }

    /// Completes when what is sent under this permit has to be cut off: the operator was not reached for so long that it counts on
    /// nothing being under way.
    pub async fn overdue(&self, permit: &SendPermit) {
        let Some(source) = permit.source else { return std::future::pending().await };
        loop {
            let now = self.clock.now();
            let cut = permit.account.state().holding.as_ref().map(|holding| holding.cut_at(source));
            match cut {
                None => return std::future::pending().await,
                Some(cut) if cut <= now => return,
                Some(cut) => tokio::time::sleep_until(self.clock.instant(cut)).await,
            }
        }
    }

    /// Writes down what of the leases has to outlive the process, when it has changed.
    pub(super) async fn remember(&self, account: Arc<Account>) {
        let now = self.clock.now();
        let changed = account.state().holding.as_mut().and_then(|holding| holding.memory(now));
        if let Some(memory) = changed {
            let path = memory::path(&self.directory, &account.subject);
            // Fails only when the program ends.
            let _ = tokio::task::spawn_blocking(move || memory::write(&path, &memory)).await;
        }
    }
}
