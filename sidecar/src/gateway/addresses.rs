//! Which addresses a gateway has, and in which order they are tried.
//!
//! Pure, apart from [`is_own`], which asks the system for a route and sends nothing.

use std::net::{SocketAddr, UdpSocket};

use mailroute_route::paths::GATEWAY_PORT;

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
