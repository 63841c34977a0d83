//! What sidecars and the leader say to each other, with messages that are late or lost.

use std::time::Duration;

use mailroute_quota::wire::{Allotment, Claim};

use super::{Event, SECOND, World};
use crate::leader::Asker;
use crate::sidecar::Exchange;

impl World {
    pub(super) fn try_to_claim(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        if sidecar.exchange.is_some() {
            return;
        }
        let local = sidecar.local(now);
        let due = sidecar.leases().due(local);
        let due = sidecar.true_time(due);
        if due > now {
            return self.look(who, due);
        }
        let mut claim = sidecar.leases().claim(local);
        if claim.messages > 0 {
            claim.messages = claim.messages.max(u32::try_from(sidecar.queue.len()).unwrap_or(u32::MAX));
        }
        self.next_exchange += 1;
        let exchange = self.next_exchange;
        sidecar.exchange = Some(Exchange { number: exchange, sent: local });
        let (id, cut_off) = (sidecar.id, sidecar.is_cut_off);
        self.seen.exchanges += 1;
        if cut_off || !self.leader.is_up || self.lost() {
            let after = self.chance.between(10, 10 * SECOND);
            return self.at(now + after, Event::Failed(who, exchange));
        }
        let delay = self.delay();
        self.at(now + delay, Event::Claim(Asker { sidecar: who, exchange, id }, Box::new(claim)));
    }

    fn lost(&mut self) -> bool {
        self.chance.one_in(self.plan.failures.lost)
    }

    fn delay(&mut self) -> u64 {
        if self.plan.failures.lost < u64::MAX && self.chance.one_in(300) {
            self.chance.between(SECOND, 8 * SECOND)
        } else {
            self.chance.between(1, 20)
        }
    }

    pub(super) fn claimed(&mut self, asker: Asker, claim: &Claim) {
        if !self.leader.is_up {
            return self.unanswered(asker);
        }
        let namespace = self.sidecars[asker.sidecar].namespace.clone();
        let (answer, writes) = self.leader.claim(asker, &namespace, claim, self.now);
        if let Some(answer) = answer {
            self.answer(asker, answer);
        }
        if writes {
            self.at(self.now + 10, Event::Written(self.leader_life));
        }
    }

    fn answer(&mut self, asker: Asker, answer: Allotment) {
        if self.lost() {
            return self.unanswered(asker);
        }
        let delay = self.delay();
        self.at(self.now + delay, Event::Answer(asker, Box::new(answer)));
    }

    /// No answer comes, which is known after a while.
    pub(super) fn unanswered(&mut self, Asker { sidecar: who, exchange, .. }: Asker) {
        let after = self.chance.between(SECOND, 10 * SECOND);
        self.at(self.now + after, Event::Failed(who, exchange));
    }

    pub(super) fn written(&mut self, life: u64) {
        if life != self.leader_life {
            return;
        }
        let (answers, more) = self.leader.wrote(self.now);
        for (asker, answer) in answers {
            self.answer(asker, answer);
        }
        if more {
            self.at(self.now + 10, Event::Written(life));
        }
    }

    pub(super) fn answered(&mut self, Asker { sidecar: who, exchange, .. }: Asker, allotment: &Allotment) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        let Some(Exchange { sent, .. }) = sidecar.exchange.filter(|current| current.number == exchange)
        else {
            return;
        };
        sidecar.exchange = None;
        if sidecar.is_cut_off {
            return self.gives_up(who);
        }
        sidecar.failures = 0;
        let local = sidecar.local(now);
        sidecar.leases().answered(sent, local, allotment);
        sidecar.save(now);
        // What was to be cut off may go on.
        if let Some(number) = sidecar.sending.as_ref().map(|it| it.number) {
            self.look_at_cut(who, number);
        }
        self.look(who, now);
    }

    pub(super) fn failed(&mut self, who: usize, exchange: u64) {
        if self.sidecars[who].exchange.is_some_and(|current| current.number == exchange) {
            self.sidecars[who].exchange = None;
            self.gives_up(who);
        }
    }

    fn gives_up(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        sidecar.failures += 1;
        let local = sidecar.local(now);
        let longest = if sidecar.leases().has_demand(local) { 3 } else { 120 };
        let pause = (5_u64 << (sidecar.failures - 1).min(6)).min(longest);
        sidecar.leases().unanswered(local + Duration::from_secs(pause));
        self.look(who, now);
    }
}
