//! Which addresses a gateway has, and in which order they are tried.
//!
//! Pure, time and chance are passed in; apart from [`is_own`], which asks the system for a route and sends nothing.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use mailroute_route::paths::GATEWAY_PORT;

use crate::clock::Instant;

/// How long an address that did not answer is tried after the others: DNS may name a pod of a lost node for so long.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// Most addresses of which that is remembered.
const MAX_ADDRESSES: usize = 100;

/// Addresses that did not answer lately.
#[derive(Debug, Default)]
pub(super) struct Unresponsive(HashMap<SocketAddr, Instant>);

impl Unresponsive {
    /// The address did not answer.
    pub fn add(&mut self, address: SocketAddr, now: Instant) {
        self.0.retain(|_, since| now.saturating_duration_since(*since) < PASSED_OVER);
        if self.0.len() < MAX_ADDRESSES {
            self.0.insert(address, now);
        }
    }

    /// The address answers.
    pub fn remove(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }

    /// Whether the address did not answer lately.
    pub fn contains(&self, address: SocketAddr, now: Instant) -> bool {
        self.0.get(&address).is_some_and(|since| now.saturating_duration_since(*since) < PASSED_OVER)
    }

    /// Each address once, in an order that is another one each time; those that did not answer lately behind the others.
    pub fn ordered(
        &self,
        mut addresses: Vec<SocketAddr>,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) -> Vec<SocketAddr> {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.sort_by_cached_key(|address| {
            (self.contains(*address, now), (chance() * f64::from(u32::MAX)) as u32)
        });
        addresses
    }
}

/// The host of a gateway, and its port where it names one.
pub(super) fn host_and_port(text: &str) -> (&str, u16) {
    let named = text.rsplit_once(':').filter(|(host, _)| !host.contains(':'));
    named.and_then(|(host, port)| Some((host, port.parse().ok()?))).unwrap_or((text, GATEWAY_PORT))
}

/// Whether an address is one of this pod: packets to it would leave from that same address.
pub(super) fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 9026).into()
    }

    #[test]
    fn each_address_is_tried_once_in_an_order_by_chance() {
        let found = vec![address(1), address(2), address(1), address(3), address(2)];
        let mut chances = [0.9, 0.1, 0.5].into_iter();
        let ordered = Unresponsive::default().ordered(found, clock::now(), || chances.next().unwrap());
        assert_eq!(ordered, [address(2), address(3), address(1)]);
    }

    #[test]
    fn one_that_did_not_answer_lately_is_the_last() {
        let (mut silent, start) = (Unresponsive::default(), clock::now());
        silent.add(address(1), start);
        silent.add(address(2), start);
        silent.remove(address(2));
        let ordered = |silent: &Unresponsive, now| {
            let mut chance = 0.0;
            let found = vec![address(1), address(2), address(3)];
            silent.ordered(found, now, || {
                chance += 0.1;
                chance
            })
        };
        assert_eq!(ordered(&silent, start), [address(2), address(3), address(1)]);
        let later = start + PASSED_OVER;
        assert_eq!(ordered(&silent, later), [address(1), address(2), address(3)]);
        silent.add(address(3), later);
        assert_eq!(silent.0.len(), 1, "what is over takes no room");
    }

    #[test]
    fn a_host_may_name_a_port() {
        assert_eq!(host_and_port("mail.shop.svc"), ("mail.shop.svc", GATEWAY_PORT));
        assert_eq!(host_and_port("localhost:1234"), ("localhost", 1234));
        assert_eq!(host_and_port("::1"), ("::1", GATEWAY_PORT));
    }

    #[test]
    fn an_address_of_this_machine_is_its_own_and_another_is_not() {
        assert!(is_own(([127, 0, 0, 1], 9026).into()));
        assert!(!is_own(([192, 0, 2, 1], 9026).into()));
    }
}
