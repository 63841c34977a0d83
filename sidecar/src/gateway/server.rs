//! Takes messages over from the sidecars of the route, and from its other gateways.
//!
//! Owns who is let in, how many at a time, and which messages are coming in. What is said over one connection is in
//! `session`.
//!
//! Bounds: `MAX_CONNECTIONS`, of them `MAX_OF_ONE` from one address; more wait in the kernel's queue of connections. Each takes some
//! 200 KiB at most, and all heads together `HEADS_KIB`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::identity::{Identity, Peer};
use super::session::Session;
use crate::clock;
use crate::lock;
use crate::logging::faults::{Due, Repeated};
use crate::message::body::Scratch;
use crate::message::envelope::QueueId;
use crate::metrics::Metrics;
use crate::queue::Queue;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 100;

/// Connections at a time from one address: a sidecar has [`super::client::CONNECTIONS`], and one that has just ended may still be counted.
const MAX_OF_ONE: usize = 8;

/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long to leave a listener alone that cannot accept: out of file descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the heads and progresses of messages that come in take together, KiB. The largest pair has 8 MiB.
const HEADS_KIB: u32 = 12 * 1024;

/// Longest wait for room for them: one peer that is slow must not hold up all others.
const ROOM: Duration = Duration::from_secs(10);

/// What a gateway takes messages over with.
pub struct GatewayServer {
    /// Its certificate, and whose it accepts.
    pub identity: Arc<Identity>,
    /// Where messages go.
    pub queue: Arc<Queue>,
    /// Where large ones are while they come in.
    pub scratch: Arc<dyn Scratch>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Set while it serves.
    pub serving: Arc<AtomicBool>,
    /// It is about to end: it takes nothing from other gateways, which may be ending as well.
    pub ending: watch::Receiver<bool>,
}

/// What the sessions share.
pub(super) struct Shared {
    pub queue: Arc<Queue>,
    pub scratch: Arc<dyn Scratch>,
    pub metrics: Arc<Metrics>,
    pub ending: watch::Receiver<bool>,
    identity: Arc<Identity>,
    /// Messages that are coming in.
    incoming: Mutex<HashSet<QueueId>>,
    heads: HeadRoom,
    /// Lines about connections that are not served, which others may cause at will.
    lines: Mutex<Repeated>,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to take one message in: no other session does meanwhile.
pub(super) struct Incoming<'a> {
    shared: &'a Shared,
    id: QueueId,
}

/// One connection of an address.
struct Counted {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl GatewayServer {
    /// Serves until `stop`; then sessions end after the message that they are in.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let Self { identity, queue, scratch, metrics, serving, ending } = self;
        metrics.show_take_overs();
        let shared = Arc::new(Shared {
            queue,
            scratch,
            metrics,
            ending,
            identity,
            incoming: Mutex::default(),
            heads: HeadRoom::default(),
            lines: Mutex::default(),
            peers: Mutex::default(),
        });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut sessions = JoinSet::new();
        serving.store(true, Ordering::Relaxed);
        loop {
            let accepted = tokio::select! {
                accepted = next(&listener, &places) => accepted,
                Some(ended) = sessions.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a session ended abnormally; the others continue");
                    }
                    continue;
                }
                _ = stop.wait_for(|&stop| stop) => break,
            };
            let (place, stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over the limit it is closed unanswered; the caller comes again.
            if let Some(counted) = shared.enter(address.ip()) {
                let stop = stop.clone();
                sessions.spawn(async move {
                    counted.shared.session(stream, address, stop).await;
                    drop((counted, place));
                });
            }
        }
        serving.store(false, Ordering::Relaxed);
        drop(listener);
        while sessions.join_next().await.is_some() {}
    }
}

/// The next connection, as soon as there is a place for one.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((place, stream, address))
}

impl Shared {
    /// Counts a connection, unless its address has as many as it may have.
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Counted> {
        let ip = ip.to_canonical();
        let mut peers = lock(&self.peers);
        let open = peers.entry(ip).or_default();
        if *open >= MAX_OF_ONE {
            return None;
        }
        *open += 1;
        Some(Counted { shared: Arc::clone(self), ip })
    }

    async fn session(&self, stream: TcpStream, address: SocketAddr, stop: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        let config = match self.identity.server() {
            Ok(config) => config,
            Err(error) => {
                if let Some(Due { repeated }) = self.line() {
                    tracing::warn!(%address, repeated, %error, "a connection cannot be served");
                }
                return;
            }
        };
        let accepted = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                if let Some(Due { repeated }) = self.line() {
                    tracing::info!(%address, repeated, %error, "the TLS handshake failed");
                }
                return;
            }
            Err(_) => return tracing::debug!(%address, "the TLS handshake takes too long"),
        };
        let peer: Peer = match self.identity.peer(stream.get_ref().1.peer_certificates()) {
            Ok(peer) => peer,
            Err(error) => {
                if let Some(Due { repeated }) = self.line() {
                    tracing::warn!(%address, repeated, %error, "a connection was refused");
                }
                return;
            }
        };
        if let Err(error) = Session::new(stream, peer, self).run(stop).await {
            tracing::debug!(%address, %error, "a session ended");
        }
    }

    /// The right to take a message in; nothing while another session has it.
    pub fn incoming(&self, id: &QueueId) -> Option<Incoming<'_>> {
        lock(&self.incoming).insert(id.clone()).then(|| Incoming { shared: self, id: id.clone() })
    }

    /// Room for a head and a progress of so many octets together; none when that takes too long.
    pub async fn room(&self, octets: usize) -> Option<SemaphorePermit<'_>> {
        self.heads.take(octets).await
    }

    /// Whether it is time for a line about a connection that is not served.
    fn line(&self) -> Option<Due> {
        lock(&self.lines).due(clock::now())
    }
}

/// Room in memory for heads and progresses.
struct HeadRoom(Semaphore);

impl Default for HeadRoom {
    fn default() -> Self {
        Self(Semaphore::new(HEADS_KIB as usize))
    }
}

impl HeadRoom {
    async fn take(&self, octets: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(octets.div_ceil(1024)).unwrap_or(HEADS_KIB).min(HEADS_KIB);
        timeout(ROOM, self.0.acquire_many(kib)).await.ok()?.ok()
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        lock(&self.shared.incoming).remove(&self.id);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut peers = lock(&self.shared.peers);
        if let Some(open) = peers.get_mut(&self.ip) {
            *open -= 1;
            if *open == 0 {
                peers.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_for_room_are_told_so_in_time() {
        let room = HeadRoom::default();
        let slow = room.take(8 << 20).await.unwrap();
        let start = clock::now();
        // The second large one waits, and everybody behind it.
        let (large, small) = tokio::join!(room.take(8 << 20), room.take(1024));
        assert!(large.is_none() && small.is_none(), "nobody waits for a peer that is slow");
        assert_eq!(start.elapsed(), ROOM);
        drop(slow);
        assert!(room.take(usize::MAX).await.is_some());
    }
}
