//! Listens on loopback, where what may send mail is what runs in this pod; or on an address of the network.
//!
//! Owns the number of sessions and the way in and out: binding, refusing when full, stopping.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection;
use super::network::{Entered, Network};
use super::{Refusal, Service};
use crate::net::is_absent;
use crate::smtp::answer::Answer;

/// How long to leave a listener alone that cannot accept: out of file descriptors, mostly, and then only the end of
/// some session helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets that applications connect to.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

/// Why the local port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "port {0} of this pod is in use: another container listens there, perhaps without declaring the port; \
         have it listen on another one, or set another spec.listen.port in the MailRoute, or the annotation \
         mailroute.dev/sidecar-port in the pod template"
    )]
    Taken(u16),
    /// Ports below 1024 need a sysctl.
    #[error(
        "port {0} may not be used without privileges; set the pod's sysctl net.ipv4.ip_unprivileged_port_start to {0} \
         or below (the operator does), or a spec.listen.port above 1023 in the MailRoute"
    )]
    NotAllowed(u16),
    /// Neither 127.0.0.1 nor ::1 exists here.
    #[error("there is no loopback address to listen on")]
    NoLoopback,
    /// Anything else.
    #[error("cannot listen on port {port}")]
    Other {
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
}

impl Listeners {
    /// Listens on `port` of 127.0.0.1 and of ::1, as far as the machine has them. Port 0 takes one that is free, the
    /// same on both.
    ///
    /// # Errors
    /// When one of the two exists and cannot be used, or none exists: half a listener would be found by half of the
    /// clients only.
    pub async fn bind(port: u16) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        let mut port = port;
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            if let Some(listener) = bind_one(SocketAddr::new(address, port)).await? {
                port = listener.local_addr().map_err(|source| BindError::Other { port, source })?.port();
                listeners.push(listener);
            }
        }
        if listeners.is_empty() { Err(BindError::NoLoopback) } else { Ok(Self(listeners)) }
    }

    /// Listens on one address for the network. `[::]` is every address, also where the machine has no IPv6.
    ///
    /// # Errors
    /// When it cannot be used.
    pub async fn bind_network(address: SocketAddr) -> io::Result<Self> {
        let bound = match TcpListener::bind(address).await {
            Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_absent(&error) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            bound => bound,
        };
        bound.map(|listener| Self(vec![listener]))
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The next client of any listener.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| {
            let ready = self.0.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
            ready.unwrap_or(Poll::Pending)
        })
        .await
    }
}

/// `None` when the machine does not have the address.
async fn bind_one(address: SocketAddr) -> Result<Option<TcpListener>, BindError> {
    let port = address.port();
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(BindError::Taken(port)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(BindError::NotAllowed(port)),
        Err(source) => Err(BindError::Other { port, source }),
    }
}

/// Most clients that were let in and wait for a session to end. What they send meanwhile is in the kernel's memory, 128 KiB
/// each, which counts as the container's. More wait in the kernel's queue of connections, which does not.
const MAX_WAITING: usize = 100;

/// Serves clients until `stop` becomes true, or its sender is gone. Then no new ones are let in, sessions between
/// messages are ended with 421, those in a message after its answer; and when the last one has ended, this returns.
///
/// Clients beyond the number of `sessions` wait, in the order in which they came, and are told 421 when that takes too
/// long: applications that send a hundred messages at once would fail where a second's wait is all that is needed. Where the
/// number falls, open sessions go on.
pub async fn serve(
    listeners: Listeners,
    service: Service,
    sessions_at_once: watch::Receiver<usize>,
    stop: watch::Receiver<bool>,
) {
    serve_all(listeners, service, None, sessions_at_once, stop).await;
}

/// The same for clients of the network. An address with as many sessions as it may have does not wait. Where others wait, sessions whose
/// clients have neither logged in nor begun a message give way, as [`super::clients`] says.
pub async fn serve_network(
    listeners: Listeners,
    service: Service,
    network: Arc<Network>,
    sessions_at_once: watch::Receiver<usize>,
    stop: watch::Receiver<bool>,
) {
    serve_all(listeners, service, Some(network), sessions_at_once, stop).await;
}

async fn serve_all(
    listeners: Listeners,
    service: Service,
    network: Option<Arc<Network>>,
    mut sessions_at_once: watch::Receiver<usize>,
    mut stop: watch::Receiver<bool>,
) {
    let service = Arc::new(service);
    let mut permits = ResizableSemaphore::new(*sessions_at_once.borrow_and_update());
    let places = Arc::new(Semaphore::new(MAX_WAITING));
    let mut sessions = JoinSet::<Option<OwnedSemaphorePermit>>::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listeners, &places) => accepted,
            Some(ended) = sessions.join_next() => {
                match ended {
                    Ok(permit) => permit.into_iter().for_each(|permit| permits.give_back(permit)),
                    Err(error) => {
                        tracing::error!(%error, "a session ended abnormally; the others continue");
                    }
                }
                continue;
            }
            Ok(()) = sessions_at_once.changed() => {
                permits.resize(*sessions_at_once.borrow_and_update());
                continue;
            }
            _ = stop.wait_for(|&stop| stop) => break,
        };
        let (place, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        let entered = network.as_ref().map(|network| network.enter(peer));
        let Some(entered) = entered.map_or(Some(None), |entered| entered.map(Some)) else {
            refuse(&stream, Answer::TooManySessionsOfClient, &service);
            continue;
        };
        let (room, service, stop) = (Arc::clone(&permits.free), Arc::clone(&service), stop.clone());
        sessions.spawn(async move {
            match permit(room, service.limits.wait, entered.as_ref(), stop.clone()).await {
                Ok(permit) => {
                    drop(place);
                    entered.iter().for_each(Entered::served);
                    connection::run(stream, peer, service, entered, stop).await;
                    Some(permit)
                }
                Err(answer) => {
                    refuse(&stream, answer, &service);
                    None
                }
            }
        });
    }
    drop(listeners);
    while sessions.join_next().await.is_some() {}
}

/// A permit for each session that there may be; their number can change.
struct ResizableSemaphore {
    free: Arc<Semaphore>,
    size: usize,
    /// Sessions that are open beyond the size, since it fell: as many permits are not used again.
    beyond: usize,
}

impl ResizableSemaphore {
    fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), size, beyond: 0 }
    }

    fn resize(&mut self, size: usize) {
        if size < self.size {
            let fewer = self.size - size;
            self.beyond += fewer - self.free.forget_permits(fewer);
        } else {
            let more = size - self.size;
            let kept = more.min(self.beyond);
            self.beyond -= kept;
            self.free.add_permits(more - kept);
        }
        self.size = size;
    }

    /// A session has ended.
    fn give_back(&mut self, permit: OwnedSemaphorePermit) {
        if self.beyond > 0 {
            self.beyond -= 1;
            permit.forget();
        }
    }
}

/// The next client, as soon as there is a place for one that waits.
async fn next(
    listeners: &Listeners,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listeners.accept().await?;
    Ok((place, stream, peer))
}

/// A place among the sessions, or what to answer instead. Where there is none, sessions of other addresses give way that are not settled.
async fn permit(
    room: Arc<Semaphore>,
    wait: Duration,
    entered: Option<&Entered>,
    mut stop: watch::Receiver<bool>,
) -> Result<OwnedSemaphorePermit, Answer> {
    let make_way = async {
        match entered {
            Some(entered) => entered.make_way().await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        permit = timeout(wait, room.acquire_owned()) => {
            permit.ok().and_then(Result::ok).ok_or(Answer::TooManySessions)
        }
        _ = stop.wait_for(|&stop| stop) => Err(Answer::ShuttingDown),
        never = make_way => match never {},
    }
}

/// Says why in place of the greeting. Nothing was sent on this connection yet, so its buffer has room.
fn refuse(stream: &TcpStream, answer: Answer, service: &Service) {
    if answer.row().refusal == Some(Refusal::Sessions) {
        service.observer.refused(Refusal::Sessions);
    }
    if let Err(error) = stream.try_write(answer.reply().to_string().as_bytes()) {
        tracing::debug!(%error, "a refused client had already disconnected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        let addresses = Listeners::bind(0).await.unwrap().addresses();
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
    }

    #[tokio::test]
    async fn fewer_sessions_count_once_those_that_are_open_have_ended() {
        let mut permits = ResizableSemaphore::new(3);
        let take = |permits: &ResizableSemaphore| Arc::clone(&permits.free).try_acquire_owned().ok();
        let (first, second) = (take(&permits).unwrap(), take(&permits).unwrap());
        permits.resize(1);
        assert_eq!((permits.free.available_permits(), permits.beyond), (0, 1));
        permits.give_back(first);
        assert!(take(&permits).is_none(), "one is open, and one is allowed");
        permits.give_back(second);
        let third = take(&permits).unwrap();
        permits.resize(2);
        assert!(take(&permits).is_some());
        permits.resize(1);
        permits.resize(3);
        permits.give_back(third);
        assert_eq!((permits.free.available_permits(), permits.beyond), (3, 0));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_remedy() {
        let taken = Listeners::bind(0).await.unwrap();
        let port = taken.addresses()[0].port();
        let error = Listeners::bind(port).await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("spec.listen.port"), "{error}");
    }
}
