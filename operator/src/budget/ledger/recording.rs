//! What is written down, and what a new leader makes of it.
//!
//! Owns what a record allows for before the next one. Refuses to know where it is kept. A new leader assumes that everything that
//! was allowed for is out, until its holder is heard or until nobody can use it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use mailroute_limits::restraint::Restraint;

use super::{Allowance, End, Foreign, Ledger, Out};
use crate::budget::record::{Ahead, Part, Record};
use crate::budget::share::Share;
use crate::budget::terms::Terms;
use crate::budget::turns::Turns;
use crate::budget::{Amount, Holder, Namespace};

/// Sidecars that one record allows for.
const NAMED: usize = 4;

/// Lease numbers that one record allows for.
const NUMBERS: u64 = 1000;

impl Ledger {
    /// A ledger whose record is lost: everything may be out, so it stays shut until all of that has left the minute. Lease
    /// numbers go on from the time.
    pub fn lost(terms: Terms, now: Duration) -> Self {
        let opens = now + terms.cut() + terms.minute + 2 * terms.skew();
        let next_id = u64::try_from(now.as_millis()).unwrap_or(u64::MAX / 2);
        // Nobody knows who has turns, so all of them count.
        let unknown_until = opens + terms.alone_after();
        Self { opens, next_id, lost: true, unknown_until, ..Self::new(terms) }
    }

    /// A ledger as it was written down, perhaps by another leader on another clock. It listens before it gives anything out:
    /// whoever has mail speaks in that time, so that nothing is set aside for them, and what they have out is known.
    pub fn restore(terms: Terms, record: &Record, now: Duration) -> Self {
        let mut ledger = Self { opens: now + terms.look(), looked: now, ..Self::new(terms) };
        let skew = terms.skew();
        // Another clock may be ahead or behind; nothing was counted in the future.
        record.minute.iter().for_each(|&(at, count)| ledger.minute.add((at + skew).min(now), count));
        record.day.iter().for_each(|&(at, count)| ledger.day.add(at.min(now), count));
        // The earlier leader may have been in contact with every holder until just now.
        let until = now + terms.cut() + skew;
        for &(id, out) in &record.leases {
            ledger.leases.insert((out.holder, id), Out { until, sequence: u64::MAX, since: now, ..out });
        }
        for ahead in &record.ahead {
            let foreign = Foreign { life: ahead.life, amount: ahead.amount, until };
            ledger.foreign.insert(ahead.holder, foreign);
        }
        ledger.ended = record.ended.iter().map(|&(id, holder)| ((holder, id), End::Written)).collect();
        ledger.next_id = record.next_id;
        ledger.turns = Turns::restored(record.turns.iter().copied());
        record.untold.iter().for_each(|&holder| ledger.turns.says(holder, false));
        for part in &record.namespaces {
            let mut share = Share::restored(terms, part.limits, now);
            part.day.iter().for_each(|&(at, count)| share.day.add(at.min(now), count));
            share.restraint = Restraint::restored(part.restraint.map(|(at, share)| (at.min(now), share)));
            ledger.shares.insert(part.name.clone(), share);
        }
        let name = |home: u32| record.namespaces.get(home as usize).map(|part| part.name.clone());
        let homes = record.homes.iter().filter_map(|&(holder, home)| Some((holder, name(home)?)));
        ledger.homes = homes.collect();
        ledger.agree();
        ledger
    }

    /// What has to be written down at `now`, and what it allows for: more for the sidecar that asks and for the next in line.
    /// Until [`Ledger::recorded`] nothing is given out, as this record would not cover it.
    pub fn record(&mut self, asks: Option<Holder>, now: Duration) -> Record {
        self.expire(now);
        self.allowance = Allowance::default();
        self.dirty = false;
        let foreign = self.foreign.iter().map(|(&holder, &Foreign { life, amount, .. })| Ahead {
            holder,
            life,
            amount,
        });
        let foreign: Vec<Ahead> = foreign.collect();
        let ahead: Vec<Ahead> = foreign.into_iter().chain(self.next_names(asks, now)).collect();
        let (namespaces, homes) = self.parts();
        Record {
            namespaces,
            homes,
            minute: self.minute.counted().collect(),
            day: self.day.counted().collect(),
            leases: self.leases.iter().map(|((_, id), out)| (*id, *out)).collect(),
            ahead,
            ahead_until: now + self.terms.ahead(),
            ended: self
                .ended
                .iter()
                .filter(|(_, end)| **end != End::Unknown)
                .map(|((holder, id), _)| (*id, *holder))
                .collect(),
            next_id: self.next_id + NUMBERS,
            turns: self.turns.classes().collect(),
            untold: self.turns.untold().collect(),
        }
    }

    /// The namespaces, and to which of them each sidecar belongs.
    fn parts(&self) -> (Vec<Part>, Vec<(Holder, u32)>) {
        let part = |(name, share): (&Namespace, &Share)| Part {
            name: name.clone(),
            limits: share.limits,
            day: share.day.counted().collect(),
            restraint: share.restraint.last(),
        };
        let places: HashMap<&Namespace, u32> = self.shares.keys().zip(0..).collect();
        let homes = self.homes.iter().filter_map(|(holder, home)| Some((*holder, *places.get(home)?)));
        let mut homes: Vec<_> = homes.collect();
        homes.sort_unstable();
        (self.shares.iter().map(part).collect(), homes)
    }

    /// A record made by [`Ledger::record`] is written down.
    pub fn recorded(&mut self, record: &Record, now: Duration) {
        let known: BTreeSet<(Holder, u64)> = record.ended.iter().map(|&(id, holder)| (holder, id)).collect();
        for (key, end) in &mut self.ended {
            if *end == End::Counted && known.contains(key) {
                *end = End::Written;
            }
        }
        let mine = record.ahead.iter().filter(|ahead| !self.foreign.contains_key(&ahead.holder));
        let by_name = mine.map(|ahead| (ahead.holder, ahead.amount)).collect();
        self.allowance = Allowance { by_name, until: record.ahead_until, numbers: record.next_id };
        self.turns.written(&record.turns);
        self.written = now;
        self.writes += 1;
    }

    /// How many records of it were written down.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether there is news that has not been written down for long enough.
    pub fn is_due(&self, now: Duration) -> bool {
        self.dirty && now >= self.written + self.terms.ahead()
    }

    /// Whom the next record allows for, and how much.
    fn next_names(&mut self, asks: Option<Holder>, now: Duration) -> Vec<Ahead> {
        let most = self.most_at_once();
        let standings = self.standings(now);
        let own = asks.and_then(|asks| Some((asks, self.line.wish(asks)?)));
        let others = self.line.first(NAMED, &standings, self.limits);
        let mut names = BTreeMap::new();
        for (holder, wish) in own.into_iter().chain(others).take(NAMED) {
            let messages = wish.messages.min(most);
            let amount = Amount { messages, recipients: messages * wish.recipients };
            let life = self.sidecars.get(&holder).map_or(0, |sidecar| sidecar.life);
            names.insert(holder, Ahead { holder, life, amount });
        }
        names.into_values().collect()
    }
}
