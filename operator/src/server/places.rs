//! Which connections are open and from which addresses, and which one gives way when there is no place. No I/O, no clock.
//!
//! What matters is that the API server keeps its places on the webhook's port, and it cannot be told from others by its
//! address. What tells it from strangers is that it was answered before they came. So an address that was never answered gives way
//! before any that was, and among those the one that was answered first gives way last.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Memory that the bodies of one address's requests may take at a time, bytes.
const BODIES: usize = 12 * 1024 * 1024;
/// Memory that what is read from these bodies may take at a time, bytes.
const VALUES: usize = 12 * 1024 * 1024;

/// Addresses that are remembered to have been answered. When there are more, those without a connection are forgotten.
const MOST_ANSWERED: usize = 4096;

/// An address that has connections open, and what its requests may take together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Share>);

#[derive(Debug)]
struct Share {
    address: IpAddr,
    bodies: Arc<Semaphore>,
    values: Arc<Semaphore>,
    turn: Semaphore,
}

impl Peer {
    /// A peer that holds nothing yet.
    pub fn new(address: IpAddr) -> Self {
        let [bodies, values] = [BODIES, VALUES].map(|bytes| Arc::new(Semaphore::new(bytes)));
        Self(Arc::new(Share { address: address.to_canonical(), bodies, values, turn: Semaphore::new(1) }))
    }

    /// Its address; an IPv4 address as such, also when it came in over IPv6.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// The peer's share of memory for the bodies of its requests, a permit for each byte.
    pub fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    /// The peer's share of memory for what is read from the bodies, a permit for each byte.
    pub fn values(&self) -> &Arc<Semaphore> {
        &self.0.values
    }

    /// Waits until no other request of this peer is being worked on.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there is always one.
        self.0.turn.acquire().await.ok()
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    peer: Peer,
    asked: AtomicBool,
    busy: AtomicBool,
    evicted: Notify,
}

impl Connection {
    /// Where it comes from.
    pub(super) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether it has made a request.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// A request is being answered until what is returned is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.asked.store(true, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        Busy(self)
    }

    /// Ready when it has to give way to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// What gives way first: what never asked for anything, then what asks for nothing now, and of these the oldest.
    fn importance(&self) -> (bool, bool, u64) {
        (self.busy.load(Ordering::Relaxed), self.has_asked(), self.number)
    }
}

/// While it exists its connection is busy.
pub(super) struct Busy<'a>(&'a Connection);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// The open connections.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    next: u64,
    open: BTreeMap<u64, Arc<Connection>>,
    peers: HashMap<IpAddr, (Peer, usize)>,
    /// Addresses with a request that succeeded, each with the number of the connection that came next then. Kept while they
    /// have no connection, as the API server has none while nothing happens.
    answered: HashMap<IpAddr, u64>,
}

impl Places {
    /// Places for `most` connections, `most_of_one` of them for one address.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            next: 0,
            open: BTreeMap::new(),
            peers: HashMap::new(),
            answered: HashMap::new(),
        }
    }

    /// A place for a connection from this address. Where there is none, another connection is evicted: of the same address
    /// when it has its full number, else of [`Self::first_to_give_way`].
    pub(super) fn take(&mut self, address: IpAddr) -> Arc<Connection> {
        if self.of(address) >= self.most_of_one {
            self.evict(address);
        } else if self.open.len() >= self.most
            && let Some(other) = self.first_to_give_way()
        {
            self.evict(other);
        }
        let (peer, count) = self.peers.entry(address).or_insert_with(|| (Peer::new(address), 0));
        *count += 1;
        let connection = Arc::new(Connection {
            number: self.next,
            peer: peer.clone(),
            asked: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        self.open.insert(self.next, Arc::clone(&connection));
        self.next += 1;
        connection
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, connection: &Connection) {
        if self.open.remove(&connection.number).is_none() {
            return;
        }
        let address = connection.peer.address();
        if let Some((_, count)) = self.peers.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&address);
            }
        }
    }

    fn of(&self, address: IpAddr) -> usize {
        self.peers.get(&address).map_or(0, |(_, count)| *count)
    }

    /// A request of this address succeeded.
    pub(super) fn succeeded(&mut self, address: IpAddr) {
        if !self.answered.contains_key(&address) {
            if self.answered.len() >= MOST_ANSWERED {
                self.answered.retain(|address, _| self.peers.contains_key(address));
            }
            self.answered.insert(address, self.next);
        }
    }

    /// The address that gives a place up: one that was never answered, with the most connections; else one that has more than half
    /// of what one may have; else the one that was answered last for the first time.
    fn first_to_give_way(&self) -> Option<IpAddr> {
        let rank = |(address, (_, count)): &(&IpAddr, &(Peer, usize))| {
            let since = self.answered.get(address).copied();
            let is_many = since.is_none() || *count > self.most_of_one / 2;
            (since.is_none(), if is_many { *count } else { 0 }, since)
        };
        self.peers.iter().max_by_key(rank).map(|(address, _)| *address)
    }

    fn evict(&mut self, address: IpAddr) {
        let of_it = self.open.values().filter(|connection| connection.peer.address() == address);
        if let Some(least) = of_it.min_by_key(|connection| connection.importance()).cloned() {
            least.evicted.notify_one();
            self.leave(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const FLOOD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn gave_way(connection: &Connection) -> bool {
        connection.evicted().now_or_never().is_some()
    }

    #[test]
    fn one_address_never_has_more_than_its_part_and_its_oldest_gives_way() {
        let mut places = Places::new(100, 10);
        let other = places.take(OTHER);
        let flood: Vec<_> = (0..50).map(|_| places.take(FLOOD)).collect();
        assert_eq!((places.of(FLOOD), places.open.len()), (10, 11));
        assert_eq!(flood.iter().filter(|connection| gave_way(connection)).count(), 40);
        assert!(!gave_way(&flood[49]) && !gave_way(&other));
    }

    #[test]
    fn when_all_places_are_taken_an_address_with_the_most_gives_one_up() {
        let mut places = Places::new(100, 25);
        let small: Vec<_> = (0..15).map(|_| places.take(OTHER)).collect();
        let floods: Vec<_> = (1..=5).flat_map(|last| (0..25).map(move |_| last)).collect();
        for last in floods {
            places.take([10, 0, 9, last].into());
        }
        assert_eq!(places.open.len(), 100);
        assert_eq!(places.of(OTHER), 15, "those with more gave way to one another");
        places.take(OTHER);
        assert_eq!((places.of(OTHER), places.open.len()), (16, 100));
        assert!(!small.iter().any(|connection| gave_way(connection)));
    }

    /// As the API server has them: open, and waiting for the next review.
    fn api_server(places: &mut Places) -> Vec<Arc<Connection>> {
        let connections: Vec<_> = (0..20).map(|_| places.take(OTHER)).collect();
        connections.iter().for_each(|connection| drop(connection.busy()));
        places.succeeded(OTHER);
        connections
    }

    fn thin_flood() -> impl Iterator<Item = IpAddr> {
        (0..200_u8).map(|last| [10, 0, 9, last].into())
    }

    #[test]
    fn a_thin_flood_from_many_addresses_takes_no_place_of_whoever_was_answered() {
        let mut places = Places::new(100, 25);
        let api_server = api_server(&mut places);
        for address in thin_flood().chain(thin_flood()) {
            // Requests that get no good answer make nobody known.
            drop(places.take(address).busy());
        }
        let fresh = places.take(OTHER);
        thin_flood().for_each(|address| drop(places.take(address)));
        assert!(!api_server.iter().chain([&fresh]).any(|connection| gave_way(connection)));
        assert_eq!((places.of(OTHER), places.open.len()), (21, 100));
    }

    #[test]
    fn of_those_who_were_answered_the_last_gives_way_first_unless_one_has_many() {
        let mut places = Places::new(100, 25);
        let mut api_server = api_server(&mut places);
        api_server.drain(1..).for_each(|connection| places.leave(&connection));
        // It comes back while others have all places, and was answered before them.
        places.leave(&api_server[0]);
        for address in thin_flood() {
            drop(places.take(address).busy());
            places.succeeded(address);
        }
        let fresh = places.take(OTHER);
        for address in thin_flood() {
            places.take(address);
        }
        assert!(!gave_way(&fresh));
        // Four addresses with all that one may have are no reason to take it from one with little.
        for last in 0..5 {
            for _ in 0..25 {
                places.take([10, 0, 8, last].into());
                places.succeeded([10, 0, 8, last].into());
            }
        }
        assert!(!gave_way(&fresh) && places.of(OTHER) == 1);
    }

    #[test]
    fn those_who_were_answered_are_remembered_within_bounds() {
        let mut places = Places::new(100, 25);
        let _connection = places.take(OTHER);
        places.succeeded(OTHER);
        for number in 0..100_000_u32 {
            places.succeeded(IpAddr::V4(number.into()));
        }
        assert!(places.answered.len() <= MOST_ANSWERED && places.answered.contains_key(&OTHER));
    }

    #[test]
    fn a_request_under_way_gives_way_last_and_what_never_asked_first() {
        let mut places = Places::new(100, 3);
        let [busy, idle, silent] = [(); 3].map(|()| places.take(FLOOD));
        let _request = busy.busy();
        drop(idle.busy());
        places.take(FLOOD);
        assert_eq!([&busy, &idle, &silent].map(|it| gave_way(it)), [false, false, true]);
        let asked = places.take(FLOOD);
        drop(asked.busy());
        places.take(FLOOD);
        assert_eq!([&busy, &idle, &asked].map(|it| gave_way(it)), [false, true, false]);
    }

    #[test]
    fn an_address_that_has_left_is_forgotten() {
        let mut places = Places::new(100, 10);
        let connection = places.take(OTHER);
        places.leave(&connection);
        places.leave(&connection);
        assert!(places.peers.is_empty() && places.open.is_empty());
    }

    #[test]
    fn connections_of_one_address_share_its_memory() {
        let mut places = Places::new(100, 10);
        let [one, two] = [(); 2].map(|()| places.take(OTHER));
        let held = one.peer().bodies().try_acquire_many(u32::try_from(BODIES).unwrap());
        assert!(held.is_ok() && two.peer().bodies().try_acquire().is_err());
        assert!(two.peer().values().try_acquire().is_ok(), "values have a share of their own");
        assert!(places.take(FLOOD).peer().bodies().try_acquire().is_ok());
        drop(held);
        assert!(two.peer().bodies().try_acquire().is_ok());
    }

    #[test]
    fn ipv4_over_ipv6_is_the_same_address() {
        assert_eq!(Peer::new("::ffff:10.0.0.1".parse().unwrap()).address(), OTHER);
    }
}
