//! What each client address may hold of a listener for the network: sessions at once, and messages a minute.
//!
//! Pure: time is passed in. Memory is bounded by the sessions and `MAX_REMEMBERED`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Most addresses without a session that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// The time in which messages are counted.
const WINDOW: Duration = Duration::from_secs(60);

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
}

#[derive(Debug)]
struct Client {
    sessions: u32,
    messages: u32,
    /// When `messages` counts from zero again.
    until: Instant,
}

impl ClientTable {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self { limits, clients: HashMap::new() }
    }

    /// Counts a session; false, and not counted, when the address has as many as it may.
    pub(super) fn open(&mut self, address: IpAddr, now: Instant) -> bool {
        self.make_room(now);
        let client =
            self.clients.entry(network(address)).or_insert(Client { sessions: 0, messages: 0, until: now });
        let has_room = client.sessions < self.limits.sessions;
        client.sessions += u32::from(has_room);
        has_room
    }

    /// A session that was counted has ended.
    pub(super) fn close(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if let Some(client) = self.clients.get_mut(&address) {
            client.sessions = client.sessions.saturating_sub(1);
            if client.sessions == 0 && client.until <= now {
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
        self.clients.retain(|_, client| client.sessions > 0 || client.until > now);
        if self.clients.len() >= MAX_REMEMBERED {
            self.clients.retain(|_, client| client.sessions > 0);
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

    #[test]
    fn an_address_has_so_many_sessions_at_once_and_others_do_not_count() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        assert!(table.open(one, now) && table.open(address("::ffff:10.0.0.1"), now));
        assert!(!table.open(one, now) && table.open(other, now));
        table.close(one, now);
        assert!(table.open(one, now) && !table.open(one, now));
    }

    #[test]
    fn an_address_sends_so_many_messages_in_a_minute_over_all_of_its_sessions() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        let (one, same) = (address("fd00::1:2:3:4"), address("fd00::5:6:7:8"));
        table.open(one, now);
        for _ in 0..3 {
            assert!(!table.is_throttled(same, now));
            table.message(same, now);
        }
        assert!(table.is_throttled(one, now) && !table.is_throttled(address("fd00:1::1"), now));
        table.close(one, now);
        table.open(one, now + WINDOW / 2);
        assert!(table.is_throttled(one, now + WINDOW / 2), "a new session is no new minute");
        assert!(!table.is_throttled(one, now + WINDOW));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nobody_with_a_session_is_forgotten() {
        let (mut table, now) = (ClientTable::new(LIMITS), Instant::now());
        table.open(address("192.0.2.1"), now);
        for number in 0..3 * u32::try_from(MAX_REMEMBERED).unwrap() {
            let client = IpAddr::V4(number.into());
            table.open(client, now);
            table.message(client, now);
            table.close(client, now);
        }
        assert!(table.clients.len() <= MAX_REMEMBERED && table.clients.contains_key(&address("192.0.2.1")));
        table.close(address("192.0.2.1"), now);
        assert!(!table.clients.contains_key(&address("192.0.2.1")));
    }
}
