//! Names to TCP connections.
//!
//! A name with dots is looked up as absolute first: with a cluster's usual `ndots:5` the resolver would otherwise try
//! every search domain before `smtp.office365.com` itself, and a hostile search domain could answer. Relative names,
//! such as `smtp.m365.svc`, are looked up second.
//!
//! IPv4 is tried before IPv6: Exchange judges senders without reverse DNS on IPv6 more harshly.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Longest wait for the resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for one address to answer. A live server answers within a round trip; what is longer is a firewall.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most addresses that are tried.
const MAX_ADDRESSES: usize = 4;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or the resolver did not answer.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name asked for.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// No address took the connection.
    #[error("cannot connect to {host} ({address}): {source}")]
    Connect {
        /// The name asked for.
        host: String,
        /// The last address tried.
        address: SocketAddr,
        /// What came back.
        source: io::Error,
    },
}

/// Connects to the first address of `host` that takes the connection.
///
/// # Errors
/// When the name does not resolve or no address answers in time.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    connect_to(host, &resolve(host, port).await?).await
}

/// Connects to the first of `addresses`, which are those of `host`, that takes the connection.
///
/// # Errors
/// When none answers in time.
pub async fn connect_to(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut last = None;
    for &address in addresses.iter().take(MAX_ADDRESSES) {
        match timed(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(stream) => {
                // Commands are small and each waits for its reply.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(source) => last = Some(DialError::Connect { host: host.to_owned(), address, source }),
        }
    }
    Err(last.unwrap_or_else(|| unresolved(host, io::Error::other("the name has no address"))))
}

/// The addresses of `host`, IPv4 first.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let mut found = Err(io::Error::other("the name is empty"));
    for name in names(host) {
        found = timed(RESOLVE_TIMEOUT, lookup_host((name, port))).await.map(Iterator::collect::<Vec<_>>);
        if found.as_ref().is_ok_and(|addresses| !addresses.is_empty()) {
            break;
        }
    }
    let mut addresses = found.map_err(|source| unresolved(host, source))?;
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

/// The spellings to look up, in order.
fn names(host: &str) -> Vec<String> {
    let relative = host.trim_end_matches('.');
    if relative.contains('.') {
        vec![format!("{relative}."), relative.to_owned()]
    } else {
        vec![relative.to_owned()]
    }
}

fn unresolved(host: &str, source: io::Error) -> DialError {
    DialError::Resolve { host: host.to_owned(), source }
}

async fn timed<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_name_is_looked_up_as_absolute_first() {
        assert_eq!(names("smtp.office365.com"), ["smtp.office365.com.", "smtp.office365.com"]);
        assert_eq!(names("localhost"), ["localhost"]);
    }

    #[tokio::test]
    async fn a_closed_port_names_host_and_address() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = connect("127.0.0.1", free.port()).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { address, .. } if address == free), "{error}");
    }

    #[tokio::test]
    async fn ipv4_comes_first() {
        let addresses = resolve("localhost", 25).await.unwrap();
        assert!(addresses.first().is_some_and(SocketAddr::is_ipv4), "{addresses:?}");
    }
}
