//! The ledger of one mailbox: what was used, what is out, and who is next.
//!
//! Owns every decision about the mailbox's limits. Refuses to know pods, routes' texts, HTTP and where it is written down.
//!
//! What counts against the limit, at any time:
//!
//! ```text
//!  minute:      used in the window + leases out + what is allowed for by an earlier leader   ≤ limit − reserve, if one is set aside
//!  day:         the same for recipients                                                      ≤ limit − reserve
//!  connections: sidecars with a lease out                                                    ≤ limit − 1, if the reserve is set aside
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use mailroute_route::control::{Allotment, Claim, Lease, LeaseUse, MAX_LEASES, ShortOf, Turn};

use super::line::{Line, Wish};
use super::record::{Ahead, Record};
use super::restraint::Restraint;
use super::terms::Terms;
use super::turns::{Class, Turns};
use super::window::Window;
use super::{Amount, Holder, Limits};

/// Slots of the minute, so that rounding costs less than a percent.
const MINUTE_SLOTS: u32 = 240;

/// Slots of the day: ten minutes each.
const DAY_SLOTS: u32 = 144;

/// Sidecars that one record allows for.
const NAMED: usize = 4;

/// Lease numbers that one record allows for.
const NUMBERS: u64 = 1000;

/// A lease whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub holder: Holder,
    /// Which life of it asked. One that is over does not tell what it used.
    pub life: u64,
    pub amount: Amount,
    /// In answer to which claim of its holder; a claim after that one names it, or it was not received.
    pub sequence: u64,
    /// When it counts as used in full.
    pub until: Duration,
}

/// What an earlier leader may have given out after its last record.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    life: u64,
    amount: Amount,
    until: Duration,
}

/// One sidecar, as this leader has heard it.
#[derive(Clone, Copy, Debug)]
struct Sidecar {
    life: u64,
    sequence: u64,
    heard: Duration,
}

/// What may be given out without another record.
#[derive(Clone, Debug, Default)]
struct Allowance {
    by_name: BTreeMap<Holder, Amount>,
    until: Duration,
    numbers: u64,
}

/// What comes of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// This is the answer.
    Answer(Allotment),
    /// There is something to give, but it has to be written down first; then decide again.
    NeedsWrite,
}

/// The ledger of one mailbox.
#[derive(Clone, Debug)]
pub struct Ledger {
    terms: Terms,
    limits: Limits,
    by_route: HashMap<String, (Limits, Duration)>,
    minute: Window,
    day: Window,
    leases: BTreeMap<u64, Out>,
    foreign: BTreeMap<Holder, Foreign>,
    /// Leases that ended and were counted, until their holder does not name them any more; whether that is written down.
    ended: BTreeMap<u64, (Holder, bool)>,
    next_id: u64,
    sidecars: HashMap<Holder, Sidecar>,
    line: Line,
    turns: Turns,
    restraint: Restraint,
    /// When the pace allows the next message.
    next: Duration,
    /// What is set aside, and until when.
    reserved: u64,
    reserved_until: Duration,
    looked: Duration,
    /// Nothing is given out before.
    opens: Duration,
    allowance: Allowance,
    written: Duration,
    writes: u64,
    dirty: bool,
    /// The record is lost, so leases that nobody knows of are believed.
    lost: bool,
}

impl Ledger {
    /// A ledger of a mailbox of which nothing was ever given out.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            limits: Limits { messages: 1, recipients: 1, connections: 1 },
            by_route: HashMap::new(),
            minute: Window::new(terms.minute, MINUTE_SLOTS),
            day: Window::new(terms.day, DAY_SLOTS),
            leases: BTreeMap::new(),
            foreign: BTreeMap::new(),
            ended: BTreeMap::new(),
            next_id: 1,
            sidecars: HashMap::new(),
            line: Line::default(),
            turns: Turns::default(),
            restraint: Restraint::default(),
            next: Duration::ZERO,
            reserved: 0,
            reserved_until: Duration::ZERO,
            looked: Duration::ZERO,
            opens: Duration::ZERO,
            allowance: Allowance::default(),
            written: Duration::ZERO,
            writes: 0,
            dirty: false,
            lost: false,
        }
    }

    /// A ledger whose record is lost: everything may be out, so it stays shut until all of that has left the minute. Lease
    /// numbers go on from the time.
    pub fn lost(terms: Terms, now: Duration) -> Self {
        let opens = now + terms.cut() + terms.minute + 2 * terms.skew();
        let next_id = u64::try_from(now.as_millis()).unwrap_or(u64::MAX / 2);
        // Nobody knows who has turns, so all of them count.
        let reserved_until = opens + terms.alone_after();
        Self { opens, next_id, lost: true, reserved: u64::MAX, reserved_until, ..Self::new(terms) }
    }

    /// A ledger as it was written down, perhaps by another leader on another clock.
    pub fn restore(terms: Terms, record: &Record, now: Duration) -> Self {
        let mut ledger = Self::new(terms);
        let skew = terms.skew();
        // Another clock may be ahead or behind; nothing was counted in the future.
        record.minute.iter().for_each(|&(at, count)| ledger.minute.add((at + skew).min(now), count));
        record.day.iter().for_each(|&(at, count)| ledger.day.add(at.min(now), count));
        // The earlier leader may have been in contact with every holder until just now.
        let until = now + terms.cut() + skew;
        for &(id, out) in &record.leases {
            ledger.leases.insert(id, Out { until, sequence: u64::MAX, ..out });
        }
        for ahead in &record.ahead {
            let foreign = Foreign { life: ahead.life, amount: ahead.amount, until };
            ledger.foreign.insert(ahead.holder, foreign);
        }
        ledger.ended = record.ended.iter().map(|&(id, holder)| (id, (holder, true))).collect();
        ledger.next_id = record.next_id;
        ledger.turns = Turns::restored(record.turns.iter().copied());
        ledger.restraint = Restraint::restored(record.restraint.map(|(at, share)| (at.min(now), share)));
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
        let ahead = foreign.chain(self.next_names(asks)).collect();
        Record {
            minute: self.minute.counted().collect(),
            day: self.day.counted().collect(),
            leases: self.leases.iter().map(|(id, out)| (*id, *out)).collect(),
            ahead,
            ahead_until: now + self.terms.ahead(),
            ended: self.ended.iter().map(|(id, (holder, _))| (*id, *holder)).collect(),
            next_id: self.next_id + NUMBERS,
            turns: self.turns.classes().collect(),
            restraint: self.restraint.last(),
        }
    }

    /// Whom the next record allows for, and how much.
    fn next_names(&self, asks: Option<Holder>) -> Vec<Ahead> {
        let most = self.most_at_once();
        let own = asks.and_then(|asks| Some((asks, self.line.wish(asks)?)));
        let mut names = BTreeMap::new();
        let others = self.line.first(NAMED);
        for (holder, wish) in own.into_iter().chain(others).take(NAMED) {
            let messages = wish.messages.min(most);
            let amount = Amount { messages, recipients: messages * wish.recipients };
            let life = self.sidecars.get(&holder).map_or(0, |sidecar| sidecar.life);
            names.insert(holder, Ahead { holder, life, amount });
        }
        names.into_values().collect()
    }

    /// A record made by [`Ledger::record`] is written down.
    pub fn recorded(&mut self, record: &Record, now: Duration) {
        let known: BTreeSet<u64> = record.ended.iter().map(|(id, _)| *id).collect();
        for (id, (_, written)) in &mut self.ended {
            *written |= known.contains(id);
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

    /// Whether there is nothing left to remember.
    pub fn is_empty(&mut self, now: Duration) -> bool {
        let nothing_out = self.leases.is_empty() && self.foreign.is_empty() && self.sidecars.is_empty();
        nothing_out && self.turns.owners().next().is_none() && self.day.sum(now) == 0
    }

    /// A route with this mailbox says that these are its limits. The smallest of what all routes in use say counts.
    pub fn limit(&mut self, route: &str, limits: Limits, now: Duration) {
        let known = self.by_route.get(route).map(|(limits, _)| *limits);
        if known.is_none() {
            self.by_route.insert(route.to_owned(), (limits, now));
        }
        if let Some(entry) = self.by_route.get_mut(route) {
            *entry = (limits, now);
        }
        if known != Some(limits) {
            self.choose_limits(now);
        }
    }

    fn choose_limits(&mut self, now: Duration) {
        let remembered = self.terms.remembered();
        self.by_route.retain(|_, (_, seen)| now < *seen + remembered);
        if let Some(least) = self.by_route.values().map(|(limits, _)| *limits).reduce(Limits::least) {
            self.limits = least;
        }
    }

    /// Takes in what a sidecar says. Says whether it is to be answered: a claim that was overtaken is not.
    pub fn hear(&mut self, who: Holder, claim: &Claim, now: Duration) -> bool {
        self.expire(now);
        let known = self.sidecars.get(&who).copied();
        if known.is_some_and(|known| (claim.instance, claim.sequence) <= (known.life, known.sequence)) {
            return false;
        }
        if self.turns.owns(who) && known.is_none_or(|known| known.heard + self.terms.silent() <= now) {
            self.was_alone(who, now);
        }
        self.sidecars.insert(who, Sidecar { life: claim.instance, sequence: claim.sequence, heard: now });
        self.day.add(now, u64::from(claim.alone_recipients).min(self.limits.recipients.into()));
        self.settle(who, claim, now);
        if claim.throttled.is_some() {
            self.restraint.throttled(now, self.terms.minute);
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
        self.queue(who, claim, now);
        true
    }

    fn queue(&mut self, who: Holder, claim: &Claim, now: Duration) {
        if claim.messages == 0 && !claim.probe || claim.leases.len() >= MAX_LEASES {
            return self.line.leave(who);
        }
        let recipients = u64::from(claim.recipients.max(1));
        let wish = Wish { messages: u64::from(claim.messages), recipients };
        let waited = Duration::from_millis(claim.waited_millis).min(self.terms.day);
        self.line.join(who, wish, now.saturating_sub(waited));
    }

    /// What the claim says about leases.
    fn settle(&mut self, who: Holder, claim: &Claim, now: Duration) {
        // Most sidecars have nothing to tell most of the time.
        let is_out = self.leases.values().any(|out| out.holder == who);
        if claim.leases.is_empty() && !is_out && !self.foreign.contains_key(&who) {
            return self.ended.retain(|_, (holder, _)| *holder != who);
        }
        let until = now + self.terms.cut() + self.terms.skew();
        let named: BTreeMap<u64, &LeaseUse> =
            claim.leases.iter().take(MAX_LEASES).map(|lease| (lease.id, lease)).collect();
        let mine: Vec<(u64, Out)> =
            self.leases.iter().filter(|(_, out)| out.holder == who).map(|(id, out)| (*id, *out)).collect();
        for (id, out) in mine {
            match named.get(&id) {
                _ if out.life < claim.instance => self.over(id, out.amount, now),
                Some(told) if told.ended => self.end(id, out.amount, told, who, now),
                Some(_) => {
                    self.leases.insert(id, Out { until: until.max(out.until), ..out });
                }
                // It was not received, and never will be: the one who waited for it has asked again. Of a lease of an
                // earlier leader the same holds, since that one does not answer any more.
                None if out.sequence == u64::MAX || out.sequence < claim.sequence => self.unused(id),
                None => {}
            }
        }
        self.settle_foreign(who, claim, &named, now);
        // One that nobody knows of, as after the route's tenant has changed, is not ours to count, nor to be named for ever.
        for told in named.values().filter(|told| told.ended && !self.leases.contains_key(&told.id)) {
            self.ended.entry(told.id).or_insert((who, true));
        }
        self.ended.retain(|id, (holder, _)| *holder != who || named.contains_key(id));
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
            self.count(foreign.amount, now);
        }
        if foreign.is_none() && !self.lost {
            return;
        }
        for told in named.values() {
            if self.leases.contains_key(&told.id) || self.ended.contains_key(&told.id) {
                continue;
            }
            let amount = Amount { messages: told.messages.into(), recipients: told.recipients.into() };
            if told.ended {
                self.end(told.id, amount, told, who, now);
            } else {
                let until = now + self.terms.cut() + self.terms.skew();
                let (life, sequence) = (claim.instance, claim.sequence);
                self.leases.insert(told.id, Out { holder: who, life, amount, sequence, until });
            }
        }
        self.dirty = true;
    }

    /// Its holder's life ended without a word: it counts as used just now.
    fn over(&mut self, id: u64, amount: Amount, now: Duration) {
        self.leases.remove(&id);
        self.count(amount, now);
    }

    fn end(&mut self, id: u64, amount: Amount, told: &LeaseUse, who: Holder, now: Duration) {
        let at = now.saturating_sub(Duration::from_millis(told.age_millis).min(self.terms.minute));
        self.leases.remove(&id);
        self.minute.add(at, u64::from(told.used_messages).min(amount.messages));
        self.day.add(at, u64::from(told.used_recipients).min(amount.recipients));
        self.ended.insert(id, (who, false));
        self.dirty = true;
    }

    fn unused(&mut self, id: u64) {
        self.leases.remove(&id);
        self.dirty = true;
    }

    /// A pod is gone, and what its sidecar had counts as used just now.
    pub fn forget(&mut self, who: Holder, now: Duration) {
        let lost: Vec<Out> =
            self.leases.extract_if(.., |_, out| out.holder == who).map(|(_, out)| out).collect();
        lost.iter().for_each(|out| self.count(out.amount, now));
        if let Some(foreign) = self.foreign.remove(&who) {
            self.count(foreign.amount, now);
        }
        let known = self.sidecars.remove(&who);
        self.line.leave(who);
        self.ended.retain(|_, (holder, _)| *holder != who);
        if self.turns.owns(who) {
            if known.is_none_or(|known| known.heard + self.terms.silent() <= now) {
                self.was_alone(who, now);
            }
            self.turns.release(who);
            self.dirty = true;
        }
    }

    /// A sidecar may have taken its turn just now.
    fn was_alone(&mut self, who: Holder, now: Duration) {
        let owned = self.turns.class(who);
        self.set_aside(owned.map_or(0, |class| self.taken_by(class)), now);
    }

    /// Sets so much aside, at least, until what was sent in a turn that ends now has left the window.
    fn set_aside(&mut self, messages: u64, now: Duration) {
        let before = if now < self.reserved_until { self.reserved } else { 0 };
        self.reserved = before.max(messages);
        self.reserved_until =
            self.reserved_until.max(now + self.terms.look() + self.terms.minute + self.terms.cut());
    }

    /// The most that one sidecar sends in its turns within a window, which meets two slices.
    fn taken_by(&self, class: Class) -> u64 {
        self.limits.in_turn(class.of) * if class.of == 1 { 2 } else { 1 }
    }

    /// Forgets everybody of whom `lives` says no.
    pub fn forget_unless(&mut self, lives: impl Fn(Holder) -> bool, now: Duration) {
        let leases = self.leases.values().map(|out| out.holder);
        let known = self.sidecars.keys().copied().chain(self.turns.owners()).chain(leases);
        let gone: BTreeSet<Holder> =
            known.chain(self.foreign.keys().copied()).filter(|holder| !lives(*holder)).collect();
        gone.into_iter().for_each(|holder| self.forget(holder, now));
        self.choose_limits(now);
    }

    fn count(&mut self, amount: Amount, now: Duration) {
        self.minute.add(now, amount.messages);
        self.day.add(now, amount.recipients);
        self.dirty = true;
    }

    /// What is out for longer than anybody can use it was used.
    fn expire(&mut self, now: Duration) {
        let over: Vec<Amount> = {
            let leases = self.leases.extract_if(.., |_, out| out.until <= now).map(|(_, out)| out.amount);
            let foreign = self.foreign.extract_if(.., |_, it| it.until <= now).map(|(_, it)| it.amount);
            leases.chain(foreign).collect()
        };
        over.into_iter().for_each(|amount| self.count(amount, now));
    }

    /// Answers a sidecar that was heard.
    pub fn decide(&mut self, who: Holder, now: Duration) -> Decision {
        let Some(wish) = self.line.wish(who) else {
            // A new leader wants to hear soon what is not written down yet.
            let untold = self.ended.values().any(|(holder, written)| *holder == who && !written);
            let again = if untold { self.terms.ahead() } else { self.terms.idle() };
            return Decision::Answer(self.answer(who, None, None, again));
        };
        let (granted, short) = match self.possible(who, wish, now) {
            Ok(messages) => (messages, None),
            Err((short, again)) => {
                self.line.stuck(who, short == ShortOf::Recipients);
                self.line.expect(who, now + again + self.terms.look());
                return Decision::Answer(self.answer(who, None, Some(short), again));
            }
        };
        let amount = Amount { messages: granted, recipients: granted * wish.recipients };
        let allowed = self.allowance.by_name.get(&who).is_some_and(|allowed| amount.within(*allowed));
        if !allowed || now >= self.allowance.until || self.next_id >= self.allowance.numbers {
            return Decision::NeedsWrite;
        }
        let lease = self.give(who, amount, now);
        Decision::Answer(self.answer(who, Some(lease), short, self.terms.ahead() / 2))
    }

    fn give(&mut self, who: Holder, amount: Amount, now: Duration) -> Lease {
        let id = self.next_id;
        self.next_id += 1;
        let (life, sequence) =
            self.sidecars.get(&who).map_or((0, 0), |sidecar| (sidecar.life, sidecar.sequence));
        let until = now + self.terms.cut() + self.terms.skew();
        if let Some(pace) = self.pace(amount.messages, now) {
            // Late askers do not slow the whole down: what is late by two is caught up.
            self.next = self.next.max(now.saturating_sub(2 * self.pace(1, now).unwrap_or_default())) + pace;
        }
        self.leases.insert(id, Out { holder: who, life, amount, sequence, until });
        if let Some(allowed) = self.allowance.by_name.get_mut(&who) {
            *allowed = allowed.less(amount);
        }
        self.line.leave(who);
        self.dirty = true;
        Lease {
            id,
            messages: u32::try_from(amount.messages).unwrap_or(u32::MAX),
            recipients: u32::try_from(amount.recipients).unwrap_or(u32::MAX),
            valid_millis: millis(self.terms.valid()),
        }
    }

    /// How many messages somebody could be given now, or what there is not enough of and when to ask again.
    fn possible(&mut self, who: Holder, wish: Wish, now: Duration) -> Result<u64, (ShortOf, Duration)> {
        if now < self.opens {
            return Err((ShortOf::Messages, (self.opens - now).min(self.terms.idle())));
        }
        let before = self.line.before(who, now);
        if self.free_connections(who, now) <= before {
            return Err((ShortOf::Connections, self.turn_comes(before, now)));
        }
        if wish.messages == 0 {
            return Ok(0);
        }
        let recipients = self.free_recipients(now) / wish.recipients;
        if recipients == 0 {
            return Err((ShortOf::Recipients, self.terms.idle()));
        }
        self.line.stuck(who, false);
        let room = self.room(now);
        if room <= before as u64 {
            return Err((ShortOf::Messages, self.turn_comes(before, now)));
        }
        let share = room / self.line.len().max(1) as u64;
        Ok(share.clamp(1, self.most_at_once()).min(wish.messages).min(recipients))
    }

    /// Most messages of one lease, so that nobody is given much more than the others.
    fn most_at_once(&self) -> u64 {
        u64::from(self.limits.messages / 10).max(1)
    }

    /// Messages that may be given out at this moment. The first half of the limit at once, the rest at its pace.
    fn room(&mut self, now: Duration) -> u64 {
        let (limit, busy) = (self.limit_now(now), self.busy(now));
        let (room, half) = (limit.saturating_sub(busy), limit / 2);
        if busy < half.max(1) {
            return room.min(half.max(1) - busy);
        }
        if now >= self.next { room.min(1) } else { 0 }
    }

    /// When it is worth asking again for somebody with so many before.
    fn turn_comes(&mut self, before: usize, now: Duration) -> Duration {
        let (poll, idle) = (self.terms.poll(), self.terms.idle());
        let (limit, busy) = (self.limit_now(now), self.busy(now));
        let full = (busy + 1).checked_sub(limit).filter(|over| *over > 0);
        let frees = full.map(|over| self.minute.falls_by(over).unwrap_or(now + poll));
        let next = frees.unwrap_or(now).max(if busy * 2 >= limit { self.next } else { now });
        let ahead = self.pace(before as u64, now).unwrap_or_default() / 2;
        // The first in the line is the one that others wait for.
        let least = if before == 0 { poll / 4 } else { poll };
        (next.saturating_sub(now) + ahead).clamp(least, idle)
    }

    /// What there is to share of the minute's messages now.
    fn limit_now(&mut self, now: Duration) -> u64 {
        let limit = self.restraint.of(self.limits.messages.into(), now, self.terms.minute);
        limit.saturating_sub(self.reserve(now))
    }

    fn busy(&mut self, now: Duration) -> u64 {
        self.minute.sum(now) + self.out().messages
    }

    fn out(&self) -> Amount {
        let leases = self.leases.values().map(|out| out.amount);
        leases.chain(self.foreign.values().map(|foreign| foreign.amount)).fold(Amount::default(), Amount::and)
    }

    fn free_connections(&mut self, who: Holder, now: Duration) -> usize {
        let limit = self.restraint.of(self.limits.connections.into(), now, self.terms.minute);
        let aside = u64::from(self.reserve(now) > 0);
        let limit =
            usize::try_from(limit.min(u64::from(self.limits.connections) - aside)).unwrap_or(usize::MAX);
        let users: BTreeSet<Holder> =
            self.leases.values().map(|out| out.holder).chain(self.foreign.keys().copied()).collect();
        // Another lease for the connection that it has already costs none.
        limit.saturating_sub(users.len()) + usize::from(users.contains(&who) && users.len() <= limit)
    }

    fn free_recipients(&mut self, now: Duration) -> u64 {
        let limit = u64::from(self.limits.recipients) - self.limits.reserved_recipients();
        limit.saturating_sub(self.day.sum(now) + self.out().recipients)
    }

    /// How much is set aside: while sidecars that have turns may be taking them, and until the last message of it has left the
    /// window.
    fn reserve(&mut self, now: Duration) -> u64 {
        if now >= self.looked + self.terms.look() {
            self.looked = now;
            let silent = self.terms.silent();
            let heard = |holder: Holder| self.sidecars.get(&holder).map(|sidecar| sidecar.heard);
            let is_silent = |holder: &Holder| heard(*holder).is_none_or(|heard| heard + silent <= now);
            let (mut first, mut second) = (0, 0);
            for (_, class) in self.turns.classes().filter(|(holder, _)| is_silent(holder)) {
                let taken = self.taken_by(class);
                (first, second) = if taken > first { (taken, first) } else { (first, second.max(taken)) };
            }
            if first > 0 {
                self.set_aside(first + second, now);
            }
        }
        if now >= self.reserved_until {
            return 0;
        }
        self.reserved.min(self.limits.most_in_turns()) * u64::from(self.limits.in_turn(1) > 0)
    }

    fn pace(&mut self, messages: u64, now: Duration) -> Option<Duration> {
        let limit = self.limit_now(now).max(1);
        let messages = u32::try_from(messages).ok()?;
        Some(self.terms.minute * messages / u32::try_from(limit).ok()?)
    }

    fn answer(
        &self,
        who: Holder,
        lease: Option<Lease>,
        short_of: Option<ShortOf>,
        again: Duration,
    ) -> Allotment {
        let written = self.ended.iter().filter(|(_, (holder, written))| *holder == who && *written);
        Allotment {
            lease,
            short_of,
            again_millis: millis(again),
            confirmed: written.map(|(id, _)| *id).collect(),
            cut_millis: millis(self.terms.cut()),
            alone: self.turns.told(who).and_then(|class| self.turn(class)),
        }
    }

    /// How slices are cut: a minute each, so that no window of Microsoft's meets more than two, with room at both ends, so that no
    /// two messages of neighbours meet, for clocks that are right within the skew.
    fn turn(&self, class: Class) -> Option<Turn> {
        let (minute, skew) = (self.terms.minute, self.terms.skew());
        let messages = u32::try_from(self.limits.in_turn(class.of)).ok().filter(|messages| *messages > 0)?;
        let reserved = self.limits.reserved_recipients();
        let of_each = reserved / u64::from(class.of);
        // Where there is less than one for each, some have one.
        let recipients = if of_each == 0 { u64::from(u64::from(class.index) < reserved) } else { of_each };
        Some(Turn {
            index: class.index,
            of: class.of,
            slice_millis: millis(minute),
            messages,
            begin_millis: millis(2 * skew),
            last_millis: millis(minute / 2),
            cut_millis: millis(minute - 2 * skew),
            after_millis: millis(self.terms.alone_after()),
            recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
        })
    }

    /// How the limits are used, to be seen.
    pub fn view(&mut self, now: Duration) -> View {
        View {
            minute: (self.busy(now), self.limits.messages.into()),
            day: (self.day.sum(now) + self.out().recipients, self.limits.recipients.into()),
            share: self.restraint.share(now, self.terms.minute),
            waiting: self.line.len(),
            sidecars: self.sidecars.len(),
            reserved: self.reserve(now) > 0,
        }
    }
}

/// How the limits of a mailbox are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Messages used or out, of the limit.
    pub minute: (u64, u64),
    /// Recipients used or out, of the limit.
    pub day: (u64, u64),
    /// The share of the limits that is given out after Microsoft found it too much, 1 without.
    pub share: f64,
    /// Sidecars in the line.
    pub waiting: usize,
    /// Sidecars heard.
    pub sidecars: usize,
    /// Whether a part is set aside for those out of contact.
    pub reserved: bool,
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
