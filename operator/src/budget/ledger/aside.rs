//! What is set aside for sidecars out of contact: for those who take turns with it, and for strangers, who were never told any.
//!
//! Owns the reserve. Refuses to know why a sidecar is silent. What is set aside stays so until the last message that was sent in a
//! turn has left the window. A namespace has no more set aside for its pods than its part of what is set aside at most.

use std::collections::BTreeMap;
use std::time::Duration;

use mailroute_limits::strangers::{self, RECIPIENTS};
use mailroute_route::control::Turn;

use super::{Ledger, millis};
use crate::budget::share::Share;
use crate::budget::strangers::Reserve;
use crate::budget::turns::Class;
use crate::budget::{Holder, Namespace};

/// A sidecar that runs, heard or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Which.
    pub holder: Holder,
    /// The namespace of its pod.
    pub home: Namespace,
    /// Its slice, should it be a stranger.
    pub slice: u32,
    /// When its pod was made.
    pub since: Duration,
}

impl Living {
    /// The one of the pod with this uid, of this namespace.
    pub fn of(home: &str, uid: &str, since: Duration) -> Self {
        Self { holder: Holder::of(uid), home: home.into(), slice: strangers::slice(uid), since }
    }
}

impl Ledger {
    /// These use the mailbox. Whoever of them may never have been answered, and for long, may be sending nevertheless.
    pub fn expect(&mut self, living: impl IntoIterator<Item = Living>, now: Duration) {
        let until = now + self.terms.lingers();
        for Living { holder, home, slice, since } in living {
            let last = self.sidecars.get(&holder).map_or(since, |sidecar| sidecar.heard);
            if !self.turns.knows(holder) && last + self.terms.estranged() <= now {
                self.homes.insert(holder, home.clone());
                self.share(&home, now).strangers.expect(holder, slice, until);
            }
        }
        let unheard: Vec<Holder> =
            self.shares.values_mut().flat_map(|share| share.strangers.lapse(now)).collect();
        for holder in unheard {
            // What they sent nobody knows.
            self.count_alone(holder, RECIPIENTS.into(), now);
            if !self.turns.owns(holder) {
                self.homes.remove(&holder);
            }
        }
    }

    /// What is kept free: for those who take turns, and for strangers. Never all there is.
    pub(super) fn aside(&mut self, now: Duration) -> Reserve {
        self.look_for_silent(now);
        // What is leased now is counted until it is cut off, and meets what was sent in the minute before that or is in the one after.
        let (minute, skew) = (self.terms.minute, self.terms.skew());
        let (from, until) = (now.saturating_sub(minute + skew), now + self.terms.cut() + minute + skew);
        let has_turns = self.limits.in_turn(1) > 0;
        let most_turns = if now < self.reserved.1 { self.reserved.0 } else { 0 };
        let (part, is_shared) = (self.part_of_turns(now), self.sharers(now) > 1);
        let (mut all, mut turns, mut strangers) = (0, 0, Reserve::default());
        for share in self.shares.values() {
            let of_turns = if has_turns { share.set_aside_now(now).min(part) } else { 0 };
            let mut of_strangers = share.strangers.share(from, until, minute);
            of_strangers.messages = of_strangers.messages.min(part);
            if is_shared {
                of_strangers.connections = of_strangers.connections.min(1);
            }
            all += (of_turns + of_strangers.messages).min(part);
            turns += of_turns;
            strangers.messages += of_strangers.messages;
            strangers.connections += of_strangers.connections;
        }
        // A window meets two slices, whosever they are.
        let mut turns = turns.min(most_turns);
        if has_turns && now < self.unknown_until {
            turns = self.limits.most_in_turns();
            all += turns;
        }
        Reserve {
            messages: all.min(turns + strangers.messages).min(self.limits.most_in_turns()),
            connections: (u64::from(turns > 0) + strangers.connections)
                .min(u64::from(self.limits.connections.saturating_sub(1))),
        }
    }

    /// The most messages that are set aside for the pods of one namespace.
    fn part_of_turns(&self, now: Duration) -> u64 {
        self.limits.most_in_turns() / self.sharers(now)
    }

    /// How many namespaces share what is set aside, at least one.
    fn sharers(&self, now: Duration) -> u64 {
        let may = |share: &&Share| share.may_be_alone(self.terms, now);
        (self.shares.values().filter(may).count() as u64).max(1)
    }

    pub(super) fn recipients_of_strangers(&self, now: Duration) -> u64 {
        let most = u64::from(self.limits.recipients / 3) / self.sharers(now);
        let of = |count: usize| (count as u64 * u64::from(RECIPIENTS)).min(most);
        self.shares.values().map(|share| of(share.strangers.len())).sum()
    }

    /// A sidecar may have taken its turn just now.
    pub(super) fn was_alone(&mut self, who: Holder, now: Duration) {
        let taken = self.turns.class(who).map_or(0, |class| self.taken_by(class));
        let Some(home) = self.homes.get(&who).cloned() else { return };
        self.set_aside(&home, taken, now);
        self.set_aside_at_most(taken.min(self.part_of_turns(now)), now);
    }

    /// Sets something aside while sidecars that have turns may be taking them, and until the last message of it has left the
    /// window.
    fn look_for_silent(&mut self, now: Duration) {
        if now < self.looked + self.terms.look() {
            return;
        }
        self.looked = now;
        let silent = self.terms.silent();
        let heard = |holder: Holder| self.sidecars.get(&holder).map(|sidecar| sidecar.heard);
        let is_silent = |holder: &Holder| heard(*holder).is_none_or(|heard| heard + silent <= now);
        let mut most = Pair::default();
        let mut by_home = BTreeMap::<Namespace, Pair>::new();
        for (holder, class) in self.turns.classes().filter(|(holder, _)| is_silent(holder)) {
            let Some(home) = self.homes.get(&holder) else { continue };
            most.add(self.taken_by(class));
            by_home.entry(home.clone()).or_default().add(self.taken_by(class));
        }
        for (home, pair) in &by_home {
            self.set_aside(home, pair.sum(), now);
        }
        if !by_home.is_empty() {
            self.set_aside_at_most(most.sum(), now);
        }
    }

    /// How slices are cut: a minute each, so that no window of Microsoft's meets more than two, with room at both ends, so that no
    /// two messages of neighbours meet, for clocks that are right within the skew.
    pub(super) fn turn(&self, class: Class) -> Option<Turn> {
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

    /// Sets so much aside for a namespace, at least, until what was sent in a turn that ends now has left the window.
    fn set_aside(&mut self, home: &Namespace, messages: u64, now: Duration) {
        let until = self.leaves(now);
        self.share(home, now).set_aside(messages, now, until);
    }

    /// No more than this is needed for all namespaces together.
    fn set_aside_at_most(&mut self, messages: u64, now: Duration) {
        let before = if now < self.reserved.1 { self.reserved.0 } else { 0 };
        self.reserved = (before.max(messages), self.reserved.1.max(self.leaves(now)));
    }

    fn leaves(&self, now: Duration) -> Duration {
        now + self.terms.look() + self.terms.minute + self.terms.cut()
    }

    /// The most that one sidecar sends in its turns within a window, which meets two slices.
    fn taken_by(&self, class: Class) -> u64 {
        self.limits.in_turn(class.of) * if class.of == 1 { 2 } else { 1 }
    }
}

/// The two greatest of some numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Pair(u64, u64);

impl Pair {
    fn add(&mut self, number: u64) {
        *self = if number > self.0 { Self(number, self.0) } else { Self(self.0, self.1.max(number)) };
    }

    const fn sum(self) -> u64 {
        self.0 + self.1
    }
}
