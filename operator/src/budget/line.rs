//! The line of those who wait for a lease: who came first is served first, and who was served goes to its end.
//!
//! Somebody who does not ask again when told to has left, so that the others do not wait for nobody.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Holder;

/// Places counted exactly; further back nobody is about to be served.
const COUNTED: usize = 64;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Messages; none for a look at the way.
    pub messages: u64,
    /// Recipients of each.
    pub recipients: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    since: Duration,
    wish: Wish,
    /// Who has not come by then has left.
    expected: Duration,
    /// What is waited for is not there for a long time; others go first.
    stuck: bool,
}

/// The line of one mailbox.
#[derive(Clone, Debug, Default)]
pub struct Line {
    order: BTreeMap<(Duration, Holder), ()>,
    places: HashMap<Holder, Place>,
}

impl Line {
    /// Somebody waits, since `since` if that is the first that is heard of it.
    pub fn join(&mut self, who: Holder, wish: Wish, since: Duration) {
        if let Some(place) = self.places.get_mut(&who) {
            place.wish = wish;
            return;
        }
        self.order.insert((since, who), ());
        self.places.insert(who, Place { since, wish, expected: Duration::MAX, stuck: false });
    }

    /// Somebody waits no more.
    pub fn leave(&mut self, who: Holder) {
        if let Some(place) = self.places.remove(&who) {
            self.order.remove(&(place.since, who));
        }
    }

    /// What somebody waits for.
    pub fn wish(&self, who: Holder) -> Option<Wish> {
        self.places.get(&who).map(|place| place.wish)
    }

    /// Somebody was told to come again before `expected`.
    pub fn expect(&mut self, who: Holder, expected: Duration) {
        if let Some(place) = self.places.get_mut(&who) {
            place.expected = expected;
        }
    }

    /// What somebody waits for is or is not to be had for a long time.
    pub fn stuck(&mut self, who: Holder, stuck: bool) {
        if let Some(place) = self.places.get_mut(&who) {
            place.stuck = stuck;
        }
    }

    /// How many come before somebody. Those who have left meanwhile are put out.
    pub fn before(&mut self, who: Holder, now: Duration) -> usize {
        let (mut count, mut gone, mut found) = (0, Vec::new(), false);
        for &(_, other) in self.order.keys() {
            if other == who || count >= COUNTED {
                found = other == who;
                break;
            }
            match self.places.get(&other) {
                Some(place) if place.expected < now => gone.push(other),
                Some(place) => count += usize::from(!place.stuck),
                None => {}
            }
        }
        gone.into_iter().for_each(|other| self.leave(other));
        if found { count } else { count + self.order.len().saturating_sub(COUNTED) / 2 }
    }

    /// The first in the line with what they wait for.
    pub fn first(&self, count: usize) -> impl Iterator<Item = (Holder, Wish)> + '_ {
        let wish = |holder: &Holder| self.places.get(holder).map(|place| (*holder, place.wish));
        self.order.keys().filter_map(move |(_, holder)| wish(holder)).take(count)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { messages: 1, recipients: 1 };

    fn at(second: u64) -> Duration {
        Duration::from_secs(1_800_000_000 + second)
    }

    #[test]
    fn who_came_first_is_first_and_who_was_served_goes_to_the_end() {
        let mut line = Line::default();
        line.join(Holder(3), WISH, at(1));
        line.join(Holder(1), WISH, at(2));
        line.join(Holder(3), WISH, at(3));
        assert_eq!((line.before(Holder(3), at(4)), line.before(Holder(1), at(4))), (0, 1));
        line.leave(Holder(3));
        line.join(Holder(3), WISH, at(5));
        assert_eq!((line.before(Holder(3), at(6)), line.before(Holder(1), at(6))), (1, 0));
    }

    #[test]
    fn nobody_waits_for_who_has_left_or_cannot_be_served() {
        let mut line = Line::default();
        for (holder, second) in [(1, 1), (2, 2), (3, 3)] {
            line.join(Holder(holder), WISH, at(second));
        }
        line.expect(Holder(1), at(5));
        line.stuck(Holder(2), true);
        assert_eq!(line.before(Holder(3), at(5)), 1);
        assert_eq!(line.before(Holder(3), at(6)), 0);
        assert_eq!(line.len(), 2, "who has left is put out");
    }
}
