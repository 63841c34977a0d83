//! Which connections are open and from which addresses, and which one gives way when there is no place. No I/O, no clock.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Memory that the bodies of one address's requests may take at a time, bytes.
const BODIES: usize = 12 * 1024 * 1024;
/// Memory that what is read from these bodies may take at a time, bytes.
const VALUES: usize = 12 * 1024 * 1024;

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
}

impl Places {
    /// Places for `most` connections, `most_of_one` of them for one address.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, next: 0, open: BTreeMap::new(), peers: HashMap::new() }
    }

    /// A place for a connection from this address. Where there is none, another connection is evicted: of the same address
    /// when it has its full number, else of an address with the most.
    pub(super) fn take(&mut self, address: IpAddr) -> Arc<Connection> {
        if self.of(address) >= self.most_of_one {
            self.evict(address);
        } else if self.open.len() >= self.most
            && let Some(largest) = self.largest()
        {
            self.evict(largest);
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

    fn largest(&self) -> Option<IpAddr> {
        self.peers.iter().max_by_key(|(_, (_, count))| *count).map(|(address, _)| *address)
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
