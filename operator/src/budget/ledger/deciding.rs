//! Who is given what, and who comes again when.
//!
//! Owns the answer to a claim that was heard. Refuses to give out what is not written down. Whoever has waited longer goes first,
//! and nobody is given much more than the others.

use std::collections::BTreeSet;
use std::time::Duration;

use mailroute_route::control::{Allotment, Lease, ShortOf};

use super::{Ledger, Out, millis};
use crate::budget::line::Wish;
use crate::budget::{Amount, Holder};

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
            return Err((ShortOf::Connections, self.place_comes(before)));
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
    pub(super) fn most_at_once(&self) -> u64 {
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

    /// When it is worth asking again for a connection, which most keep for about as long as the first in the line wait.
    fn place_comes(&self, before: usize) -> Duration {
        let poll = self.terms.poll();
        let least = if before == 0 { poll / 4 } else { poll };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        (poll.saturating_mul(before) / (2 * self.limits.connections).max(1)).clamp(least, self.terms.idle())
    }

    /// What there is to share of the minute's messages now.
    fn limit_now(&mut self, now: Duration) -> u64 {
        let limit = self.restraint.of(self.limits.messages.into(), now, self.terms.minute);
        limit.saturating_sub(self.aside(now).messages)
    }

    fn free_connections(&mut self, who: Holder, now: Duration) -> usize {
        let limit = self.restraint.of(self.limits.connections.into(), now, self.terms.minute);
        let left = u64::from(self.limits.connections) - self.aside(now).connections;
        let limit = usize::try_from(limit.min(left)).unwrap_or(usize::MAX);
        let users: BTreeSet<Holder> =
            self.leases.values().map(|out| out.holder).chain(self.foreign.keys().copied()).collect();
        // Another lease for the connection that it has already costs none.
        limit.saturating_sub(users.len()) + usize::from(users.contains(&who) && users.len() <= limit)
    }

    fn free_recipients(&mut self, now: Duration) -> u64 {
        let limit = u64::from(self.limits.recipients) - self.limits.reserved_recipients();
        let limit = limit.saturating_sub(self.recipients_of_strangers());
        limit.saturating_sub(self.day.sum(now) + self.out().recipients)
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
}
