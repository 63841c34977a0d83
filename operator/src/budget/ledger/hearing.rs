//! What sidecars say, and what of it counts as used.
//!
//! Owns the end of every lease: told, never received, or its holder gone. Refuses to give anything out. A claim that was overtaken
//! changes nothing, what nobody accounts for was used in full, and nothing that is said counts for more than was granted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailroute_limits::strangers::RECIPIENTS;
use mailroute_route::control::{Claim, LeaseUse, MAX_LEASES};

use super::{End, Ledger, Out, Sidecar};
use crate::budget::line::Wish;
use crate::budget::turns::Class;
use crate::budget::{Amount, Holder, Namespace};

/// Most recipients of one message that anybody asks for. Exchange Online takes 1000 at most.
const MOST_RECIPIENTS: u32 = 1000;

impl Ledger {
    /// Takes in what a sidecar of a namespace says. Says whether it is to be answered: a claim that was overtaken is not.
    pub fn hear(&mut self, home: &Namespace, who: Holder, claim: &Claim, now: Duration) -> bool {
        self.expire(now);
        let known = self.sidecars.get(&who).copied();
        if known.is_some_and(|known| (claim.instance, claim.sequence) <= (known.life, known.sequence)) {
            return false;
        }
        self.homes.insert(who, home.clone());
        // A new leader has not heard it yet, although the one before may have until just now.
        let was_silent = known.is_none_or(|known| known.heard + self.terms.silent() <= now);
        if was_silent && self.turns.owns(who) && !claim.no_turns_taken {
            self.was_alone(who, now);
        }
        self.sidecars.insert(who, Sidecar { life: claim.instance, sequence: claim.sequence, heard: now });
        let share = self.share(home, now);
        share.heard = now;
        share.strangers.heard(who);
        self.alone(who, claim, now);
        self.turns.says(who, claim.turn.is_some());
        self.settle(who, claim, now);
        if claim.throttled.is_some() {
            let minute = self.terms.minute;
            self.share(home, now).restraint.throttled(now, minute);
            self.dirty = true;
        }
        if claim.leaving {
            self.forget(who, now);
            return true;
        }
        let known = claim.turn.and_then(|(index, of)| Class::new(index, of));
        if self.limits.in_turn(1) > 0 && self.turns.assign(who, known, self.sidecars.len()) {
            self.dirty = true;
        }
        self.queue(who, home, claim, now);
        true
    }

    /// Counts recipients of turns: no more than the sidecar's turns were for, or those of a stranger, and no more in a day than
    /// is kept for the turns of all.
    fn alone(&mut self, who: Holder, claim: &Claim, now: Duration) {
        let turn = self.turns.class(who).and_then(|class| self.turn(class));
        let granted = turn.map_or(RECIPIENTS, |turn| turn.recipients.max(RECIPIENTS));
        let said = u64::from(claim.alone_recipients.min(granted));
        self.count_alone(who, said, now);
    }

    /// Counts recipients that were sent to without a lease, as far as that is believed of the sidecar's namespace.
    pub(super) fn count_alone(&mut self, who: Holder, recipients: u64, now: Duration) {
        let believed = self.believe(who, recipients, now);
        let Some(share) = self.share_of(who) else { return };
        share.day.add(now, believed);
        self.day.add(now, believed);
    }

    /// How many of these recipients, which nobody gave leave to, are believed: a part of the day for each namespace.
    fn believe(&mut self, who: Holder, recipients: u64, now: Duration) -> u64 {
        let most = u64::from(self.limits.recipients / 20);
        self.share_of(who).map_or(0, |share| share.alone(recipients, most, now))
    }

    /// A pod is gone, and what its sidecar had counts as used just now.
    pub fn forget(&mut self, who: Holder, now: Duration) {
        let lost: Vec<Out> =
            self.leases.extract_if(.., |_, out| out.holder == who).map(|(_, out)| out).collect();
        lost.iter().for_each(|out| self.count(who, out.amount, now));
        if let Some(foreign) = self.foreign.remove(&who) {
            self.count(who, foreign.amount, now);
        }
        let known = self.sidecars.remove(&who);
        self.line.leave(who);
        self.ended.retain(|(holder, _), _| *holder != who);
        if self.turns.owns(who) {
            if known.is_none_or(|known| known.heard + self.terms.silent() <= now) {
                self.was_alone(who, now);
            }
            self.turns.release(who);
            self.dirty = true;
        }
        self.homes.remove(&who);
    }

    /// Forgets everybody of whom `lives` says no.
    pub fn forget_unless(&mut self, lives: impl Fn(Holder) -> bool, now: Duration) {
        let leases = self.leases.values().map(|out| out.holder);
        let known = self.sidecars.keys().copied().chain(self.turns.owners()).chain(leases);
        let gone: BTreeSet<Holder> =
            known.chain(self.foreign.keys().copied()).filter(|holder| !lives(*holder)).collect();
        gone.into_iter().for_each(|holder| self.forget(holder, now));
        let terms = self.terms;
        for share in self.shares.values_mut() {
            share.forget_routes(terms.remembered(), now);
        }
        self.shares.retain(|_, share| !share.is_empty(terms, now));
        self.agree();
    }

    fn queue(&mut self, who: Holder, home: &Namespace, claim: &Claim, now: Duration) {
        if claim.messages == 0 && !claim.probe || claim.leases.len() >= MAX_LEASES {
            return self.line.leave(who);
        }
        let recipients = u64::from(claim.recipients.clamp(1, MOST_RECIPIENTS));
        let wish = Wish { messages: u64::from(claim.messages), recipients };
        let waited = Duration::from_millis(claim.waited_millis).min(self.terms.day);
        self.line.join(who, home, wish, now.saturating_sub(waited));
    }

    /// What the claim says about leases.
    fn settle(&mut self, who: Holder, claim: &Claim, now: Duration) {
        // Most sidecars have nothing to tell most of the time.
        let is_out = self.leases.values().any(|out| out.holder == who);
        if claim.leases.is_empty() && !is_out && !self.foreign.contains_key(&who) {
            return self.ended.retain(|(holder, _), _| *holder != who);
        }
        let until = now + self.terms.cut() + self.terms.skew();
        let named: BTreeMap<u64, &LeaseUse> =
            claim.leases.iter().take(MAX_LEASES).map(|lease| (lease.id, lease)).collect();
        let mine: Vec<(u64, Out)> =
            self.leases.range((who, 0)..=(who, u64::MAX)).map(|((_, id), out)| (*id, *out)).collect();
        for (id, out) in mine {
            match named.get(&id) {
                _ if out.life < claim.instance => self.over(id, out, now),
                Some(told) if told.ended => self.end(id, out.amount, told, who, now),
                Some(_) => {
                    let until = until.max(out.until).min(out.since + self.terms.longest());
                    self.leases.insert((who, id), Out { until, ..out });
                }
                // It was not received, and never will be: the one who waited for it has asked again. Of a lease of an
                // earlier leader the same holds, since that one does not answer any more.
                None if out.sequence == u64::MAX || out.sequence < claim.sequence => self.unused(who, id),
                None => {}
            }
        }
        self.settle_foreign(who, claim, &named, now);
        // One that nobody knows of, as after the route's tenant has changed, is not ours to count, nor to be named for ever.
        for told in named.values().filter(|told| told.ended && !self.leases.contains_key(&(who, told.id))) {
            self.ended.entry((who, told.id)).or_insert(End::Unknown);
        }
        self.ended.retain(|(holder, id), _| *holder != who || named.contains_key(id));
    }

    /// What an earlier leader allowed for, and gave out or not.
    fn settle_foreign(
        &mut self,
        who: Holder,
        claim: &Claim,
        named: &BTreeMap<u64, &LeaseUse>,
        now: Duration,
    ) {
        let foreign = self.foreign.remove(&who);
        if let Some(foreign) = foreign.filter(|foreign| foreign.life < claim.instance) {
            self.count(who, foreign.amount, now);
        }
        // Once it gives out leases itself, it knows of all that can be in use.
        if foreign.is_none() && !(self.lost && now < self.opens) {
            return;
        }
        // What may have been given out, and no more; where that is lost, what one sidecar is given at once, however often it speaks.
        let messages = self.most_at_once();
        let at_once = Amount { messages, recipients: messages * u64::from(MOST_RECIPIENTS) };
        let believed = self.believed.get(&who).copied().unwrap_or(at_once);
        let mut left = foreign.map_or(believed, |foreign| foreign.amount);
        for told in named.values() {
            let key = (who, told.id);
            let is_known = self.leases.contains_key(&key) || self.ended.contains_key(&key);
            if is_known || told.id >= self.next_id {
                continue;
            }
            let said = Amount { messages: told.messages.into(), recipients: told.recipients.into() };
            let mut amount = said.least(left);
            left = left.less(amount);
            if foreign.is_none() {
                amount.recipients = self.believe(who, amount.recipients, now);
            }
            if told.ended {
                self.end(told.id, amount, told, who, now);
            } else {
                let until = now + self.terms.cut() + self.terms.skew();
                let (life, sequence) = (claim.instance, claim.sequence);
                let out = Out { holder: who, life, amount, sequence, until, since: now };
                self.leases.insert(key, out);
            }
        }
        if foreign.is_none() {
            self.believed.insert(who, left);
        }
        self.dirty = true;
    }

    /// Its holder's life ended without a word: it counts as used just now.
    fn over(&mut self, id: u64, out: Out, now: Duration) {
        self.leases.remove(&(out.holder, id));
        self.count(out.holder, out.amount, now);
    }

    fn end(&mut self, id: u64, amount: Amount, told: &LeaseUse, who: Holder, now: Duration) {
        let at = now.saturating_sub(Duration::from_millis(told.age_millis).min(self.terms.minute));
        let used = Amount { messages: told.used_messages.into(), recipients: told.used_recipients.into() };
        self.leases.remove(&(who, id));
        self.catches_up(who, amount.less(used).messages);
        self.count(who, used.least(amount), at);
        self.ended.insert((who, id), End::Counted);
        self.dirty = true;
    }

    fn unused(&mut self, who: Holder, id: u64) {
        if let Some(out) = self.leases.remove(&(who, id)) {
            self.catches_up(out.holder, out.amount.messages);
        }
        self.dirty = true;
    }
}
