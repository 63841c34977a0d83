//! Claims to the operator, and its answers.
//!
//! Decides when a claim is due, and stores what has to outlive the process. The caller carries the messages: it asks for the claim
//! ([`RateLimiter::claim`]) and brings the answer.

use std::sync::Arc;
use std::time::Duration;

use mailroute_quota::wire::{Allotment, Claim};

use super::account::Account;
use super::{RateLimiter, SendPermit};
use crate::budget::saved_leases;

impl RateLimiter {
    /// What to claim from the operator now, and when the claim was made; nothing where it leases nothing.
    pub fn claim(&self) -> Option<(Claim, Duration)> {
        let account = self.account();
        let (mut state, now) = (account.state(), self.clock.now());
        let claim = Claim { mailbox: account.subject.clone(), ..state.quota.leases.as_mut()?.claim(now) };
        drop(state);
        Some((claim, now))
    }

    /// Takes in the operator's answer to the claim that was made at `sent`.
    pub async fn answered(self: &Arc<Self>, sent: Duration, allotment: &Allotment) {
        let account = self.account();
        if let Some(leases) = &mut account.state().quota.leases {
            leases.answered(sent, self.clock.now(), allotment);
        }
        self.save(account).await;
        self.changed.notify_waiters();
    }

    /// Notes that the operator was not reached and will be tried again after `pause`.
    pub fn unanswered(&self, pause: Duration) {
        let now = self.clock.now();
        if let Some(leases) = &mut self.account().state().quota.leases {
            leases.unanswered(now + pause);
        }
    }

    /// Whether something waits for a lease.
    pub fn is_wanting(&self) -> bool {
        let now = self.clock.now();
        self.account().state().quota.leases.as_ref().is_some_and(|leases| leases.has_demand(now))
    }

    /// Completes when the next claim is due; never where the operator leases nothing.
    pub async fn due(&self) {
        loop {
            let news = self.news.notified();
            let now = self.clock.now();
            let due = self.account().state().quota.leases.as_mut().map(|leases| leases.due(now));
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

    /// Completes when what is sent under this permit has to be aborted: the operator was out of reach for so long that it assumes
    /// nothing is being sent.
    pub async fn overdue(&self, permit: &SendPermit) {
        let Some(charge) = &permit.charge else { return std::future::pending().await };
        loop {
            let now = self.clock.now();
            let cut_off = permit.account.state().quota.cut_off_at(charge);
            match cut_off {
                None => return std::future::pending().await,
                Some(at) if at <= now => return,
                Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
            }
        }
    }

    /// Stores what of the leases has to outlive the process, if it has changed.
    pub(super) async fn save(&self, account: Arc<Account>) {
        let now = self.clock.now();
        let changed = account.state().quota.leases.as_mut().and_then(|leases| leases.save(now));
        if let Some(saved) = changed {
            let path = saved_leases::path(&self.directory, &account.subject);
            // Fails only when the program ends.
            let _ = tokio::task::spawn_blocking(move || saved_leases::write(&path, &saved)).await;
        }
    }
}
