//! The operator, as far as limits go: the real ledger, what is written down of it, and replicas that come and go.

use std::collections::HashSet;
use std::time::Duration;

use mailroute_operator::budget::ledger::{Decision, Ledger, Living};
use mailroute_operator::budget::record::Record;
use mailroute_operator::budget::terms::Terms;
use mailroute_operator::budget::{Holder, Limits, Namespace};
use mailroute_route::control::{Allotment, Claim};

/// Who waits for an answer: the sidecar, and which of its exchanges it is.
pub type Asker = (usize, u64, Holder);

pub struct Leader {
    terms: Terms,
    limits: Limits,
    /// How far the clock of the replica that leads is ahead of true time.
    pub offset: u64,
    pub is_up: bool,
    ledger: Option<Ledger>,
    written: Option<String>,
    writing: Option<Record>,
    waiting: Vec<Asker>,
    /// The pods that live, as they were looked through last. The new leader's watch is no older.
    living: Vec<Living>,
    pub writes: u64,
}

impl Leader {
    pub const fn new(terms: Terms, limits: Limits) -> Self {
        Self {
            terms,
            limits,
            offset: super::world::HOUR,
            is_up: true,
            ledger: None,
            written: None,
            writing: None,
            waiting: Vec::new(),
            living: Vec::new(),
            writes: 0,
        }
    }

    fn now(&self, now: u64) -> Duration {
        Duration::from_millis(now + self.offset)
    }

    /// Whether a write was begun is told by the flag; then [`Leader::wrote`] has to follow.
    pub fn claim(
        &mut self,
        asker: Asker,
        home: &Namespace,
        claim: &Claim,
        now: u64,
    ) -> (Option<Allotment>, bool) {
        let (now, who) = (self.now(now), asker.2);
        let ledger = self.ledger.get_or_insert_with(|| {
            let mut ledger = match &self.written {
                Some(text) => Ledger::restore(self.terms, &Record::parse(text).expect("ours"), now),
                None => Ledger::new(self.terms),
            };
            ledger.expect(self.living.iter().cloned(), now);
            ledger
        });
        ledger.limit(home, "notifications", self.limits, now);
        if !ledger.hear(home, who, claim, now) {
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
        ledger.recorded(&record, now);
        let mut answers = Vec::new();
        for asker in std::mem::take(&mut self.waiting) {
            match ledger.decide(asker.2, now) {
                Decision::Answer(answer) => answers.push((asker, answer)),
                Decision::NeedsWrite => {
                    if self.writing.is_none() {
                        self.writing = Some(ledger.record(Some(asker.2), now));
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
    pub fn gone(&mut self, who: Holder, now: u64) {
        let now = self.now(now);
        if let Some(ledger) = &mut self.ledger {
            ledger.forget(who, now);
        }
    }

    /// The pods that live are looked through.
    pub fn sweep(&mut self, living: Vec<Living>, now: u64) {
        let now = self.now(now);
        let holders: HashSet<Holder> = living.iter().map(|one| one.holder).collect();
        if let Some(ledger) = &mut self.ledger {
            ledger.forget_unless(|holder| holders.contains(&holder), now);
            ledger.expect(living.iter().cloned(), now);
        }
        self.living = living;
    }
}
