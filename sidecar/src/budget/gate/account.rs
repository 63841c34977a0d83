//! What is known of one mailbox: its budget, its leases, its ledger.
//!
//! Owns the two locks and their order, and what is written of the budget when. Refuses to know who waits and who asks. Where no
//! limit is known nothing is written. A ledger that cannot be written is logged and does not hold mail up: the count in memory
//! goes on, only a restart would forget it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroute_route::control::Turn;

use crate::budget::holding::Holding;
use crate::budget::ledger::Ledger;
use crate::budget::{Budget, Snapshot, Spans, memory};
use crate::clock::Instant;

/// One mailbox.
pub(super) struct Account {
    pub(super) subject: String,
    pub(super) state: Mutex<State>,
    /// Locked before `state` where both are needed.
    pub(super) ledger: Mutex<Option<Ledger>>,
}

pub(super) struct State {
    pub(super) budget: Budget,
    /// What the operator leases; nothing where it does not.
    pub(super) holding: Option<Holding>,
    /// Lines for the ledger. Settlements wait here for the next message: until then the full amount stands.
    pub(super) lines: String,
    pub(super) last_accepted: Option<Instant>,
}

impl Account {
    pub(super) fn new(subject: String, budget: Budget) -> Self {
        let state = State { budget, holding: None, lines: String::new(), last_accepted: None };
        Self { subject, state: Mutex::new(state), ledger: Mutex::new(None) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a ledger when there are limits to keep, and none otherwise. Blocks on the disk.
    pub(super) fn keep(&self, path: &Path, now: Duration) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = self.state().budget.is_limited();
        if !limited {
            *ledger = None;
        } else if ledger.is_none() {
            *ledger = Ledger::create(path, &self.snapshot(now)).map_err(|error| unwritten(&error)).ok();
        }
    }

    /// Needs leases from now on, or does not. Until the first one there may be turns of a stranger. Blocks on the disk.
    pub(super) fn lease(
        &self,
        leased: bool,
        stranger: Option<Turn>,
        path: &Path,
        spans: Spans,
        now: Duration,
    ) {
        let is_leased = self.state().holding.is_some();
        if !leased {
            self.state().holding = None;
        } else if !is_leased {
            let mut holding = Holding::new(spans, &memory::read(path), now).or_as_a_stranger(stranger);
            if let Some(memory) = holding.memory(now) {
                memory::write(path, &memory);
            }
            self.state().holding = Some(holding);
        }
    }

    /// Writes the lines that wait. When another thread has taken them already, this waits until they are written.
    pub(super) fn write(&self, now: Duration) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.state().lines);
        let Some(ledger) = ledger.as_mut() else { return };
        let outcome = if ledger.is_long() {
            ledger.renew(&self.snapshot(now)).or_else(|_| ledger.append(&lines))
        } else {
            ledger.append(&lines)
        };
        if let Err(error) = outcome {
            unwritten(&error);
        }
    }

    /// What has to be in the ledger now; lines that wait are part of it.
    fn snapshot(&self, now: Duration) -> Snapshot {
        let mut state = self.state();
        state.lines.clear();
        state.budget.snapshot(now)
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
