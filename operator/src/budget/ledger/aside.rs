//! What is set aside for sidecars out of contact: for those who take turns with it, and for strangers, who were never told any.
//!
//! Owns the reserve. Refuses to know why a sidecar is silent. What is set aside stays so until the last message that was sent in a
//! turn has left the window.

use std::time::Duration;

use mailroute_limits::strangers::{self, RECIPIENTS};
use mailroute_route::control::Turn;

use super::{Ledger, millis};
use crate::budget::Holder;
use crate::budget::strangers::Share;
use crate::budget::turns::Class;

/// A sidecar whose pod lives, heard or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Living {
    /// Which.
    pub holder: Holder,
    /// Its slice, should it be a stranger.
    pub slice: u32,
    /// When its pod was made.
    pub since: Duration,
}

impl Living {
    /// The one of the pod with this uid.
    pub fn of(uid: &str, since: Duration) -> Self {
        Self { holder: Holder::of(uid), slice: strangers::slice(uid), since }
    }
}

impl Ledger {
    /// These use the mailbox. Whoever of them may never have been answered, and for long, may be sending nevertheless.
    pub fn expect(&mut self, living: impl IntoIterator<Item = Living>, now: Duration) {
        let until = now + self.terms.lingers();
        for Living { holder, slice, since } in living {
            let last = self.sidecars.get(&holder).map_or(since, |sidecar| sidecar.heard);
            if !self.turns.knows(holder) && last + self.terms.estranged() <= now {
                self.strangers.expect(holder, slice, until);
            }
        }
        let unheard = self.strangers.lapse(now);
        // What they sent nobody knows.
        self.day.add(now, unheard * u64::from(RECIPIENTS));
    }

    /// What is kept free: for those who take turns, and for strangers. Never all there is.
    pub(super) fn aside(&mut self, now: Duration) -> Share {
        let turns = self.reserve(now);
        // What is leased now is counted until it is cut off, and meets what was sent in the minute before that or is in the one after.
        let (minute, skew) = (self.terms.minute, self.terms.skew());
        let until = now + self.terms.cut() + minute + skew;
        let strangers = self.strangers.share(now.saturating_sub(minute + skew), until, minute);
        let most = self.limits.most_in_turns();
        Share {
            messages: (turns + strangers.messages).min(most),
            connections: (u64::from(turns > 0) + strangers.connections)
                .min(u64::from(self.limits.connections.saturating_sub(1))),
        }
    }

    pub(super) fn recipients_of_strangers(&self) -> u64 {
        let most = u64::from(self.limits.recipients / 3);
        (self.strangers.len() as u64 * u64::from(RECIPIENTS)).min(most)
    }

    /// A sidecar may have taken its turn just now.
    pub(super) fn was_alone(&mut self, who: Holder, now: Duration) {
        let owned = self.turns.class(who);
        self.set_aside(owned.map_or(0, |class| self.taken_by(class)), now);
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
}
