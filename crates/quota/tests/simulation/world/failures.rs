//! What goes wrong: processes that are killed, pods that are replaced or cut off, leaders that change.

use super::{EPOCH, Event, HOUR, MINUTE, SECOND, World};
use crate::chance::Chance;

impl World {
    pub(super) fn plan_failures(&mut self) {
        let end = self.now + self.plan.length;
        let hours = self.plan.length / HOUR;
        let failures = self.plan.failures;
        let when = |chance: &mut Chance| chance.between(EPOCH + 3 * MINUTE, end);
        for _ in 0..hours * failures.falls {
            let at = when(&mut self.chance);
            self.at(at, Event::LeaderFalls);
        }
        for _ in 0..hours * failures.crashes {
            let (at, who) = (when(&mut self.chance), self.anybody());
            self.at(at, Event::Crash(who));
            let (at, who) = (when(&mut self.chance), self.anybody());
            self.at(at, Event::Replace(who));
        }
        for _ in 0..failures.partitions {
            let (at, who) = (when(&mut self.chance), self.anybody());
            let length = if self.chance.one_in(3) {
                self.chance.between(4 * MINUTE, 40 * MINUTE)
            } else {
                self.chance.between(SECOND, 2 * MINUTE)
            };
            self.at(at, Event::CutOff(who, length));
            if failures.newborn {
                self.at(at, Event::Replace(who));
            }
        }
    }

    pub(super) fn leader_falls(&mut self) {
        if !self.leader.is_up {
            return;
        }
        self.seen.falls += 1;
        self.leader_life += 1;
        let landed = self.chance.one_in(2);
        for asker in self.leader.crash(landed) {
            self.unanswered(asker);
        }
        // Mostly an orderly change; sometimes the whole operator is away.
        let away = if self.chance.one_in(12) {
            let away = self.chance.between(4 * MINUTE, 12 * MINUTE);
            self.seen.away_until = self.now + away;
            away
        } else {
            self.chance.between(SECOND, 20 * SECOND)
        };
        self.at(self.now + away, Event::LeaderRises);
        (0..self.sidecars.len()).for_each(|who| self.stops_waiting(who));
    }

    pub(super) fn leader_rises(&mut self) {
        self.leader.is_up = true;
        self.leader.offset = HOUR + self.chance.between(0, 2 * SECOND);
    }

    pub(super) fn cut_off(&mut self, who: usize, length: u64) {
        self.sidecars[who].is_cut_off = true;
        self.seen.partitions += 1;
        self.stops_waiting(who);
        self.at(self.now + length, Event::Healed(who));
        self.weigh(who);
    }

    pub(super) fn healed(&mut self, who: usize) {
        self.sidecars[who].is_cut_off = false;
        self.weigh(who);
    }

    /// A process is killed, and the kubelet starts another.
    pub(super) fn crashes(&mut self, who: usize) {
        let who = self.aim(who);
        self.crash(who);
        self.weigh(who);
        let pause = self.chance.between(SECOND, 20 * SECOND);
        self.at(self.now + pause, Event::Restart(who));
    }

    pub(super) fn restart(&mut self, who: usize) {
        let now = self.now;
        self.sidecars[who].restart(now);
        self.look(who, now);
        self.weigh(who);
    }

    /// A pod is replaced by another one, which has its messages.
    pub(super) fn replace(&mut self, who: usize) {
        let who = self.aim(who);
        if self.sidecars[who].is_down {
            return;
        }
        self.crash(who);
        let id = self.sidecars[who].id;
        let seen = self.chance.between(10, 5 * SECOND);
        self.at(self.now + seen, Event::Gone(id));
        let mut fresh = self.sidecar(who);
        fresh.queue = std::mem::take(&mut self.sidecars[who].queue);
        fresh.is_cut_off = self.sidecars[who].is_cut_off;
        fresh.weight = self.sidecars[who].weight;
        self.sidecars[who] = fresh;
        self.look(who, self.now);
        self.weigh(who);
    }

    /// Whom it hits: somebody who is sending, if there is one and that is the plan.
    fn aim(&self, who: usize) -> usize {
        let count = self.sidecars.len();
        let mut others = (0..count).map(|step| (who + step) % count);
        let at_work = others.find(|other| self.sidecars[*other].sending.is_some());
        at_work.filter(|_| self.plan.failures.at_work).unwrap_or(who)
    }

    fn crash(&mut self, who: usize) {
        let now = self.now;
        self.seen.crashes += 1;
        let sidecar = &mut self.sidecars[who];
        sidecar.next_look = u64::MAX;
        if let Some(sending) = sidecar.crash(now) {
            // What was on the wire may still be counted, and the message is tried again.
            if self.chance.one_in(2) {
                self.count(sending.number);
                self.upstream.accepted(sending.recipients, now);
            }
            self.counted.remove(&sending.number);
            self.upstream.closed();
            self.sidecars[who].queue.push_front(sending.recipients);
        }
    }
}
