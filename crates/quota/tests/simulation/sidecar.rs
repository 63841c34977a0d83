//! One sidecar: its quota, and a queue of messages.

use std::collections::VecDeque;
use std::time::Duration;

use mailroute_quota::RouteLimits;
use mailroute_quota::client::budget::{Budget, BudgetSnapshot};
use mailroute_quota::client::lease_client::LeaseClient;
use mailroute_quota::client::saved_leases::SavedLeases;
use mailroute_quota::client::{Charge, SidecarQuota};
use mailroute_quota::server::limits::{Namespace, SidecarId};
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_quota::slots::unregistered_index;
use mailroute_quota::wire::TimeSlots;
use mailroute_quota::{Amount, Timing};

/// A message that is being sent.
pub struct Sending {
    pub number: u64,
    pub charge: Charge,
    pub recipients: u64,
    /// When it is over, if nothing aborts it before.
    pub ends: u64,
}

/// The exchange under way.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub number: u64,
    /// When its claim was sent.
    pub sent: Duration,
}

pub struct Sidecar {
    uid: String,
    pub namespace: Namespace,
    pub id: SidecarId,
    /// How far its clock is ahead of true time.
    pub offset: u64,
    /// When its pod was created, by the API server's clock.
    created: u64,
    quota: SidecarQuota,
    /// Recipients of each message that waits.
    pub queue: VecDeque<u64>,
    pub sending: Option<Sending>,
    pub exchange: Option<Exchange>,
    pub failures: u32,
    pub is_down: bool,
    pub is_cut_off: bool,
    /// Since when it waits for a lease in contact.
    pub waits_since: Option<u64>,
    pub next_look: u64,
    /// What waits here, as it was counted last.
    pub weight: usize,
    saved: SavedLeases,
    snapshot: BudgetSnapshot,
    limits: RouteLimits,
    timing: Timing,
}

impl Sidecar {
    pub fn new(
        namespace: Namespace,
        number: u64,
        offset: u64,
        limits: RouteLimits,
        timing: Timing,
        now: u64,
    ) -> Self {
        let mut sidecar = Self {
            namespace,
            // Ids are digests: in no order.
            id: SidecarId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            uid: format!("uid-{number}"),
            offset,
            created: now + super::world::HOUR,
            quota: SidecarQuota::new(Budget::new(limits, timing)),
            queue: VecDeque::new(),
            sending: None,
            exchange: None,
            failures: 0,
            is_down: false,
            is_cut_off: false,
            waits_since: None,
            next_look: u64::MAX,
            weight: 0,
            saved: SavedLeases::default(),
            snapshot: BudgetSnapshot::default(),
            limits,
            timing,
        };
        sidecar.restart(now);
        sidecar
    }

    /// Its pod, as the operator sees it.
    pub fn pod(&self) -> RunningSidecar {
        RunningSidecar {
            id: self.id,
            namespace: self.namespace.clone(),
            unregistered_index: unregistered_index(&self.uid),
            since: Duration::from_millis(self.created),
        }
    }

    /// Whether the operator has never assigned it slots.
    pub const fn is_unregistered(&self) -> bool {
        self.saved.slots.is_none()
    }

    pub fn local(&self, now: u64) -> Duration {
        Duration::from_millis(now + self.offset)
    }

    /// The time here at which that clock shows `local`.
    pub fn true_time(&self, local: Duration) -> u64 {
        u64::try_from(local.as_millis()).unwrap_or(u64::MAX).saturating_sub(self.offset)
    }

    pub fn leases(&mut self) -> &mut LeaseClient {
        self.quota.leases.as_mut().expect("every sidecar needs leases")
    }

    pub fn save(&mut self, now: u64) {
        let local = self.local(now);
        if let Some(saved) = self.leases().save(local) {
            self.saved = saved;
        }
    }

    /// When a message is aborted.
    pub fn cut_off_at(&self, sending: &Sending) -> u64 {
        self.true_time(self.quota.cut_off_at(&sending.charge).expect("every sidecar needs leases"))
    }

    /// Sends the first message in the queue, or says when to look again.
    pub fn send(&mut self, number: u64, now: u64) -> Result<bool, u64> {
        let local = self.local(now);
        let Some(&recipients) = self.queue.front().filter(|_| self.sending.is_none() && !self.is_down) else {
            return Ok(false);
        };
        let charge = self.quota.request(local, recipients).map_err(|wait| self.true_time(wait.until) + 1)?;
        self.save(now);
        self.queue.pop_front();
        self.sending = Some(Sending { number, charge, recipients, ends: u64::MAX });
        Ok(true)
    }

    /// Ends the message that is being sent.
    pub fn settle(&mut self, used: Amount, now: u64) {
        let local = self.local(now);
        if let Some(sending) = self.sending.take() {
            self.quota.settle(sending.charge, local, used);
        }
    }

    /// Kills the process. What was not stored is forgotten.
    pub fn crash(&mut self, now: u64) -> Option<Sending> {
        self.snapshot = self.quota.budget.snapshot(self.local(now));
        self.is_down = true;
        self.exchange = None;
        self.waits_since = None;
        self.sending.take()
    }

    pub fn restart(&mut self, now: u64) {
        let local = self.local(now);
        let slots = TimeSlots::of_unregistered(&self.uid, self.limits, self.timing);
        let leases = LeaseClient::new(self.timing, &self.saved, local).or_unregistered(slots);
        let budget = Budget::restore(self.limits, self.timing, &self.snapshot, local);
        self.quota = SidecarQuota { budget, leases: Some(leases) };
        self.save(now);
        self.is_down = false;
        self.failures = 0;
    }
}
