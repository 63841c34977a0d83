//! The HTTP port for Prometheus and people: `/livez`, `/readyz`, `/metrics`.
//!
//! Every pod of the cluster can connect to it. So no answer has a secret, an address, or words that came from elsewhere;
//! no body is taken; connections are few, few of one address, and short. The kubelet's probe has a socket of its own
//! ([`crate::cli::health_check`]), and asks here only where the spool's volume cannot hold one: for that, connections from loopback
//! are counted apart, so that no other pod can keep the probe out.
//!
//! * `/livez`: the local listener is serving. Nothing about Microsoft: a restart would not mend that.
//! * `/readyz`: mail can flow as far as is known, else 503 with the condition that stands in the way and its reason. For
//!   people and tests; no probe of the pod uses it. What exactly was met is in the log and in the route's status.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::attempt::lanes::Lanes;
use crate::config::Config;
use crate::lock;
use crate::metrics::Metrics;
use crate::net::is_absent;
use crate::outcome::health::Health;
use crate::queue::Queue;

/// Connections at a time from outside the pod: some scrapers and people.
const MAX_CONNECTIONS: usize = 32;

/// Connections at a time from one address; all loopback addresses are one.
const MAX_OF_ONE: usize = 8;

/// For a request to be there.
const REQUEST: Duration = Duration::from_secs(3);

/// Longest life of a connection; one request each.
const LIFE: Duration = Duration::from_secs(10);

/// How long to leave a listener alone that cannot accept: out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`. `[::]` is every address of both families, or of IPv4 where the machine has no IPv6.
///
/// # Errors
/// When it cannot be listened on.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_absent(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// What the port tells about.
#[derive(Clone)]
pub struct Admin {
    /// Whether the local listener is serving.
    pub serving: Arc<AtomicBool>,
    /// The configuration.
    pub config: watch::Receiver<Config>,
    /// What was met.
    pub health: watch::Receiver<Health>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The mailboxes' budgets, of which the metrics tell.
    pub lanes: Arc<Lanes>,
    /// The queue, of which the metrics tell, too.
    pub queue: Arc<Queue>,
}

impl Admin {
    /// Serves until `stop`.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let peers = Arc::new(Peers::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|&stop| stop) => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Over a limit a connection is closed unanswered; the caller comes again.
            if let Some(counted) = peers.enter(peer.ip()) {
                let admin = self.clone();
                tokio::spawn(async move {
                    admin.connection(stream).await;
                    drop(counted);
                });
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let response = self.respond(&request);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST)
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        // A peer that goes away is its own affair.
        let _ = tokio::time::timeout(LIFE, connection).await;
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/livez" => self.live(),
            "/readyz" => self.ready(),
            "/metrics" => {
                self.metrics.show_budget(self.lanes.view());
                self.metrics.show_queue(self.queue.figures());
                let body = self.metrics.render(&self.health.borrow());
                content(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body.into())
            }
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n"),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        if self.serving.load(Ordering::Relaxed) {
            text(StatusCode::OK, "ok\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "the local listener is not serving\n")
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let (config, health) = (self.config.borrow(), self.health.borrow());
        let trouble = match (&config.route, health.trouble()) {
            (None, _) => Some("no valid route\n".to_owned()),
            (_, Some(met)) => Some(format!("{} {}\n", met.condition, met.reason)),
            _ if !health.is_well() => Some("no connection to the upstream was tried yet\n".to_owned()),
            _ => None,
        };
        match trouble {
            Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, trouble),
            None => text(StatusCode::OK, "ok\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    content(status, "text/plain; charset=utf-8", body.into())
}

fn content(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

/// The connections that are open.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// A connection that is open. Ends with it.
struct Counted {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        lock(&self.0)
    }

    /// Counts one more connection of `peer`, unless there are too many of it, or of all that are outside the pod.
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        let peer = one(peer);
        let mut open = self.open();
        let outside: usize =
            open.iter().filter(|(peer, _)| !peer.is_loopback()).map(|(_, count)| count).sum();
        let is_full = !peer.is_loopback() && outside >= MAX_CONNECTIONS;
        let of_peer = open.get(&peer).copied().unwrap_or(0);
        if is_full || of_peer >= MAX_OF_ONE {
            return None;
        }
        open.insert(peer, of_peer + 1);
        drop(open);
        Some(Counted { peers: Arc::clone(self), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        match open.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = open.remove(&self.peer),
        }
    }
}

/// The address that counts: IPv4 as such also on a socket of both families, and one for all of loopback, of which a
/// program may use any.
fn one(peer: IpAddr) -> IpAddr {
    let peer = peer.to_canonical();
    if peer.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { peer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        format!("10.0.{}.{}", n / 200, n % 200).parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_the_connections_of_others() {
        let peers = Arc::new(Peers::default());
        let mut open: Vec<_> = (0..MAX_OF_ONE).map(|_| peers.enter(address(1)).unwrap()).collect();
        assert!(peers.enter(address(1)).is_none());
        assert!(
            peers.enter("::ffff:10.0.0.1".parse().unwrap()).is_none(),
            "the same address in another dress"
        );
        assert!(peers.enter(address(2)).is_some());
        open.pop();
        assert!(peers.enter(address(1)).is_some(), "one that ended makes room");
        drop(open);
        assert!(peers.open().is_empty(), "nothing is remembered of those who left");
    }

    #[test]
    fn no_number_of_addresses_takes_loopbacks_connections() {
        let peers = Arc::new(Peers::default());
        let open: Vec<_> = (0..1000).filter_map(|n| peers.enter(address(n))).collect();
        assert_eq!(open.len(), MAX_CONNECTIONS);
        let local: Vec<_> = (1..=200)
            .filter_map(|n| peers.enter(format!("127.0.0.{n}").parse().unwrap()))
            .chain(peers.enter("::1".parse().unwrap()))
            .collect();
        assert_eq!(local.len(), MAX_OF_ONE, "all of loopback is one peer");
    }
}
