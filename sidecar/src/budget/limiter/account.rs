//! One mailbox: what it may still send, in memory and on disk.
//!
//! Owns the two locks and their order, and what is written to the journal when. Without a known limit nothing is written. A journal
//! that cannot be written is logged and does not hold mail up: the count in memory goes on, and only a restart would forget it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use mailroute_quota::client::budget::{Budget, BudgetSnapshot};
use mailroute_quota::client::journal::JournalLine;
use mailroute_quota::client::lease_client::LeaseClient;
use mailroute_quota::client::wait::Wait;
use mailroute_quota::client::{Charge, SidecarQuota};
use mailroute_quota::wire::TimeSlots;
use mailroute_quota::{Amount, Timing};

use crate::budget::journal::Journal;
use crate::budget::saved_leases;
use crate::clock::Instant;
use crate::lock;

/// One mailbox.
pub(super) struct Account {
    pub(super) subject: String,
    state: Mutex<State>,
    /// Locked before `state` where both are needed.
    journal: Mutex<Option<Journal>>,
}

pub(super) struct State {
    pub(super) quota: SidecarQuota,
    /// Lines for the journal. Settlements wait here for the next message: until then the full amount stands.
    lines: String,
    pub(super) last_accepted: Option<Instant>,
}

impl Account {
    pub(super) fn new(subject: String, budget: Budget) -> Self {
        let state = State { quota: SidecarQuota::new(budget), lines: String::new(), last_accepted: None };
        Self { subject, state: Mutex::new(state), journal: Mutex::new(None) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether there are limits to keep, so that a message is written down before it is sent.
    pub(super) fn is_limited(&self) -> bool {
        self.state().quota.budget.is_limited()
    }

    /// Takes one message out of the quota.
    ///
    /// # Errors
    /// Not now.
    pub(super) fn request(&self, now: Duration, recipients: u64) -> Result<Charge, Wait> {
        let mut state = self.state();
        let charge = state.quota.request(now, recipients)?;
        let is_limited = state.quota.budget.is_limited();
        if let Some(entry) = charge.entry.as_ref().filter(|_| is_limited) {
            JournalLine::Take { id: entry.id(), amount: entry.amount() }.print(&mut state.lines);
        }
        Ok(charge)
    }

    /// Takes back what was charged.
    pub(super) fn settle(&self, charge: Charge, now: Duration, used: Amount) {
        let mut state = self.state();
        let is_limited = state.quota.budget.is_limited();
        if let Some(entry) = charge.entry.as_ref().filter(|_| is_limited) {
            JournalLine::Settle { id: entry.id(), at: now, amount: used }.print(&mut state.lines);
        }
        state.quota.settle(charge, now, used);
    }

    /// Opens a journal if there are limits to keep, and closes it if not. Blocks on the disk.
    pub(super) fn open_journal(&self, path: &Path, now: Duration) {
        let mut journal = lock(&self.journal);
        if !self.is_limited() {
            *journal = None;
        } else if journal.is_none() {
            *journal = Journal::create(path, &self.snapshot(now)).map_err(|error| unwritten(&error)).ok();
        }
    }

    /// Needs leases from now on. Until the first answer it uses these slots. Blocks on the disk.
    pub(super) fn use_leases(
        &self,
        unregistered: Option<TimeSlots>,
        path: &Path,
        timing: Timing,
        now: Duration,
    ) {
        if self.state().quota.leases.is_some() {
            return;
        }
        let leases = LeaseClient::new(timing, &saved_leases::read(path), now);
        let mut leases = leases.or_unregistered(unregistered);
        if let Some(saved) = leases.save(now) {
            saved_leases::write(path, &saved);
        }
        self.state().quota.leases = Some(leases);
    }

    /// Writes the lines that wait. If another thread has taken them, waits until they are written.
    pub(super) fn write(&self, now: Duration) {
        let mut journal = lock(&self.journal);
        let lines = std::mem::take(&mut self.state().lines);
        let Some(journal) = journal.as_mut() else { return };
        let outcome = if journal.is_long() {
            journal.renew(&self.snapshot(now)).or_else(|_| journal.append(&lines))
        } else {
            journal.append(&lines)
        };
        if let Err(error) = outcome {
            unwritten(&error);
        }
    }

    /// What a new journal says; lines that wait are part of it.
    fn snapshot(&self, now: Duration) -> BudgetSnapshot {
        let mut state = self.state();
        state.lines.clear();
        state.quota.budget.snapshot(now)
    }
}

fn unwritten(error: &std::io::Error) {
    tracing::warn!(%error, "the record of sent messages cannot be written; a restart would lose it");
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("subject", &self.subject).finish_non_exhaustive()
    }
}
