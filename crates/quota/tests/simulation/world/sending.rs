//! A message: taken from a sidecar's queue, counted by Microsoft, over or aborted.

use mailroute_quota::Amount;

use super::{Event, SECOND, World};

impl World {
    /// A sidecar sends what it may, and says what it has to say.
    pub(super) fn looks(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        // One look is enough; others were planned for what this one sees.
        if now >= sidecar.next_look && !sidecar.is_down {
            sidecar.next_look = u64::MAX;
            self.try_to_send(who);
            self.try_to_claim(who);
        }
        self.weigh(who);
    }

    fn try_to_send(&mut self, who: usize) {
        let (now, number) = (self.now, self.next_message);
        match self.sidecars[who].send(number, now) {
            Ok(true) => self.sending(who),
            Ok(false) => {}
            Err(again) => {
                let sidecar = &mut self.sidecars[who];
                if !sidecar.is_cut_off && self.leader.is_up {
                    sidecar.waits_since.get_or_insert(now);
                }
                self.look(who, again);
            }
        }
    }

    fn sending(&mut self, who: usize) {
        let (now, number) = (self.now, self.next_message);
        self.next_message += 1;
        self.stops_waiting(who);
        self.upstream.opened();
        let chance = &mut self.chance;
        let takes = if chance.one_in(self.plan.failures.slow) {
            chance.between(10 * SECOND, 150 * SECOND)
        } else {
            chance.between(200, 2 * SECOND)
        };
        let counted = now + chance.between(0, takes);
        if self.sidecars[who].sending.as_ref().is_some_and(|it| it.charge.is_in_slot()) {
            self.seen.slots += 1;
            self.seen.slots_of_unregistered += u64::from(self.sidecars[who].is_unregistered());
        }
        if let Some(sending) = &mut self.sidecars[who].sending {
            sending.ends = now + takes;
        }
        self.at(counted, Event::Counted(who, number));
        self.at(now + takes, Event::Sent(who, number));
        self.look_at_cut(who, number);
    }

    /// A message is aborted when its charge says so.
    pub(super) fn look_at_cut(&mut self, who: usize, number: u64) {
        let sidecar = &self.sidecars[who];
        let Some(sending) = &sidecar.sending else { return };
        let cut = sidecar.cut_off_at(sending);
        if cut < sending.ends {
            self.at(cut, Event::Sent(who, number));
        }
    }

    pub(super) fn is_counted(&mut self, who: usize, number: u64) {
        if self.sidecars[who].sending.as_ref().is_some_and(|sending| sending.number == number) {
            self.count(number);
        }
    }

    pub(super) fn count(&mut self, number: u64) {
        if self.counted.insert(number) {
            self.upstream.message(self.now);
            self.seen.counted();
        }
    }

    pub(super) fn sent(&mut self, who: usize, number: u64) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        let Some(sending) = sidecar.sending.as_ref().filter(|sending| sending.number == number) else {
            return;
        };
        let recipients = sending.recipients;
        if now < sending.ends {
            if sidecar.cut_off_at(sending) > now {
                // That has moved since this was planned; the end comes later.
                return;
            }
            // Whether Microsoft counts what was cut off is not known, so here it does.
            self.seen.cut += 1;
            self.count(number);
        }
        self.counted.remove(&number);
        self.upstream.closed();
        self.upstream.accepted(recipients, now);
        self.sidecars[who].settle(Amount::message(recipients), now);
        self.seen.sent += 1;
        self.seen.sent_elsewhere += u64::from(self.is_elsewhere(who));
        self.look(who, now);
    }
}
