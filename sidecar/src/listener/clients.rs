//! What each client address may hold of a listener for the network: sessions at once, and messages a minute; and which session gives way
//! when there are too many of all addresses.
//!
//! A session is settled when its client has logged in, or begun a message. One that is not gives way to that of another address: first
//! those of addresses where nobody has logged in lately; of these, those of the address that has most; of these, the oldest. So whoever
//! only connects keeps nobody out.
//!
//! Pure: time is passed in. Memory is bounded by the sessions and `MAX_REMEMBERED`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Most addresses without a session that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// The time in which messages are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// How long an address counts as one from which somebody has logged in.
const LOGGED_IN: Duration = Duration::from_secs(24 * 3600);

/// The bounds of each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Most sessions at once.
    pub sessions: u32,
    /// Most messages in a minute.
    pub messages_per_minute: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { sessions: 20, messages_per_minute: 120 }
    }
}

/// The addresses that have a session, or had one lately.
#[derive(Debug)]
pub(super) struct ClientTable {
    limits: ClientLimits,
    clients: HashMap<IpAddr, Client>,
    /// The sessions that are not settled, in the order in which they came.
    unsettled: BTreeMap<u64, Unsettled>,
    next: u64,
}

/// A session whose client has neither logged in nor begun a message.
#[derive(Debug)]
struct Unsettled {
    address: IpAddr,
    /// It is served; until then there is nothing to gain from its end.
    is_served: bool,
    /// Set when it has to give way.
    gives_way: watch::Sender<bool>,
}

#[derive(Debug)]
struct Client {
    sessions: u32,
    messages: u32,
    /// When `messages` counts from zero again.
    until: Instant,
    /// Until when it is one from which somebody has logged in lately.
    logged_in_until: Instant,
}

impl Client {
    fn new(now: Instant) -> Self {
        Self { sessions: 0, messages: 0, until: now, logged_in_until: now }
    }
}

impl ClientTable {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self { limits, clients: HashMap::new(), unsettled: BTreeMap::new(), next: 0 }
    }

    /// Counts a session: its number, and what becomes true when it has to give way. None, and not counted, when the address has as many
    /// as it may.
    pub(super) fn open(&mut self, address: IpAddr, now: Instant) -> Option<(u64, watch::Receiver<bool>)> {
        self.make_room(now);
        let address = network(address);
        let client = self.clients.entry(address).or_insert_with(|| Client::new(now));
        if client.sessions >= self.limits.sessions {
            return None;
        }
        client.sessions += 1;
        let (gives_way, asked) = watch::channel(false);
        self.next += 1;
        self.unsettled.insert(self.next, Unsettled { address, is_served: false, gives_way });
        Some((self.next, asked))
    }

    /// A session is served from now on.
    pub(super) fn served(&mut self, session: u64) {
        if let Some(session) = self.unsettled.get_mut(&session) {
            session.is_served = true;
        }
    }

    /// A session gives way to nobody any more; false when it has to already.
    pub(super) fn settle(&mut self, session: u64) -> bool {
        self.unsettled.remove(&session).is_some()
    }

    /// Somebody has logged in from this address.
    pub(super) fn logged_in(&mut self, address: IpAddr, now: Instant) {
        if let Some(client) = self.clients.get_mut(&network(address)) {
            client.logged_in_until = now + LOGGED_IN;
        }
    }

    /// Whether somebody has logged in from this address lately.
    pub(super) fn has_logged_in(&self, address: IpAddr, now: Instant) -> bool {
        self.clients.get(&network(address)).is_some_and(|client| client.logged_in_until > now)
    }

    /// Tells one session to give way to one of this address, if there is one that has to.
    pub(super) fn make_way(&mut self, address: IpAddr, now: Instant) {
        if let Some(session) = self.gives_way_to(network(address), now)
            && let Some(session) = self.unsettled.remove(&session)
        {
            session.gives_way.send_replace(true);
        }
    }

    fn gives_way_to(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for session in self.unsettled.values() {
            *counts.entry(session.address).or_default() += 1;
        }
        let rank =
            |address: &IpAddr| (self.has_logged_in(*address, now), Reverse(counts.get(address).copied()));
        let others = self.unsettled.iter().filter(|(_, other)| other.is_served && other.address != address);
        // The first of equals, which is the oldest.
        let (session, other) = others.min_by_key(|(_, other)| rank(&other.address))?;
        (rank(&other.address) <= rank(&address)).then_some(*session)
    }

    /// A session that was counted has ended.
    pub(super) fn close(&mut self, session: u64, address: IpAddr, now: Instant) {
        self.unsettled.remove(&session);
        let address = network(address);
        if let Some(client) = self.clients.get_mut(&address) {
            client.sessions = client.sessions.saturating_sub(1);
            if client.sessions == 0 && client.until <= now && client.logged_in_until <= now {
                self.clients.remove(&address);
            }
        }
    }

    /// Counts a message.
    pub(super) fn message(&mut self, address: IpAddr, now: Instant) {
        if let Some(client) = self.clients.get_mut(&network(address)) {
            if client.until <= now {
                (client.messages, client.until) = (0, now + WINDOW);
            }
            client.messages = client.messages.saturating_add(1);
        }
    }

    /// Whether the address has sent as many messages as it may for now.
    pub(super) fn is_throttled(&self, address: IpAddr, now: Instant) -> bool {
        let client = self.clients.get(&network(address));
        client.is_some_and(|client| client.until > now && client.messages >= self.limits.messages_per_minute)
    }

    fn make_room(&mut self, now: Instant) {
        if self.clients.len() < MAX_REMEMBERED {
            return;
        }
        let is_open = |client: &Client| client.sessions > 0;
        let has_logged_in = |client: &Client| client.logged_in_until > now;
        self.clients.retain(|_, client| is_open(client) || has_logged_in(client) || client.until > now);
        if self.clients.len() >= MAX_REMEMBERED {
            self.clients.retain(|_, client| is_open(client) || has_logged_in(client));
        }
        if self.clients.len() >= MAX_REMEMBERED {
            self.clients.retain(|_, client| is_open(client));
        }
    }
}

/// What counts as one address: a machine has a whole /64 of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ClientLimits = ClientLimits { sessions: 2, messages_per_minute: 3 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Opens a session that is served.
    fn serve(table: &mut ClientTable, client: &str, now: Instant) -> Option<(u64, watch::Receiver<bool>)> {
        let (session, asked) = table.open(address(client), now)?;
        table.served(session);
        Some((session, asked))
    }

    #[test]
    fn an_address_has_so_many_sessions_at_once_and_others_do_not_count() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        let (first, _) = serve(&mut table, "10.0.0.1", now).unwrap();
        assert!(serve(&mut table, "::ffff:10.0.0.1", now).is_some());
        assert!(serve(&mut table, "10.0.0.1", now).is_none() && serve(&mut table, "10.0.0.2", now).is_some());
        table.close(first, address("10.0.0.1"), now);
        assert!(serve(&mut table, "10.0.0.1", now).is_some() && serve(&mut table, "10.0.0.1", now).is_none());
    }

    #[test]
    fn an_address_sends_so_many_messages_in_a_minute_over_all_of_its_sessions() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        let (one, same) = (address("fd00::1:2:3:4"), address("fd00::5:6:7:8"));
        let (session, _) = table.open(one, now).unwrap();
        for _ in 0..3 {
            assert!(!table.is_throttled(same, now));
            table.message(same, now);
        }
        assert!(table.is_throttled(one, now) && !table.is_throttled(address("fd00:1::1"), now));
        table.close(session, one, now);
        table.open(one, now + WINDOW / 2);
        assert!(table.is_throttled(one, now + WINDOW / 2), "a new session is no new minute");
        assert!(!table.is_throttled(one, now + WINDOW));
    }

    const MANY: ClientLimits = ClientLimits { sessions: 20, messages_per_minute: 3 };

    #[test]
    fn the_oldest_session_of_the_address_that_has_most_gives_way() {
        let (mut table, now) = (ClientTable::new(MANY), Instant::now());
        let one = serve(&mut table, "10.0.0.1", now).unwrap();
        let two: Vec<_> = (0..3).map(|_| serve(&mut table, "10.0.0.2", now).unwrap()).collect();
        let newcomer = table.open(address("10.0.0.3"), now).unwrap();
        for ended in [0, 1] {
            table.make_way(address("10.0.0.3"), now);
            assert!(*two[ended].1.borrow() && !*two[2].1.borrow() && !*one.1.borrow());
            assert!(!table.settle(two[ended].0), "it has to, whatever happens");
        }
        // Each has one: the oldest of all.
        table.make_way(address("10.0.0.3"), now);
        assert!(*one.1.borrow() && !*two[2].1.borrow());
        table.make_way(address("10.0.0.3"), now);
        table.make_way(address("10.0.0.3"), now);
        assert!(*two[2].1.borrow() && !*newcomer.1.borrow(), "nobody gives way to itself");
    }

    #[test]
    fn nobody_gives_way_to_an_address_that_has_more_and_who_is_settled_to_nobody() {
        let (mut table, now) = (ClientTable::new(MANY), Instant::now());
        let one = serve(&mut table, "10.0.0.1", now).unwrap();
        let _two: Vec<_> = (0..2).map(|_| table.open(address("10.0.0.2"), now)).collect();
        table.make_way(address("10.0.0.2"), now);
        assert!(!*one.1.borrow());
        let waiting = table.open(address("10.0.0.3"), now).unwrap();
        assert!(table.settle(one.0));
        table.make_way(address("10.0.0.4"), now);
        assert!(!*one.1.borrow() && !*waiting.1.borrow(), "who is not served has nothing to give");
    }

    #[test]
    fn whoever_has_logged_in_lately_comes_first() {
        let (mut table, now) = (ClientTable::new(MANY), Instant::now());
        let known: Vec<_> = (0..2).map(|_| serve(&mut table, "10.0.0.1", now).unwrap()).collect();
        table.logged_in(address("10.0.0.1"), now);
        table.open(address("10.0.0.2"), now);
        table.make_way(address("10.0.0.2"), now);
        assert!(!*known[0].1.borrow(), "it has more, but it is known");
        let other = serve(&mut table, "10.0.0.3", now).unwrap();
        table.make_way(address("10.0.0.1"), now);
        assert!(*other.1.borrow());
        assert!(
            table.has_logged_in(address("10.0.0.1"), now) && !table.has_logged_in(address("10.0.0.3"), now)
        );
        assert!(!table.has_logged_in(address("10.0.0.1"), now + LOGGED_IN));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nobody_with_a_session_is_forgotten() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        let (session, _) = table.open(address("192.0.2.1"), now).unwrap();
        let (known, _) = table.open(address("192.0.2.2"), now).unwrap();
        table.logged_in(address("192.0.2.2"), now);
        table.close(known, address("192.0.2.2"), now);
        for number in 0..3 * u32::try_from(MAX_REMEMBERED).unwrap() {
            let client = IpAddr::V4(number.into());
            let (session, _) = table.open(client, now).unwrap();
            table.message(client, now);
            table.close(session, client, now);
        }
        assert!(table.clients.len() <= MAX_REMEMBERED && table.clients.contains_key(&address("192.0.2.1")));
        assert!(table.has_logged_in(address("192.0.2.2"), now), "nor who has logged in");
        table.close(session, address("192.0.2.1"), now);
        assert!(!table.clients.contains_key(&address("192.0.2.1")) && table.unsettled.is_empty());
    }
}
