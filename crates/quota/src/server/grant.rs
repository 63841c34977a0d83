//! Who is granted what, and who asks again when.
//!
//! Answers claims that were taken in. Grants only what a stored record allows. The namespace that has least goes first, in it the
//! sidecar that has waited longest, and no sidecar gets much more than the others.

use std::collections::BTreeSet;
use std::time::Duration;

use super::application::Application;
use super::fair_share::paced;
use super::limits::{Namespace, SidecarId};
use super::record::IssuedLease;
use super::wait_queue::Demand;
use super::{LeaseEnd, Ledger};
use crate::Amount;
use crate::timing::millis;
use crate::wire::{Allotment, Lease, ShortOf};

/// What follows from a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The answer.
    Answer(Allotment),
    /// There is something to grant, but a record has to be stored first. Then decide again.
    NeedsWrite,
}

/// Why nothing is granted now.
#[derive(Clone, Copy, Debug)]
struct Shortage {
    of: ShortOf,
    /// It lasts: others go first meanwhile.
    lasts: bool,
    /// How long until it is worth asking again.
    again: Duration,
}

/// How many messages of a limit are used or leased.
#[derive(Clone, Copy, Debug)]
struct Load {
    limit: u64,
    busy: u64,
}

impl Ledger {
    /// Decides on the answer to a sidecar whose claim was taken in.
    pub fn decide(&mut self, who: SidecarId, now: Duration) -> Decision {
        self.decide_within(who, None, now)
    }

    /// The same for a sidecar that also needs one of the connections of an application.
    pub fn decide_within(
        &mut self,
        who: SidecarId,
        mut application: Option<&mut Application>,
        now: Duration,
    ) -> Decision {
        let Some(demand) = self.queue.demand(who) else {
            application.iter_mut().for_each(|application| application.leaves(who));
            // Should this leader be replaced, the next one has to hear soon of ends that are not stored yet.
            let unstored =
                self.ended.iter().any(|((holder, _), end)| *holder == who && *end == LeaseEnd::Counted);
            let again = if unstored { self.timing.persist_interval() } else { self.timing.idle_interval() };
            return Decision::Answer(self.answer(who, None, None, again));
        };
        let available = self.available(who, demand, now);
        if available.is_err() {
            // Nobody waits for one whose mailbox has nothing to give.
            application.iter_mut().for_each(|application| application.leaves(who));
        }
        let connected = |messages| self.connect(who, application.as_deref_mut(), now).map(|()| messages);
        let messages = match available.and_then(connected) {
            Ok(messages) => messages,
            Err(Shortage { of, lasts, again }) => {
                self.queue.set_blocked(who, lasts);
                self.queue.expect(who, now + again + self.timing.scan_interval());
                return Decision::Answer(self.answer(who, None, Some(of), again));
            }
        };
        let amount = Amount { messages, recipients: messages * demand.recipients };
        let allowed = self.grantable.by_sidecar.get(&who).is_some_and(|allowed| amount.within(*allowed));
        if !allowed || now >= self.grantable.until || self.next_id >= self.grantable.numbers {
            return Decision::NeedsWrite;
        }
        let lease = self.grant(who, amount, now);
        if let (Some(application), Some(namespace)) = (application, self.namespaces.get(&who)) {
            application.granted(who, namespace, now);
        }
        Decision::Answer(self.answer(who, Some(lease), None, self.timing.persist_interval() / 2))
    }

    /// Asks the application for a connection. Sidecars of the mailbox that need none of it go first meanwhile.
    fn connect(
        &self,
        who: SidecarId,
        application: Option<&mut Application>,
        now: Duration,
    ) -> Result<(), Shortage> {
        let (Some(application), Some(namespace)) = (application, self.namespaces.get(&who)) else {
            return Ok(());
        };
        let short = |again| Shortage { of: ShortOf::Connections, lasts: true, again };
        application.connect(who, namespace, now).map_err(short)
    }

    fn grant(&mut self, who: SidecarId, amount: Amount, now: Duration) -> Lease {
        let id = self.next_id;
        self.next_id += 1;
        let (instance, sequence) =
            self.sidecars.get(&who).map_or((0, 0), |last| (last.instance, last.sequence));
        let until = now + self.timing.cut_off() + self.timing.clock_skew();
        let (limit, minute) = (self.minute_limit(now), self.timing.minute);
        self.next = next_at_pace(self.next, amount.messages, limit, minute, now);
        if let Some(namespace) = self.namespaces.get(&who).cloned() {
            let own = u64::from(self.own_limits(&namespace, now).messages);
            let share = self.share(&namespace, now);
            share.next = next_at_pace(share.next, amount.messages, own, minute, now);
            share.served = now;
        }
        let lease = IssuedLease { holder: who, instance, amount, sequence, until, since: now };
        self.leases.insert((who, id), lease);
        if let Some(allowed) = self.grantable.by_sidecar.get_mut(&who) {
            *allowed = allowed.less(amount);
        }
        self.queue.remove(who);
        self.dirty = true;
        Lease {
            id,
            messages: u32::try_from(amount.messages).unwrap_or(u32::MAX),
            recipients: u32::try_from(amount.recipients).unwrap_or(u32::MAX),
            valid_millis: millis(self.timing.lease_valid()),
        }
    }

    /// Lets others send instead of this many granted messages that were not sent, so that no sidecar slows the others down by
    /// asking for what it does not use.
    pub(super) fn return_pace(&mut self, who: SidecarId, messages: u64) {
        let minute = self.timing.minute;
        self.next = self.next.saturating_sub(pace(messages, self.limits.messages.into(), minute));
        if let Some(share) = self.share_of(who) {
            share.next = share.next.saturating_sub(pace(messages, share.limits.messages.into(), minute));
        }
    }

    /// How many messages a sidecar can be granted now.
    fn available(&mut self, who: SidecarId, demand: Demand, now: Duration) -> Result<u64, Shortage> {
        let short = |of, again| Err(Shortage { of, lasts: false, again });
        let lasting = |of, again| Err(Shortage { of, lasts: true, again });
        if now < self.opens {
            return short(ShortOf::Messages, (self.opens - now).min(self.timing.idle_interval()));
        }
        let Some(namespace) = self.namespaces.get(&who).cloned() else {
            return short(ShortOf::Messages, self.timing.idle_interval());
        };
        let uses = self.namespace_uses(now);
        let own = uses.get(&namespace).copied().unwrap_or_default();
        let place = self.queue.position(who, now, &uses, self.limits);
        let allowed = self.own_limits(&namespace, now);
        // Another lease for a connection that the sidecar already has takes none.
        let has_one =
            self.leases.values().any(|lease| lease.holder == who) || self.inherited.contains_key(&who);
        let own_connections =
            u64::from(allowed.connections).saturating_sub(own.connections) + u64::from(has_one);
        if self.free_connections(who, now) <= place.before || own_connections <= place.in_namespace as u64 {
            return short(ShortOf::Connections, self.until_connection(place.before));
        }
        if demand.messages == 0 {
            return Ok(0);
        }
        let free = self.free_beyond_minute(&namespace, now);
        let recipients = free.recipients / demand.recipients;
        if recipients == 0 {
            return lasting(ShortOf::Recipients, self.timing.idle_interval());
        }
        if free.messages == 0 {
            return lasting(ShortOf::Messages, self.timing.idle_interval());
        }
        self.queue.set_blocked(who, false);
        let next = self.shares.get(&namespace).map_or(now, |share| share.next);
        let own_load = Load { limit: allowed.messages.into(), busy: own.messages };
        let own_room = paced(own_load.limit, own_load.busy, next, now);
        let room = self.room(now);
        if room <= place.before as u64 || own_room <= place.in_namespace as u64 {
            let again = self.until_message(place.before, now);
            let own_again = self.until_own_message(&namespace, place.in_namespace, own_load, now);
            return short(ShortOf::Messages, again.max(own_again));
        }
        let equal = room / self.queue.len().max(1) as u64;
        Ok(equal
            .clamp(1, self.most_at_once())
            .min(demand.messages)
            .min(recipients.min(free.messages))
            .min(own_room))
    }

    /// Most messages of one lease, so that no sidecar gets much more than the others.
    pub(super) fn most_at_once(&self) -> u64 {
        u64::from(self.limits.messages / 10).max(1)
    }

    /// Messages that may be granted at this moment.
    fn room(&mut self, now: Duration) -> u64 {
        let (limit, busy) = (self.minute_limit(now), self.busy(now));
        paced(limit, busy, self.next, now)
    }

    /// How long until it is worth asking again for a sidecar with this many before it.
    fn until_message(&mut self, before: usize, now: Duration) -> Duration {
        let load = Load { limit: self.minute_limit(now), busy: self.busy(now) };
        let frees = self.used.minute.falls_by((load.busy + 1).saturating_sub(load.limit));
        self.until_room(before, load, frees, self.next, now)
    }

    /// The same, as far as it depends on the namespace's own limits.
    fn until_own_message(
        &mut self,
        namespace: &Namespace,
        before: usize,
        load: Load,
        now: Duration,
    ) -> Duration {
        let over = (load.busy + 1).saturating_sub(load.limit);
        let share = self.shares.get(namespace);
        let (frees, next) = share.map_or((None, now), |share| (share.used.minute.falls_by(over), share.next));
        self.until_room(before, load, frees, next, now)
    }

    /// `frees` is when enough leaves the minute to make room for one message.
    fn until_room(
        &self,
        before: usize,
        load: Load,
        frees: Option<Duration>,
        next: Duration,
        now: Duration,
    ) -> Duration {
        let (poll, idle) = (self.timing.poll_interval(), self.timing.idle_interval());
        let frees = if load.busy < load.limit { now } else { frees.unwrap_or(now + poll) };
        let next = frees.max(if load.busy * 2 >= load.limit { next } else { now });
        let others = pace(before as u64, load.limit, self.timing.minute) / 2;
        // The others wait for the first in the queue.
        let least = if before == 0 { poll / 4 } else { poll };
        (next.saturating_sub(now) + others).clamp(least, idle)
    }

    /// How long until it is worth asking again for a connection. Most are kept about as long as the first in the queue wait.
    fn until_connection(&self, before: usize) -> Duration {
        let poll = self.timing.poll_interval();
        let least = if before == 0 { poll / 4 } else { poll };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let again = poll.saturating_mul(before) / (2 * self.limits.connections).max(1);
        again.clamp(least, self.timing.idle_interval())
    }

    /// What of the minute's limit can be leased now.
    fn minute_limit(&mut self, now: Duration) -> u64 {
        u64::from(self.limits.messages).saturating_sub(self.reserve(now).messages)
    }

    fn free_connections(&mut self, who: SidecarId, now: Duration) -> usize {
        let limit = u64::from(self.limits.connections) - self.reserve(now).connections;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let leases = self.leases.values().map(|lease| lease.holder);
        let users: BTreeSet<SidecarId> = leases.chain(self.inherited.keys().copied()).collect();
        // Another lease for a connection that the sidecar already has takes none.
        limit.saturating_sub(users.len()) + usize::from(users.contains(&who) && users.len() <= limit)
    }

    fn answer(
        &self,
        who: SidecarId,
        lease: Option<Lease>,
        short_of: Option<ShortOf>,
        again: Duration,
    ) -> Allotment {
        let own = self.ended.iter().filter(|((holder, _), _)| *holder == who);
        let confirmed = own.filter(|(_, end)| **end != LeaseEnd::Counted).map(|((_, id), _)| *id).collect();
        Allotment {
            lease,
            short_of,
            again_millis: millis(again),
            confirmed,
            cut_millis: millis(self.timing.cut_off()),
            slots: self.slots.offered(who).and_then(|assignment| self.time_slots(assignment)),
        }
    }
}

/// How long this many messages take at the pace of a limit.
fn pace(messages: u64, limit: u64, minute: Duration) -> Duration {
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    minute.saturating_mul(number(messages)) / number(limit.max(1))
}

/// When the message after these may go, if the first of these could at `next`. A sidecar that asks late does not slow the whole
/// down: being late by two messages is caught up.
fn next_at_pace(next: Duration, messages: u64, limit: u64, minute: Duration, now: Duration) -> Duration {
    next.max(now.saturating_sub(2 * pace(1, limit, minute))) + pace(messages, limit, minute)
}
