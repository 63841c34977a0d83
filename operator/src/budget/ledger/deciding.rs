//! Who is given what, and who comes again when.
//!
//! Owns the answer to a claim that was heard. Refuses to give out what is not written down. The namespace that has least goes first,
//! in it whoever has waited longest, and nobody is given much more than the others.

use std::collections::BTreeSet;
use std::time::Duration;

use mailroute_route::control::{Allotment, Lease, ShortOf};

use super::fair::paced;
use super::{End, Ledger, Out, millis};
use crate::budget::line::Wish;
use crate::budget::{Amount, Holder, Namespace};

/// What comes of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// This is the answer.
    Answer(Allotment),
    /// There is something to give, but it has to be written down first; then decide again.
    NeedsWrite,
}

impl Ledger {
    /// Answers a sidecar that was heard.
    pub fn decide(&mut self, who: Holder, now: Duration) -> Decision {
        let Some(wish) = self.line.wish(who) else {
            // A new leader wants to hear soon what is not written down yet.
            let untold = self.ended.iter().any(|((holder, _), end)| *holder == who && *end == End::Counted);
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
        let (limit, minute) = (self.limit_now(now), self.terms.minute);
        self.next = follows(self.next, amount.messages, limit, minute, now);
        if let Some(home) = self.homes.get(&who).cloned() {
            let own = u64::from(self.allowed(&home, now).messages);
            let share = self.share(&home, now);
            share.next = follows(share.next, amount.messages, own, minute, now);
            share.served = now;
        }
        self.leases.insert((who, id), Out { holder: who, life, amount, sequence, until, since: now });
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

    /// So many messages that were given are not sent: others may go in their place, so that nobody slows the others down by asking
    /// for what it does not use.
    pub(super) fn catches_up(&mut self, who: Holder, messages: u64) {
        let minute = self.terms.minute;
        self.next = self.next.saturating_sub(pace(messages, self.limits.messages.into(), minute));
        if let Some(share) = self.share_of(who) {
            share.next = share.next.saturating_sub(pace(messages, share.limits.messages.into(), minute));
        }
    }

    /// How many messages somebody could be given now, or what there is not enough of and when to ask again.
    fn possible(&mut self, who: Holder, wish: Wish, now: Duration) -> Result<u64, (ShortOf, Duration)> {
        if now < self.opens {
            return Err((ShortOf::Messages, (self.opens - now).min(self.terms.idle())));
        }
        let Some(home) = self.homes.get(&who).cloned() else {
            return Err((ShortOf::Messages, self.terms.idle()));
        };
        let standings = self.standings(now);
        let own = standings.get(&home).copied().unwrap_or_default();
        let place = self.line.position(who, now, &standings, self.limits);
        let allowed = self.allowed(&home, now);
        // Another lease for the connection that it has already costs none.
        let has_one = self.leases.values().any(|out| out.holder == who) || self.foreign.contains_key(&who);
        let own_connections =
            u64::from(allowed.connections).saturating_sub(own.connections) + u64::from(has_one);
        if self.free_connections(who, now) <= place.before || own_connections <= place.among_own as u64 {
            return Err((ShortOf::Connections, self.place_comes(place.before)));
        }
        if wish.messages == 0 {
            return Ok(0);
        }
        let recipients = self.free_recipients(&home, now) / wish.recipients;
        if recipients == 0 {
            return Err((ShortOf::Recipients, self.terms.idle()));
        }
        self.line.stuck(who, false);
        let next = self.shares.get(&home).map_or(now, |share| share.next);
        let own_room = paced(allowed.messages.into(), own.messages, next, now);
        let room = self.room(now);
        if room <= place.before as u64 || own_room <= place.among_own as u64 {
            let again = self.turn_comes(place.before, now).max(self.own_turn_comes(
                &home,
                place.among_own,
                (allowed.messages.into(), own.messages),
                now,
            ));
            return Err((ShortOf::Messages, again));
        }
        let share = room / self.line.len().max(1) as u64;
        Ok(share.clamp(1, self.most_at_once()).min(wish.messages).min(recipients).min(own_room))
    }

    /// Most messages of one lease, so that nobody is given much more than the others.
    pub(super) fn most_at_once(&self) -> u64 {
        u64::from(self.limits.messages / 10).max(1)
    }

    /// Messages that may be given out at this moment.
    fn room(&mut self, now: Duration) -> u64 {
        let (limit, busy) = (self.limit_now(now), self.busy(now));
        paced(limit, busy, self.next, now)
    }

    /// When it is worth asking again for somebody with so many before.
    fn turn_comes(&mut self, before: usize, now: Duration) -> Duration {
        let (limit, busy) = (self.limit_now(now), self.busy(now));
        let frees = self.minute.falls_by((busy + 1).saturating_sub(limit));
        self.comes(before, (limit, busy), frees, self.next, now)
    }

    /// The same, as far as it hangs on what the namespace may have and has.
    fn own_turn_comes(
        &mut self,
        home: &Namespace,
        before: usize,
        (limit, busy): (u64, u64),
        now: Duration,
    ) -> Duration {
        let over = (busy + 1).saturating_sub(limit);
        let share = self.shares.get(home);
        let (frees, next) = share.map_or((None, now), |share| (share.minute.falls_by(over), share.next));
        self.comes(before, (limit, busy), frees, next, now)
    }

    /// `frees` is when so much leaves the minute that there is room for one.
    fn comes(
        &self,
        before: usize,
        (limit, busy): (u64, u64),
        frees: Option<Duration>,
        next: Duration,
        now: Duration,
    ) -> Duration {
        let (poll, idle) = (self.terms.poll(), self.terms.idle());
        let frees = if busy < limit { now } else { frees.unwrap_or(now + poll) };
        let next = frees.max(if busy * 2 >= limit { next } else { now });
        let ahead = pace(before as u64, limit, self.terms.minute) / 2;
        // The first in the line is the one that others wait for.
        let least = if before == 0 { poll / 4 } else { poll };
        (next.saturating_sub(now) + ahead).clamp(least, idle)
    }

    /// When it is worth asking again for a connection, which most keep for about as long as the first in the line wait.
    fn place_comes(&self, before: usize) -> Duration {
        let poll = self.terms.poll();
        let least = if before == 0 { poll / 4 } else { poll };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        (poll.saturating_mul(before) / (2 * self.limits.connections).max(1)).clamp(least, self.terms.idle())
    }

    /// What there is to share of the minute's messages now.
    fn limit_now(&mut self, now: Duration) -> u64 {
        u64::from(self.limits.messages).saturating_sub(self.aside(now).messages)
    }

    fn free_connections(&mut self, who: Holder, now: Duration) -> usize {
        let limit = u64::from(self.limits.connections) - self.aside(now).connections;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let users: BTreeSet<Holder> =
            self.leases.values().map(|out| out.holder).chain(self.foreign.keys().copied()).collect();
        // Another lease for the connection that it has already costs none.
        limit.saturating_sub(users.len()) + usize::from(users.contains(&who) && users.len() <= limit)
    }

    fn answer(
        &self,
        who: Holder,
        lease: Option<Lease>,
        short_of: Option<ShortOf>,
        again: Duration,
    ) -> Allotment {
        let written = self.ended.iter().filter(|((holder, _), end)| *holder == who && **end != End::Counted);
        Allotment {
            lease,
            short_of,
            again_millis: millis(again),
            confirmed: written.map(|((_, id), _)| *id).collect(),
            cut_millis: millis(self.terms.cut()),
            alone: self.turns.told(who).and_then(|class| self.turn(class)),
        }
    }
}

/// How long so many messages take at the pace of a limit.
fn pace(messages: u64, limit: u64, minute: Duration) -> Duration {
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    minute.saturating_mul(number(messages)) / number(limit.max(1))
}

/// When the message after these may go, if the one before could at `next`. Late askers do not slow the whole down: what is late by
/// two is caught up.
fn follows(next: Duration, messages: u64, limit: u64, minute: Duration, now: Duration) -> Duration {
    next.max(now.saturating_sub(2 * pace(1, limit, minute))) + pace(messages, limit, minute)
}
