//! What is set aside for sidecars out of contact, and how they take turns with it.
//!
//! Owns the reserve. Refuses to know why a sidecar is silent. What is set aside stays so until the last message that was sent in a
//! turn has left the window.

use std::time::Duration;

use mailroute_route::control::Turn;

use super::{Ledger, millis};
use crate::budget::Holder;
use crate::budget::turns::Class;

impl Ledger {
    /// A sidecar may have taken its turn just now.
    pub(super) fn was_alone(&mut self, who: Holder, now: Duration) {
        let owned = self.turns.class(who);
        self.set_aside(owned.map_or(0, |class| self.taken_by(class)), now);
    }

    /// How much is set aside: while sidecars that have turns may be taking them, and until the last message of it has left the
    /// window.
    pub(super) fn reserve(&mut self, now: Duration) -> u64 {
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
