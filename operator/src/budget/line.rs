//! The line of those who wait for a lease. The namespace that has least goes first; within it, who came first is served first, and
//! who was served goes to its end.
//!
//! What a namespace has is the greater of its part of the minute's messages and its part of the connections (dominant resource
//! fairness: Ghodsi et al., NSDI 2011), so that neither can be had by asking for the other alone. Somebody who does not ask again
//! when told to has left, so that the others do not wait for nobody.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Holder, Limits, Namespace};

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

/// How a namespace stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Messages that it has used in the minute or has out.
    pub messages: u64,
    /// Connections that it holds.
    pub connections: u64,
    /// How many more of its sidecars its own bounds allow to be served.
    pub room: usize,
    /// When it was served last.
    pub served: Duration,
}

/// Where somebody stands in the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// How many of its own namespace come before.
    pub among_own: usize,
    /// How many come before, of all namespaces.
    pub before: usize,
}

#[derive(Clone, Debug)]
struct Place {
    home: Namespace,
    since: Duration,
    wish: Wish,
    /// Who has not come by then has left.
    expected: Duration,
    /// What is waited for is not there for a long time; others go first.
    stuck: bool,
}

type Queue = BTreeMap<(Duration, Holder), ()>;

/// The line of one mailbox.
#[derive(Clone, Debug, Default)]
pub struct Line {
    queues: BTreeMap<Namespace, Queue>,
    places: HashMap<Holder, Place>,
}

impl Line {
    /// Somebody waits, since `since` if that is the first that is heard of it.
    pub fn join(&mut self, who: Holder, home: &Namespace, wish: Wish, since: Duration) {
        if let Some(place) = self.places.get_mut(&who) {
            place.wish = wish;
            return;
        }
        self.queues.entry(home.clone()).or_default().insert((since, who), ());
        let place = Place { home: home.clone(), since, wish, expected: Duration::MAX, stuck: false };
        self.places.insert(who, place);
    }

    /// Somebody waits no more.
    pub fn leave(&mut self, who: Holder) {
        let Some(place) = self.places.remove(&who) else { return };
        if let Some(queue) = self.queues.get_mut(&place.home) {
            queue.remove(&(place.since, who));
            if queue.is_empty() {
                self.queues.remove(&place.home);
            }
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

    /// Where somebody stands. Those who have left meanwhile are put out.
    pub fn position(
        &mut self,
        who: Holder,
        now: Duration,
        standings: &BTreeMap<Namespace, Standing>,
        limits: Limits,
    ) -> Position {
        let gone: Vec<Holder> = self
            .queues
            .values()
            .flat_map(|queue| queue.keys().take(COUNTED))
            .filter(|(_, other)| self.places.get(other).is_some_and(|place| place.expected < now))
            .map(|(_, other)| *other)
            .filter(|other| *other != who)
            .collect();
        gone.into_iter().for_each(|other| self.leave(other));
        let Some(home) = self.places.get(&who).map(|place| place.home.clone()) else {
            return Position::default();
        };
        let among_own = self.rank(who, &home);
        let mine = order(standings.get(&home), among_own, limits);
        let mut before = among_own;
        for (namespace, queue) in self.queues.iter().filter(|(namespace, _)| **namespace != home) {
            let standing = standings.get(namespace);
            let room = standing.map_or(0, |standing| standing.room);
            let first = |rank: &usize| (order(standing, *rank, limits), namespace) < (mine, &home);
            before += (0..self.served(queue).min(room)).take_while(first).count();
        }
        Position { among_own, before }
    }

    /// The first in the line with what they wait for.
    pub fn first(
        &self,
        count: usize,
        standings: &BTreeMap<Namespace, Standing>,
        limits: Limits,
    ) -> Vec<(Holder, Wish)> {
        let mut waiting: Vec<_> = self
            .queues
            .iter()
            .flat_map(|(namespace, queue)| {
                let first = queue.keys().take(count).enumerate();
                first.map(move |(rank, (_, who))| {
                    ((order(standings.get(namespace), rank, limits), namespace, rank), *who)
                })
            })
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().take(count).filter_map(|(_, who)| Some((who, self.wish(who)?))).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The namespaces with somebody who waits.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.queues.keys()
    }

    /// How many of its own namespace come before somebody; roughly, when those are many.
    fn rank(&self, who: Holder, home: &Namespace) -> usize {
        let Some(queue) = self.queues.get(home) else { return 0 };
        let mut rank = 0;
        for (_, other) in queue.keys().take(COUNTED) {
            if *other == who {
                return rank;
            }
            rank += usize::from(!self.is_stuck(*other));
        }
        rank + queue.len().saturating_sub(COUNTED) / 2
    }

    /// How many of a queue could be served, counted as far as it matters.
    fn served(&self, queue: &Queue) -> usize {
        queue.keys().take(COUNTED).filter(|(_, who)| !self.is_stuck(*who)).count()
    }

    fn is_stuck(&self, who: Holder) -> bool {
        self.places.get(&who).is_some_and(|place| place.stuck)
    }
}

/// What a namespace has, in millionths of the whole, when so many more of its sidecars are served; then when it was served last.
fn order(standing: Option<&Standing>, more: usize, limits: Limits) -> (u64, Duration) {
    let standing = standing.copied().unwrap_or_default();
    let part = |has: u64, of: u32| (has + more as u64).saturating_mul(1_000_000) / u64::from(of.max(1));
    let (messages, connections) =
        (part(standing.messages, limits.messages), part(standing.connections, limits.connections));
    (messages.max(connections), standing.served)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { messages: 1, recipients: 1 };

    fn at(second: u64) -> Duration {
        Duration::from_secs(1_800_000_000 + second)
    }

    fn standing(messages: u64, connections: u64, room: usize) -> Standing {
        Standing { messages, connections, room, served: Duration::ZERO }
    }

    fn before(line: &mut Line, who: u64, now: Duration, standings: &[(&str, Standing)]) -> usize {
        let standings =
            standings.iter().map(|(name, standing)| (Namespace::from(*name), *standing)).collect();
        line.position(Holder(who), now, &standings, Limits::PUBLISHED).before
    }

    const ONE: [(&str, Standing); 1] =
        [("shop", Standing { messages: 0, connections: 0, room: 9, served: Duration::ZERO })];

    fn join(line: &mut Line, who: u64, home: &str, second: u64) {
        line.join(Holder(who), &home.into(), WISH, at(second));
    }

    #[test]
    fn who_came_first_is_first_and_who_was_served_goes_to_the_end() {
        let mut line = Line::default();
        join(&mut line, 3, "shop", 1);
        join(&mut line, 1, "shop", 2);
        join(&mut line, 3, "shop", 3);
        assert_eq!((before(&mut line, 3, at(4), &ONE), before(&mut line, 1, at(4), &ONE)), (0, 1));
        line.leave(Holder(3));
        join(&mut line, 3, "shop", 5);
        assert_eq!((before(&mut line, 3, at(6), &ONE), before(&mut line, 1, at(6), &ONE)), (1, 0));
    }

    #[test]
    fn nobody_waits_for_who_has_left_or_cannot_be_served() {
        let mut line = Line::default();
        for (holder, second) in [(1, 1), (2, 2), (3, 3)] {
            join(&mut line, holder, "shop", second);
        }
        line.expect(Holder(1), at(5));
        line.stuck(Holder(2), true);
        assert_eq!(before(&mut line, 3, at(5), &ONE), 1);
        assert_eq!(before(&mut line, 3, at(6), &ONE), 0);
        assert_eq!(line.len(), 2, "who has left is put out");
    }

    #[test]
    fn the_namespace_that_has_least_goes_first_however_many_wait_in_the_other() {
        let mut line = Line::default();
        (0..40).for_each(|who| join(&mut line, who, "crowd", 0));
        join(&mut line, 100, "shop", 50);
        let count =
            |line: &mut Line, crowd, shop| before(line, 100, at(60), &[("crowd", crowd), ("shop", shop)]);
        assert_eq!(count(&mut line, standing(5, 0, 40), standing(5, 0, 40)), 1, "one of each in turn");
        assert_eq!(count(&mut line, standing(5, 0, 40), standing(2, 0, 40)), 0);
        assert_eq!(
            count(&mut line, standing(2, 0, 40), standing(5, 0, 40)),
            1,
            "the next has a connection by then"
        );
        assert_eq!(count(&mut line, standing(2, 0, 40), standing(12, 0, 40)), 2);
        assert_eq!(count(&mut line, standing(0, 2, 40), standing(5, 0, 40)), 0, "connections count as well");
        assert_eq!(count(&mut line, standing(2, 0, 1), standing(5, 0, 40)), 1, "its own bounds allow one");
        let standings =
            [("crowd", standing(9, 0, 40)), ("shop", standing(9, 0, 40))].map(|(name, it)| (name.into(), it));
        let first = line.first(4, &BTreeMap::from(standings), Limits::PUBLISHED);
        assert!(first.iter().any(|(who, _)| *who == Holder(100)), "{first:?}");
    }
}
