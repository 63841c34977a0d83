//! One sidecar: the real budget and the real leases, with a queue of messages.

use std::collections::VecDeque;
use std::time::Duration;

use mailroute_operator::budget::ledger::Living;
use mailroute_operator::budget::{Holder, Namespace};
use mailroute_sidecar::budget::holding::{Holding, Memory, Source};
use mailroute_sidecar::budget::{Amount, Budget, Limits, Permit, Snapshot, Spans, stranger};

/// A message under way.
pub struct Sending {
    pub number: u64,
    pub permit: Permit,
    pub source: Source,
    pub recipients: u64,
    /// When it is over, if nothing cuts it off before.
    pub ends: u64,
}

pub struct Sidecar {
    uid: String,
    pub home: Namespace,
    pub holder: Holder,
    /// How far its clock is ahead of true time.
    pub offset: u64,
    /// When its pod was made, by the API server's clock.
    made: u64,
    pub holding: Holding,
    pub budget: Budget,
    /// Recipients of each message that waits.
    pub queue: VecDeque<u64>,
    pub sending: Option<Sending>,
    /// The exchange under way, and when its claim had left.
    pub exchange: Option<(u64, Duration)>,
    pub failures: u32,
    pub is_down: bool,
    pub is_cut_off: bool,
    /// Since when it waits for a lease in contact.
    pub waits_since: Option<u64>,
    pub next_look: u64,
    /// What waits here, as it was counted last.
    pub weight: usize,
    memory: Memory,
    snapshot: Snapshot,
    limits: Limits,
    spans: Spans,
}

impl Sidecar {
    pub fn new(home: Namespace, uid: String, offset: u64, limits: Limits, spans: Spans, now: u64) -> Self {
        let local = Duration::from_millis(now + offset);
        let turn = stranger::turn(&uid, limits, spans);
        let mut holding = Holding::new(spans, &Memory::default(), local).or_as_a_stranger(turn);
        let memory = holding.memory(local).expect("a life is remembered");
        Self {
            home,
            holder: Holder::of(&uid),
            uid,
            offset,
            made: now + super::world::HOUR,
            holding,
            budget: Budget::new(limits, spans),
            queue: VecDeque::new(),
            sending: None,
            exchange: None,
            failures: 0,
            is_down: false,
            is_cut_off: false,
            waits_since: None,
            next_look: u64::MAX,
            weight: 0,
            memory,
            snapshot: Snapshot::default(),
            limits,
            spans,
        }
    }

    /// Its pod, as the operator sees it.
    pub fn pod(&self) -> Living {
        Living::of(&self.home, &self.uid, Duration::from_millis(self.made))
    }

    /// Whether the operator has ever told it of turns.
    pub const fn is_stranger(&self) -> bool {
        self.memory.turn.is_none()
    }

    pub fn local(&self, now: u64) -> Duration {
        Duration::from_millis(now + self.offset)
    }

    /// The time here at which that clock shows `local`.
    pub fn true_time(&self, local: Duration) -> u64 {
        u64::try_from(local.as_millis()).unwrap_or(u64::MAX).saturating_sub(self.offset)
    }

    pub fn remember(&mut self, now: u64) {
        let local = self.local(now);
        if let Some(memory) = self.holding.memory(local) {
            self.memory = memory;
        }
    }

    /// The first message in the queue goes, or when to look again.
    pub fn send(&mut self, number: u64, now: u64) -> Result<bool, u64> {
        let local = self.local(now);
        let Some(&recipients) = self.queue.front().filter(|_| self.sending.is_none() && !self.is_down) else {
            return Ok(false);
        };
        let amount = Amount::message(recipients);
        let held = self.budget.may(local, amount).and_then(|()| self.holding.may(local, amount));
        if let Err(wait) = held {
            return Err(self.true_time(wait.until) + 1);
        }
        let permit = self.budget.request(local, amount).expect("it may");
        let source = self.holding.take(local, amount).expect("it may");
        self.remember(now);
        self.queue.pop_front();
        self.sending = Some(Sending { number, permit, source, recipients, ends: u64::MAX });
        Ok(true)
    }

    /// The message under way is over.
    pub fn settle(&mut self, used: Amount, now: u64) {
        let local = self.local(now);
        if let Some(sending) = self.sending.take() {
            self.holding.settle(sending.source, local, used);
            self.budget.settle(sending.permit, local, used);
        }
    }

    /// The process is killed; what was not written down is forgotten.
    pub fn crash(&mut self, now: u64) -> Option<Sending> {
        self.snapshot = self.budget.snapshot(self.local(now));
        self.is_down = true;
        self.exchange = None;
        self.waits_since = None;
        self.sending.take()
    }

    pub fn restart(&mut self, now: u64) {
        let local = self.local(now);
        let turn = stranger::turn(&self.uid, self.limits, self.spans);
        self.holding = Holding::new(self.spans, &self.memory, local).or_as_a_stranger(turn);
        self.remember(now);
        self.budget = Budget::restore(self.limits, self.spans, &self.snapshot, local);
        self.is_down = false;
        self.failures = 0;
    }
}
