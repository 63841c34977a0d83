//! Names to TCP connections.
//!
//! A name with dots is looked up as absolute first: with a cluster's usual `ndots:5` the resolver would otherwise try
//! every search domain before `smtp.office365.com` itself, and a hostile search domain could answer. Relative names,
//! such as `smtp.m365.svc`, are looked up second.
//!
//! The system's resolver blocks a thread, where name servers are silent for longer than anybody waits. So no more than
//! [`MAX_LOOK_UPS`] go on at a time, given up ones included: the other threads are the disk's.
//!
//! IPv4 is tried before IPv6: Exchange judges senders without reverse DNS on IPv6 more harshly.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::is_absent;

/// Look-ups of names that go on at a time; well below the threads that there are for what blocks.
pub const MAX_LOOK_UPS: usize = 2;

static LOOK_UPS: Semaphore = Semaphore::const_new(MAX_LOOK_UPS);

/// Longest wait for the resolver, and for those who asked it before.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for one address to answer. A live server answers within a round trip; what is longer is a firewall.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most addresses that are tried, not counting those that cannot be reached from here at all.
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
    let stream =
        first(host, addresses, |address| timed(CONNECT_TIMEOUT, TcpStream::connect(address))).await?;
    // Commands are small and each waits for its reply.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// What comes of the first address with which `connect` works. Those of a family that the pod does not have cost no time
/// and do not count: Microsoft's names have more addresses of IPv4 than are tried, and a pod may have IPv6 alone.
async fn first<T, F: Future<Output = io::Result<T>>>(
    host: &str,
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, DialError> {
    let (mut last, mut tried) = (None, 0);
    for &address in addresses {
        match connect(address).await {
            Ok(connected) => return Ok(connected),
            Err(source) => {
                tried +=
                    usize::from(!is_absent(&source) && source.kind() != io::ErrorKind::NetworkUnreachable);
                last = Some(DialError::Connect { host: host.to_owned(), address, source });
            }
        }
        if tried == MAX_ADDRESSES {
            break;
        }
    }
    Err(last.unwrap_or_else(|| unresolved(host, io::Error::other("the name has no address"))))
}

/// The addresses of `host`, IPv4 first.
///
/// # Errors
/// When the name does not resolve in time.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let mut found = Err(io::Error::other("the name is empty"));
    for name in names(host) {
        let looked_up = blocking(&LOOK_UPS, move || (name, port).to_socket_addrs().map(Vec::from_iter));
        found = timed(RESOLVE_TIMEOUT, looked_up).await;
        if found.as_ref().is_ok_and(|addresses| !addresses.is_empty()) {
            break;
        }
    }
    let mut addresses = found.map_err(|source| unresolved(host, source))?;
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

/// Does something that blocks, once `permits` allows it. Who no longer waits does not end it, and so it keeps its permit.
async fn blocking<T: Send + 'static>(
    permits: &'static Semaphore,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permit = permits.acquire().await.map_err(io::Error::other)?;
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    spawn_blocking(work).await.map_err(io::Error::other)?
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
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A look-up that ends when it is let.
    fn hanging(until: &Arc<Mutex<Receiver<()>>>) -> impl Future<Output = io::Result<()>> + use<> {
        static PERMITS: Semaphore = Semaphore::const_new(MAX_LOOK_UPS);
        let until = Arc::clone(until);
        blocking(&PERMITS, move || until.lock().unwrap().recv().map_err(io::Error::other))
    }

    #[test]
    fn look_ups_that_hang_leave_threads_to_the_disk() {
        let threads = MAX_LOOK_UPS + 1;
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(threads).build().unwrap();
        runtime.block_on(async {
            let (let_one_end, hang) = channel();
            let hang = Arc::new(Mutex::new(hang));
            let mut given_up: Vec<_> = (0..9).map(|_| Box::pin(hanging(&hang))).collect();
            for look_up in &mut given_up {
                assert!(futures::poll!(look_up).is_pending());
            }
            drop(given_up);
            let mut next = Box::pin(hanging(&hang));
            assert!(futures::poll!(&mut next).is_pending(), "those given up still have their threads");
            assert_eq!(spawn_blocking(|| "written").await.unwrap(), "written");
            (0..=MAX_LOOK_UPS).for_each(|_| let_one_end.send(()).unwrap());
            next.await.unwrap();
        });
    }

    #[test]
    fn a_full_name_is_looked_up_as_absolute_first() {
        assert_eq!(names("smtp.office365.com"), ["smtp.office365.com.", "smtp.office365.com"]);
        assert_eq!(names("localhost"), ["localhost"]);
    }

    #[tokio::test]
    async fn a_closed_port_names_host_and_address() {
        // Discard (RFC 863), where nobody listens.
        let closed: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let error = connect("127.0.0.1", closed.port()).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { address, .. } if address == closed), "{error}");
    }

    /// As many addresses of each family as Microsoft's names have.
    fn many() -> Vec<SocketAddr> {
        let of = |prefix: &'static str| (1..=8).map(move |n| format!("{prefix}{n}").parse().unwrap());
        of("192.0.2.").chain(of("2001:db8::")).map(|ip: IpAddr| SocketAddr::new(ip, 587)).collect()
    }

    #[tokio::test]
    async fn a_pod_with_ipv6_alone_reaches_a_name_with_many_addresses() {
        for kind in [io::ErrorKind::NetworkUnreachable, io::ErrorKind::AddrNotAvailable] {
            let connect = async |address: SocketAddr| {
                if address.is_ipv6() { Ok(address) } else { Err(io::Error::from(kind)) }
            };
            let reached = first("smtp.office365.com", &many(), connect).await.unwrap();
            assert_eq!(reached.to_string(), "[2001:db8::1]:587");
        }
    }

    #[tokio::test]
    async fn addresses_that_do_not_answer_are_tried_a_few_times_only() {
        let tried = Mutex::new(0);
        let connect = async |_| -> io::Result<()> {
            *tried.lock().unwrap() += 1;
            Err(io::ErrorKind::TimedOut.into())
        };
        first("smtp.office365.com", &many(), connect).await.unwrap_err();
        assert_eq!(*tried.lock().unwrap(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn ipv4_comes_first() {
        let addresses = resolve("localhost", 25).await.unwrap();
        assert!(addresses.first().is_some_and(SocketAddr::is_ipv4), "{addresses:?}");
    }
}
