//! The sidecars that wait for a lease. The namespace that has least goes first, in it the sidecar that has waited longest; a
//! sidecar that was served goes to the end.
//!
//! What a namespace has is the greater of its part of the minute's messages and its part of the connections (dominant resource
//! fairness: Ghodsi et al., NSDI 2011), so that no namespace gains by asking for one of them alone. A sidecar that does not ask
//! again when it was told to has left, so that nobody waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::limits::{MailboxLimits, Namespace, SidecarId};

/// Places counted exactly. Nobody further back is about to be served.
const COUNTED: usize = 64;

/// What a sidecar waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Messages; zero for a probe.
    pub messages: u64,
    /// Recipients of each.
    pub recipients: u64,
}

/// What a namespace has of the mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceUse {
    /// Messages that it has used in the minute or has leased.
    pub messages: u64,
    /// Connections that it has leased.
    pub connections: u64,
    /// How many more of its sidecars may be served within its own bounds.
    pub room: usize,
    /// When it was last granted a lease.
    pub served: Duration,
}

/// A sidecar's place in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePosition {
    /// How many sidecars of its own namespace are before it.
    pub in_namespace: usize,
    /// How many sidecars of any namespace are before it.
    pub before: usize,
}

#[derive(Clone, Debug)]
struct Waiting {
    namespace: Namespace,
    since: Duration,
    demand: Demand,
    /// A sidecar that has not asked again by then has left.
    expected: Duration,
    /// What it waits for is used up for a long time; others go first.
    blocked: bool,
}

type NamespaceQueue = BTreeSet<(Duration, SidecarId)>;

/// The wait queue of one mailbox.
#[derive(Clone, Debug, Default)]
pub struct WaitQueue {
    queues: BTreeMap<Namespace, NamespaceQueue>,
    waiting: HashMap<SidecarId, Waiting>,
}

impl WaitQueue {
    /// Adds a sidecar that has waited since `since`; one that is in the queue keeps its place.
    pub fn add(&mut self, who: SidecarId, namespace: &Namespace, demand: Demand, since: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&who) {
            waiting.demand = demand;
            return;
        }
        self.queues.entry(namespace.clone()).or_default().insert((since, who));
        let waiting =
            Waiting { namespace: namespace.clone(), since, demand, expected: Duration::MAX, blocked: false };
        self.waiting.insert(who, waiting);
    }

    /// Removes a sidecar.
    pub fn remove(&mut self, who: SidecarId) {
        let Some(waiting) = self.waiting.remove(&who) else { return };
        if let Some(queue) = self.queues.get_mut(&waiting.namespace) {
            queue.remove(&(waiting.since, who));
            if queue.is_empty() {
                self.queues.remove(&waiting.namespace);
            }
        }
    }

    /// What a sidecar waits for.
    pub fn demand(&self, who: SidecarId) -> Option<Demand> {
        self.waiting.get(&who).map(|waiting| waiting.demand)
    }

    /// Notes that a sidecar was told to ask again before `expected`.
    pub fn expect(&mut self, who: SidecarId, expected: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&who) {
            waiting.expected = expected;
        }
    }

    /// Notes whether what a sidecar waits for is used up for a long time.
    pub fn set_blocked(&mut self, who: SidecarId, blocked: bool) {
        if let Some(waiting) = self.waiting.get_mut(&who) {
            waiting.blocked = blocked;
        }
    }

    /// The place of a sidecar. Removes those that have not asked again in time.
    pub fn position(
        &mut self,
        who: SidecarId,
        now: Duration,
        uses: &BTreeMap<Namespace, NamespaceUse>,
        limits: MailboxLimits,
    ) -> QueuePosition {
        let gone: Vec<SidecarId> = self
            .queues
            .values()
            .flat_map(|queue| queue.iter().take(COUNTED))
            .filter(|(_, other)| self.waiting.get(other).is_some_and(|waiting| waiting.expected < now))
            .map(|(_, other)| *other)
            .filter(|other| *other != who)
            .collect();
        gone.into_iter().for_each(|other| self.remove(other));
        let Some(own) = self.waiting.get(&who).map(|waiting| waiting.namespace.clone()) else {
            return QueuePosition::default();
        };
        let in_namespace = self.rank(who, &own);
        let mine = order(uses.get(&own), in_namespace, limits);
        let mut before = in_namespace;
        for (namespace, queue) in self.queues.iter().filter(|(namespace, _)| **namespace != own) {
            let used = uses.get(namespace);
            let room = used.map_or(0, |used| used.room);
            let first = |rank: &usize| (order(used, *rank, limits), namespace) < (mine, &own);
            before += (0..self.servable(queue).min(room)).take_while(first).count();
        }
        QueuePosition { in_namespace, before }
    }

    /// The first sidecars in the queue with what they wait for.
    pub fn first(
        &self,
        count: usize,
        uses: &BTreeMap<Namespace, NamespaceUse>,
        limits: MailboxLimits,
    ) -> Vec<(SidecarId, Demand)> {
        let mut waiting: Vec<_> = self
            .queues
            .iter()
            .flat_map(|(namespace, queue)| {
                let first = queue.iter().take(count).enumerate();
                first.map(move |(rank, (_, who))| {
                    ((order(uses.get(namespace), rank, limits), namespace, rank), *who)
                })
            })
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().take(count).filter_map(|(_, who)| Some((who, self.demand(who)?))).collect()
    }

    /// How many sidecars wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The namespaces of which a sidecar waits.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.queues.keys()
    }

    /// How many of its own namespace are before a sidecar; roughly, if there are many.
    fn rank(&self, who: SidecarId, namespace: &Namespace) -> usize {
        let Some(queue) = self.queues.get(namespace) else { return 0 };
        let mut rank = 0;
        for (_, other) in queue.iter().take(COUNTED) {
            if *other == who {
                return rank;
            }
            rank += usize::from(!self.is_blocked(*other));
        }
        rank + queue.len().saturating_sub(COUNTED) / 2
    }

    /// How many of a queue could be served, up to [`COUNTED`].
    fn servable(&self, queue: &NamespaceQueue) -> usize {
        queue.iter().take(COUNTED).filter(|(_, who)| !self.is_blocked(*who)).count()
    }

    fn is_blocked(&self, who: SidecarId) -> bool {
        self.waiting.get(&who).is_some_and(|waiting| waiting.blocked)
    }
}

/// The order of namespaces: what one has after this many more grants, in millionths of the limit, then when it was last served.
fn order(used: Option<&NamespaceUse>, more: usize, limits: MailboxLimits) -> (u64, Duration) {
    let used = used.copied().unwrap_or_default();
    let part = |has: u64, of: u32| (has + more as u64).saturating_mul(1_000_000) / u64::from(of.max(1));
    let (messages, connections) =
        (part(used.messages, limits.messages), part(used.connections, limits.connections));
    (messages.max(connections), used.served)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { messages: 1, recipients: 1 };

    fn at(second: u64) -> Duration {
        Duration::from_secs(1_800_000_000 + second)
    }

    fn used(messages: u64, connections: u64, room: usize) -> NamespaceUse {
        NamespaceUse { messages, connections, room, served: Duration::ZERO }
    }

    fn before(queue: &mut WaitQueue, who: u64, now: Duration, uses: &[(&str, NamespaceUse)]) -> usize {
        let uses = uses.iter().map(|(name, used)| (Namespace::from(*name), *used)).collect();
        queue.position(SidecarId(who), now, &uses, MailboxLimits::PUBLISHED).before
    }

    const ONE: [(&str, NamespaceUse); 1] =
        [("shop", NamespaceUse { messages: 0, connections: 0, room: 9, served: Duration::ZERO })];

    fn join(queue: &mut WaitQueue, who: u64, home: &str, second: u64) {
        queue.add(SidecarId(who), &home.into(), DEMAND, at(second));
    }

    #[test]
    fn who_came_first_is_first_and_who_was_served_goes_to_the_end() {
        let mut queue = WaitQueue::default();
        join(&mut queue, 3, "shop", 1);
        join(&mut queue, 1, "shop", 2);
        join(&mut queue, 3, "shop", 3);
        assert_eq!((before(&mut queue, 3, at(4), &ONE), before(&mut queue, 1, at(4), &ONE)), (0, 1));
        queue.remove(SidecarId(3));
        join(&mut queue, 3, "shop", 5);
        assert_eq!((before(&mut queue, 3, at(6), &ONE), before(&mut queue, 1, at(6), &ONE)), (1, 0));
    }

    #[test]
    fn nobody_waits_for_one_that_has_left_or_cannot_be_served() {
        let mut queue = WaitQueue::default();
        for (holder, second) in [(1, 1), (2, 2), (3, 3)] {
            join(&mut queue, holder, "shop", second);
        }
        queue.expect(SidecarId(1), at(5));
        queue.set_blocked(SidecarId(2), true);
        assert_eq!(before(&mut queue, 3, at(5), &ONE), 1);
        assert_eq!(before(&mut queue, 3, at(6), &ONE), 0);
        assert_eq!(queue.len(), 2, "one that has left is removed");
    }

    #[test]
    fn the_namespace_that_has_least_goes_first_however_many_wait_in_the_other() {
        let mut queue = WaitQueue::default();
        (0..40).for_each(|who| join(&mut queue, who, "crowd", 0));
        join(&mut queue, 100, "shop", 50);
        let count = |queue: &mut WaitQueue, crowd, shop| {
            before(queue, 100, at(60), &[("crowd", crowd), ("shop", shop)])
        };
        assert_eq!(count(&mut queue, used(5, 0, 40), used(5, 0, 40)), 1, "one of each in turn");
        assert_eq!(count(&mut queue, used(5, 0, 40), used(2, 0, 40)), 0);
        assert_eq!(count(&mut queue, used(2, 0, 40), used(5, 0, 40)), 1, "the next has a connection by then");
        assert_eq!(count(&mut queue, used(2, 0, 40), used(12, 0, 40)), 2);
        assert_eq!(count(&mut queue, used(0, 2, 40), used(5, 0, 40)), 0, "connections count as well");
        assert_eq!(count(&mut queue, used(2, 0, 1), used(5, 0, 40)), 1, "its own bounds allow one");
        let uses = [("crowd", used(9, 0, 40)), ("shop", used(9, 0, 40))].map(|(name, it)| (name.into(), it));
        let first = queue.first(4, &BTreeMap::from(uses), MailboxLimits::PUBLISHED);
        assert!(first.iter().any(|(who, _)| *who == SidecarId(100)), "{first:?}");
    }
}
