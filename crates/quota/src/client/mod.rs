//! The sidecar's end: what one sidecar may send now.
//!
//! [`SidecarQuota`] answers that, from two parts. Its [`Budget`] keeps to the limits that the route names. Where the
//! operator shares the mailbox among sidecars, a [`LeaseClient`] keeps to its leases as well.
//! Each message is a [`Charge`], to be settled whatever came of it. The caller has the clock, the tasks that wait, and the disk:
//!
//! * [`journal`]: the lines that restore the budget after a restart. [`saved_leases`]: what the lease client has to remember.
//! * [`wait`]: why not now. [`held_lease`]: one lease.

pub mod budget;
pub mod held_lease;
pub mod journal;
pub mod lease_client;
pub mod saved_leases;
pub mod wait;

use std::time::Duration;

use crate::Amount;
use crate::wire::Throttled;
use budget::{Budget, BudgetEntry};
use lease_client::{LeaseClient, LeaseSource};
use wait::{Wait, WaitReason};

/// Something taken out of the quota: one message, or a connection to check the upstream. Has to be settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a charge that is not settled counts for ever"]
pub struct Charge {
    /// Its place in the budget; nothing for a check, which sends no message.
    pub entry: Option<BudgetEntry>,
    /// By which lease or slot it goes; nothing where the operator leases none.
    pub source: Option<LeaseSource>,
}

impl Charge {
    /// What it counts when nobody knows what the upstream saw.
    pub fn amount(&self) -> Amount {
        self.entry.as_ref().map_or(Amount::NOTHING, BudgetEntry::amount)
    }

    /// Whether it goes in a time slot.
    pub const fn is_in_slot(&self) -> bool {
        matches!(self.source, Some(LeaseSource::Slot { .. }))
    }
}

/// What one sidecar may send as one mailbox.
#[derive(Clone, Debug)]
pub struct SidecarQuota {
    /// What the route's limits allow.
    pub budget: Budget,
    /// What the operator leases; nothing where it does not.
    pub leases: Option<LeaseClient>,
}

impl SidecarQuota {
    /// A quota without leases.
    pub const fn new(budget: Budget) -> Self {
        Self { budget, leases: None }
    }

    /// Takes one message to this many recipients.
    ///
    /// # Errors
    /// Not now; nothing was taken. Where leases are needed, the demand for one is noted.
    pub fn request(&mut self, now: Duration, recipients: u64) -> Result<Charge, Wait> {
        if self.budget.is_crowded(now) {
            // The end of another message comes first; the time is for callers that do not wait for it.
            let until = now + self.budget.timing().minute / 20;
            return Err(Wait { until, why: WaitReason::Restraint });
        }
        let amount = Amount::message(recipients);
        self.budget.may(now, amount)?;
        if let Some(leases) = &mut self.leases {
            leases.may(now, amount)?;
        }
        let entry = self.budget.request(now, amount)?;
        let source = self.leases.as_mut().and_then(|leases| leases.take(now, amount));
        Ok(Charge { entry: Some(entry), source })
    }

    /// Takes a connection to check the upstream without a message. Without contact to the operator it is given when `spread` has passed
    /// as well: then the check matters more.
    ///
    /// # Errors
    /// Not now; the demand is noted.
    pub fn request_check(&mut self, now: Duration, spread: Duration) -> Result<Charge, Wait> {
        let Some(leases) = &mut self.leases else { return Ok(Charge { entry: None, source: None }) };
        let may = leases.may(now, Amount::NOTHING);
        let source = leases.take(now, Amount::NOTHING);
        if may.is_ok() || leases.is_cut_off(now.saturating_sub(spread)) {
            return Ok(Charge { entry: None, source });
        }
        let until = now + self.budget.timing().minute / 20;
        Err(Wait { until, why: WaitReason::Lease })
    }

    /// Takes back a charge, with what the upstream counts of it.
    pub fn settle(&mut self, charge: Charge, now: Duration, used: Amount) {
        if let (Some(source), Some(leases)) = (charge.source, &mut self.leases) {
            leases.settle(source, now, used);
        }
        if let Some(entry) = charge.entry {
            self.budget.settle(entry, now, used);
        }
    }

    /// Notes that Microsoft throttled the mailbox.
    pub fn throttled(&mut self, what: Throttled, now: Duration) {
        self.budget.throttled(what, now);
        if let Some(leases) = &mut self.leases {
            leases.throttled(what);
        }
    }

    /// When what goes by this charge has to be aborted; nothing where the operator leases none.
    pub fn cut_off_at(&self, charge: &Charge) -> Option<Duration> {
        let source = charge.source?;
        self.leases.as_ref().map(|leases| leases.cut_off_at(source))
    }
}
