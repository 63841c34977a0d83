//! Hands messages over to the gateway of the route.
//!
//! ```text
//!  message ─► an open connection, or a new one to an address of the gateway ─► XSPOOL ─► 250: the gateway answers for it
//!                  next address ◄── no connection, 4yz
//! ```
//!
//! Owns the connections, their number and times, and which address is tried. Refuses to know why a message is handed over, and
//! what becomes of one that is not.
//!
//! Invariants: a message is handed over only to who has shown a certificate of a gateway of this route; where a gateway may have a
//! message, since its answer was lost, no other gets it for ten seconds, nor later before that one was asked.

mod reach;
mod update;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::text::{chain, shortened};
use tokio::sync::{Semaphore, watch};

pub use self::update::Following;
use super::addresses::Unresponsive;
use super::connection::{Connection, ConnectionError, Sent};
use super::doubts::Doubts;
pub use super::error::HandOverError;
use super::identity::Identity;
pub use super::pool::CONNECTIONS;
use super::pool::Pool;
use super::protocol::{Command, Transfer};
use crate::clock;
use crate::lock;
use crate::logging::faults::{self, Due, FaultLog};
use crate::message::body::Body;
use crate::message::envelope::QueueId;
use crate::metrics::Metrics;
use crate::outcome::queued::HandOverOutcome;
use crate::smtp::reply::Reply;
use crate::spool::{Entry, Kept, Progress, Shelf, format};

/// Longest wait for one of the connections.
const TURN: Duration = Duration::from_secs(10);

/// Longest time until there is a connection, over all addresses.
const REACH: Duration = Duration::from_secs(4);

/// Longest time until there is a connection to one address.
const REACH_ONE: Duration = Duration::from_secs(2);

/// Most addresses that are tried for one message.
const MAX_ADDRESSES: usize = 4;

/// Longest text about what was met.
const MAX_TEXT_BYTES: usize = 300;

/// A message to hand over.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Whether it waits or was given up.
    pub shelf: Shelf,
    /// What never changes.
    pub entry: &'a Entry,
    /// How far it has come.
    pub progress: &'a Progress,
    /// Its octets.
    pub body: &'a Body,
}

impl<'a> From<&'a Kept> for Offer<'a> {
    fn from(Kept { shelf, entry, progress, body }: &'a Kept) -> Self {
        Self { shelf: *shelf, entry, progress, body }
    }
}

/// The gateways of the route, as this pod reaches them.
pub struct Gateways {
    identity: Arc<Identity>,
    /// The port on which this pod is a gateway itself: its own addresses are left out.
    own_port: Option<u16>,
    /// Addresses to dial whatever the route's host resolves to.
    fixed: Mutex<Option<Vec<SocketAddr>>>,
    metrics: Arc<Metrics>,
    places: Semaphore,
    open: Pool,
    doubts: Mutex<Doubts>,
    unresponsive: Mutex<Unresponsive>,
    /// What keeps hand-overs from working, as the log has it.
    faults: Mutex<FaultLog>,
    error: watch::Sender<Option<String>>,
    /// Attempts under way here of messages that a gateway has.
    followed: watch::Sender<usize>,
}

/// A message that is on its way to a gateway. Dropped before there is an answer, as when nobody waits any longer, the gateway may have
/// the message.
struct Unanswered<'a> {
    doubts: &'a Mutex<Doubts>,
    id: &'a QueueId,
    address: SocketAddr,
    is_answered: bool,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            lock(self.doubts).add(self.id, self.address, clock::now());
        }
    }
}

impl Gateways {
    /// The gateways of whatever route is in use. In a gateway, with the port that it listens on.
    pub fn new(identity: Arc<Identity>, own_port: Option<u16>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            identity,
            own_port,
            fixed: Mutex::default(),
            metrics,
            places: Semaphore::new(CONNECTIONS),
            open: Pool::default(),
            doubts: Mutex::default(),
            unresponsive: Mutex::default(),
            faults: Mutex::default(),
            error: watch::Sender::default(),
            followed: watch::Sender::default(),
        })
    }

    /// Dials these addresses from now on, instead of those of the route's host. For tests and measurements.
    pub fn dial(&self, addresses: Vec<SocketAddr>) {
        *lock(&self.fixed) = Some(addresses);
    }

    /// Whether the route has a gateway.
    pub fn is_there(&self) -> bool {
        self.identity.gateway().is_some()
    }

    /// Whether this pod is one of them.
    pub const fn is_one_of_them(&self) -> bool {
        self.own_port.is_some()
    }

    /// Why none could be reached last, or why this pod has no certificate for it; nothing while all is well.
    pub fn error(&self) -> watch::Receiver<Option<String>> {
        self.error.subscribe()
    }

    /// Hands a message over, and says to which gateway, which answers for it from now on.
    ///
    /// # Errors
    /// When none has said that it stored the message. One may have stored it all the same, if its answer was lost. When that gateway gets
    /// the message again, it does not store it a second time.
    pub async fn hand_over(&self, offer: Offer<'_>) -> Result<SocketAddr, HandOverError> {
        self.hand_over_before(offer, std::future::pending()).await
    }

    /// The same, but given up when `too_late` completes.
    ///
    /// # Errors
    /// As [`Gateways::hand_over`], and [`HandOverError::Time`].
    pub async fn hand_over_before(
        &self,
        offer: Offer<'_>,
        too_late: impl Future<Output = ()>,
    ) -> Result<SocketAddr, HandOverError> {
        let started = clock::now();
        let result = tokio::select! {
            biased;
            result = self.offer(offer) => result,
            () = too_late => Err(HandOverError::Time),
        };
        let outcome = result.as_ref().map_or_else(HandOverError::outcome, |_| HandOverOutcome::HandedOver);
        self.metrics.handed_over(outcome, started.elapsed());
        match &result {
            Ok(_) => {
                faults::write(lock(&self.faults).holds(&[ConditionType::GatewayReady], clock::now()));
                self.met(None);
            }
            Err(error) if error.is_of_message() => {}
            Err(error) => self.met(Some(error)),
        }
        result
    }

    /// Connects to a gateway and is greeted, without a message. Says whether one was reached; [`Gateways::error`] says why not.
    pub async fn greet(&self) -> bool {
        let result = self.greeted().await;
        self.met(result.as_ref().err());
        result.is_ok()
    }

    /// Whether it is time for a log line about a message that no gateway has stored. Those of thousands of messages would hide all others,
    /// so only what is about one message alone is always written.
    pub fn log_line(&self, error: &HandOverError) -> Option<Due> {
        if error.is_of_message() {
            return Some(Due { repeated: 0 });
        }
        lock(&self.faults).met(Reason::GatewayUnreachable, clock::now())
    }

    /// Whether there is something to report.
    pub fn has_error(&self) -> bool {
        self.error.borrow().is_some()
    }

    /// Reports this from now on.
    pub fn report(&self, error: Option<String>) {
        let text = error.map(|error| shortened(&error, MAX_TEXT_BYTES).into_owned());
        self.error.send_if_modified(|known| {
            let is_news = *known != text;
            *known = text;
            is_news
        });
    }

    async fn offer(&self, offer: Offer<'_>) -> Result<SocketAddr, HandOverError> {
        let Offer { shelf, entry, progress, body } = offer;
        let head = format::encode_entry(entry, body.len(), body.crc32())?;
        let state = format::encode_progress(progress)?;
        let id = &entry.envelope.id;
        let transfer =
            Transfer { id: id.clone(), shelf, head: head.len(), state: state.len(), message: body.len() };
        let command = Command::Spool(transfer);
        // A pod that has just started holds up no other message while it waits for its first certificate.
        self.identity.certified_by(clock::now() + REACH).await?;
        let _place = self.place().await?;
        let (parts, mut last, mut tried) = ([&head[..], &state], None, None);
        if let Some(open) = self.open.take(self.preferred(id), &self.identity.basis()?) {
            let address = open.address;
            match self.send(open, &command, parts, body, id).await {
                Ok(()) => return Ok(address),
                // It may have been closed for having nothing to do.
                Err(HandOverError::Unreachable { .. }) => {}
                Err(error) if error.is_of_message() => return Err(error),
                Err(error) => (tried, last) = (Some(address), Some(error)),
            }
        }
        let deadline = clock::now() + REACH;
        let addresses = self.addresses_for(id, deadline).await?.into_iter();
        let mut addresses: VecDeque<_> =
            addresses.filter(|address| Some(*address) != tried).take(MAX_ADDRESSES).collect();
        let mut once_more = true;
        while let Some(address) = addresses.pop_front() {
            let connection = match self.connect(address, deadline).await {
                Ok(connection) => connection,
                Err(error @ HandOverError::Identity(_)) => return Err(error),
                Err(error) => {
                    // "Not now" from one that is there says more than the silence of another.
                    last = Some(last.unwrap_or(error));
                    continue;
                }
            };
            match self.send(connection, &command, parts, body, id).await {
                Ok(()) => return Ok(address),
                Err(error) if error.is_of_message() => return Err(error),
                Err(error) => last = Some(error),
            }
            if self.doubt(id).is_some() {
                addresses.clear();
                addresses.extend(std::mem::take(&mut once_more).then_some(address));
            }
        }
        Err(last.unwrap_or(HandOverError::Nobody))
    }

    async fn send(
        &self,
        mut connection: Connection,
        command: &Command,
        parts: [&[u8]; 2],
        body: &Body,
        id: &QueueId,
    ) -> Result<(), HandOverError> {
        let address = connection.address;
        let unanswered = Unanswered { doubts: &self.doubts, id, address, is_answered: false };
        let sent = connection.send(command, &parts, Some(body)).await;
        unanswered.answered();
        match &sent {
            // All of it is there, and nobody knows whether it was stored.
            Err(ConnectionError { whole: true, .. }) => lock(&self.doubts).add(id, address, clock::now()),
            // "Not now" may mean that it is still being stored there.
            Ok(Sent::Reply(reply)) if reply.is_positive() || reply.is_permanent() => {
                lock(&self.doubts).settle(id);
            }
            Ok(_) | Err(_) => {}
        }
        self.answered(connection, sent)
    }

    /// What follows from an answer. The connection stays open where another command may follow.
    fn answered(
        &self,
        connection: Connection,
        sent: Result<Sent, ConnectionError>,
    ) -> Result<(), HandOverError> {
        let address = connection.address;
        match sent {
            Ok(Sent::Reply(reply)) if reply.is_positive() => {
                self.open.keep(connection);
                Ok(())
            }
            Ok(Sent::Reply(reply)) if reply.is_permanent() => {
                Err(HandOverError::Refused { address, reply: in_one_line(&reply) })
            }
            Ok(Sent::Reply(reply)) => {
                if reply.code != 421 {
                    self.open.keep(connection);
                }
                Err(HandOverError::Deferred { address, reply: in_one_line(&reply) })
            }
            Ok(Sent::Unread(error)) => Err(HandOverError::Body(error)),
            Err(error) => Err(unreachable(address, &error)),
        }
    }

    async fn greeted(&self) -> Result<(), HandOverError> {
        let deadline = clock::now() + REACH;
        let mut last = HandOverError::Nobody;
        for address in self.addresses(deadline).await?.into_iter().take(MAX_ADDRESSES) {
            match self.connect(address, deadline).await {
                Ok(connection) => {
                    connection.quit().await;
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Ends the connections that are open.
    pub async fn close(&self) {
        self.open.close().await;
    }

    /// The gateway that may have a message although its answer was lost. While it is remembered, nobody else is to try the message.
    pub fn doubt(&self, id: &QueueId) -> Option<SocketAddr> {
        lock(&self.doubts).of(id, clock::now())
    }

    fn met(&self, error: Option<&HandOverError>) {
        self.report(error.map(|error| chain(error)));
    }
}

fn unreachable(address: SocketAddr, error: &ConnectionError) -> HandOverError {
    HandOverError::Unreachable { address, met: chain(error) }
}

fn in_one_line(reply: &Reply) -> String {
    shortened(&format!("{} {}", reply.code, reply.text()), MAX_TEXT_BYTES).into_owned()
}
