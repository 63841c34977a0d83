//! The operator, as far as limits go: its ledger, the stored record, and replicas that come and go.

use std::collections::HashSet;
use std::time::Duration;

use mailroute_quota::Timing;
use mailroute_quota::server::Ledger;
use mailroute_quota::server::grant::Decision;
use mailroute_quota::server::limits::{MailboxLimits, Namespace, SidecarId};
use mailroute_quota::server::record::LedgerRecord;
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_quota::wire::{Allotment, Claim};

/// Who waits for an answer: the sidecar, and which of its exchanges it is.
#[derive(Clone, Copy)]
pub struct Asker {
    pub sidecar: usize,
    pub exchange: u64,
    pub id: SidecarId,
}

pub struct Leader {
    timing: Timing,
    limits: MailboxLimits,
    /// How far the clock of the replica that leads is ahead of true time.
    pub offset: u64,
    pub is_up: bool,
    ledger: Option<Ledger>,
    written: Option<String>,
    writing: Option<LedgerRecord>,
    waiting: Vec<Asker>,
    /// The pods that live, as they were looked through last. The new leader's watch is no older.
    running: Vec<RunningSidecar>,
    pub writes: u64,
}

impl Leader {
    pub const fn new(timing: Timing, limits: MailboxLimits) -> Self {
        Self {
            timing,
            limits,
            offset: super::world::HOUR,
            is_up: true,
            ledger: None,
            written: None,
            writing: None,
            waiting: Vec::new(),
            running: Vec::new(),
            writes: 0,
        }
    }

    fn now(&self, now: u64) -> Duration {
        Duration::from_millis(now + self.offset)
    }

    /// The flag says whether a write began; then [`Leader::wrote`] has to follow.
    pub fn claim(
        &mut self,
        asker: Asker,
        namespace: &Namespace,
        claim: &Claim,
        now: u64,
    ) -> (Option<Allotment>, bool) {
        let (now, who) = (self.now(now), asker.id);
        let ledger = self.ledger.get_or_insert_with(|| {
            let mut ledger = match &self.written {
                Some(text) => Ledger::restore(self.timing, &LedgerRecord::parse(text).expect("ours"), now),
                None => Ledger::new(self.timing),
            };
            ledger.expect(self.running.iter().cloned(), now);
            ledger
        });
        ledger.set_limits(namespace, "notifications", self.limits, now);
        if !ledger.claim(namespace, who, claim, now) {
            // Whoever said so is not listening any more.
            return (None, false);
        }
        match ledger.decide(who, now) {
            Decision::Answer(answer) => {
                let due = self.writing.is_none() && ledger.is_due(now);
                if due {
                    self.writing = Some(ledger.record(None, now));
                }
                (Some(answer), due)
            }
            Decision::NeedsWrite => {
                self.waiting.push(asker);
                let free = self.writing.is_none();
                if free {
                    self.writing = Some(ledger.record(Some(who), now));
                }
                (None, free)
            }
        }
    }

    /// A write has landed. Gives answers, and whether another one was begun.
    pub fn wrote(&mut self, now: u64) -> (Vec<(Asker, Allotment)>, bool) {
        let now = self.now(now);
        let (Some(record), Some(ledger)) = (self.writing.take(), self.ledger.as_mut()) else {
            return (vec![], false);
        };
        self.written = Some(record.print());
        self.writes += 1;
        ledger.persisted(&record, now);
        let mut answers = Vec::new();
        for asker in std::mem::take(&mut self.waiting) {
            match ledger.decide(asker.id, now) {
                Decision::Answer(answer) => answers.push((asker, answer)),
                Decision::NeedsWrite => {
                    if self.writing.is_none() {
                        self.writing = Some(ledger.record(Some(asker.id), now));
                    }
                    self.waiting.push(asker);
                }
            }
        }
        (answers, self.writing.is_some())
    }

    /// The replica is gone with all it had in memory; a write under way has landed or has not.
    /// Gives whoever waits for an answer.
    pub fn crash(&mut self, landed: bool) -> Vec<Asker> {
        if let Some(record) = self.writing.take().filter(|_| landed) {
            self.written = Some(record.print());
        }
        self.ledger = None;
        self.is_up = false;
        std::mem::take(&mut self.waiting)
    }

    /// A pod is seen to be gone.
    pub fn gone(&mut self, who: SidecarId, now: u64) {
        let now = self.now(now);
        if let Some(ledger) = &mut self.ledger {
            ledger.forget(who, now);
        }
    }

    /// The pods that live are looked through.
    pub fn sweep(&mut self, running: Vec<RunningSidecar>, now: u64) {
        let now = self.now(now);
        let ids: HashSet<SidecarId> = running.iter().map(|one| one.id).collect();
        if let Some(ledger) = &mut self.ledger {
            ledger.forget_unless(|id| ids.contains(&id), now);
            ledger.expect(running.iter().cloned(), now);
        }
        self.running = running;
    }
}
