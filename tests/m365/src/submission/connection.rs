//! Bytes between a socket and a [`Session`]: reading, the steps, timeouts, the TLS handshake.
//!
//! The only part of the SMTP faces that touches sockets, sleeps and the clock. Every await on the peer is bounded.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::session::{Handshake, Peer, Session, Step};
use crate::{
    faults::HandshakeFault,
    mailbox::{ConnectionFacts, Face},
    office::Shared,
    random,
    relay::PresentedCertificate,
    tls::trusted_roots,
    violations::Kind,
};

/// TLS alert, version 3.1, two bytes: fatal, `protocol_version` (RFC 5246 section 7.2).
const PROTOCOL_VERSION_ALERT: [u8; 7] = [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];

/// What every connection of a face works with.
#[derive(Clone)]
pub struct Entrance {
    /// Which face.
    pub face: Face,
    /// The service.
    pub shared: Arc<Shared>,
    /// The proper certificate.
    pub tls: TlsAcceptor,
    /// The certificate of another name.
    pub other_name: TlsAcceptor,
    /// Our authority, which connectors trust.
    pub ca_pem: Arc<str>,
    /// Counts connections over all faces.
    pub last: Arc<AtomicU64>,
}

/// How the conversation over one stream ended.
enum End {
    Closed,
    StartTls,
}

/// Serves one client, from the banner to the end.
pub async fn serve(stream: TcpStream, client: SocketAddr, entrance: Entrance) {
    let id = entrance.last.fetch_add(1, Ordering::Relaxed) + 1;
    tracing::info!(connection = id, %client, face = ?entrance.face, "connected");
    let shared = Arc::clone(&entrance.shared);
    shared.with(|office| {
        office.connections += 1;
        office.tally.connections += 1;
    });
    let whole = Duration::from_secs(shared.read(|office| office.config.pace.session_seconds));
    let session = Session::new(peer(client, id, entrance.face));
    let mut conversation = Conversation { session, shared };
    converse(stream, &mut conversation, &entrance, Instant::now() + whole).await;
}

/// Tells the office when the connection is gone, also when its task was ended from outside.
struct Conversation {
    session: Session,
    shared: Arc<Shared>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.shared.with(|office| {
            self.session.ended(office, Timestamp::now());
            office.connections -= 1;
        });
        tracing::info!(connection = self.session.id(), "disconnected");
    }
}

fn peer(client: SocketAddr, id: u64, face: Face) -> Peer {
    let client = client.ip().to_canonical().to_string();
    let facts = ConnectionFacts { id, client, face, ..ConnectionFacts::default() };
    let host = match face {
        Face::Relay => random::edge(),
        _ => random::front_end(),
    };
    Peer { facts, host, session: random::hex::<8>().to_uppercase() }
}

async fn converse(
    mut stream: TcpStream,
    Conversation { session, shared }: &mut Conversation,
    entrance: &Entrance,
    deadline: Instant,
) {
    let banner = shared.with(|office| session.greet(office, Timestamp::now()));
    if !matches!(exchange(&mut stream, session, shared, banner, deadline).await, Ok(End::StartTls)) {
        return;
    }
    let Some(mut stream) = handshake(stream, session, entrance, deadline).await else { return };
    // An error here is a lost connection; the record is made by `Session::ended`.
    drop(exchange(&mut stream, session, shared, Vec::new(), deadline).await);
}

async fn handshake(
    mut stream: TcpStream,
    session: &mut Session,
    entrance: &Entrance,
    deadline: Instant,
) -> Option<TlsStream<TcpStream>> {
    let shared = &entrance.shared;
    let acceptor = match shared
        .read(|office| office.faults.of(entrance.face).map(|faults| faults.handshake).unwrap_or_default())
    {
        HandshakeFault::None => &entrance.tls,
        HandshakeFault::OtherName => &entrance.other_name,
        fault => {
            // Whatever comes of it, the connection ends here.
            drop(timeout_at(deadline, misbehave(&mut stream, fault)).await);
            return None;
        }
    };
    match timeout_at(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let handshake = told(&stream, entrance);
            tracing::info!(
                connection = session.id(),
                version = handshake.version,
                sni = handshake.sni,
                "TLS"
            );
            shared.with(|office| session.secured(handshake, office, Timestamp::now()));
            Some(stream)
        }
        Ok(Err(error)) => {
            let detail = format!("the handshake failed: {error}");
            shared
                .with(|office| office.violation(Timestamp::now(), session.id(), Kind::TlsHandshake, detail));
            None
        }
        Err(_) => None,
    }
}

async fn misbehave(stream: &mut TcpStream, fault: HandshakeFault) -> std::io::Result<()> {
    let mut hello = [0; 4096];
    match fault {
        HandshakeFault::OldVersion => {
            // Whatever its version: the answer is the same.
            let _ = stream.read(&mut hello).await?;
            stream.write_all(&PROTOCOL_VERSION_ALERT).await?;
            stream.shutdown().await
        }
        HandshakeFault::Silence => {
            while stream.read(&mut hello).await? > 0 {}
            Ok(())
        }
        HandshakeFault::Cut | HandshakeFault::None | HandshakeFault::OtherName => Ok(()),
    }
}

fn told(stream: &TlsStream<TcpStream>, entrance: &Entrance) -> Handshake {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(|chain| {
        let added = entrance.shared.read(|office| office.config.relay.trusted_roots.clone());
        PresentedCertificate::read(chain, &trusted_roots(&entrance.ca_pem, &added), UnixTime::now())
    });
    Handshake {
        version: connection.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default(),
        sni: connection.server_name().map(str::to_owned),
        certificate,
    }
}

/// Reads and answers until the conversation ends or turns to TLS.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    shared: &Shared,
    first: Vec<Step>,
    deadline: Instant,
) -> std::io::Result<End> {
    if let Some(end) = perform(stream, session, shared, first).await? {
        return Ok(end);
    }
    let mut input = vec![0; 64 * 1024];
    loop {
        let idle = Duration::from_secs(shared.read(|office| office.config.pace.idle_seconds));
        let until = deadline.min(Instant::now() + idle);
        let steps = match timeout_at(until, stream.read(&mut input)).await {
            Ok(Ok(0)) => return Ok(End::Closed),
            Ok(read) => {
                let bytes = &input[..read?];
                shared.with(|office| session.receive(bytes, office, Timestamp::now()))
            }
            Err(_) => shared.with(|office| session.timed_out(office, Timestamp::now())),
        };
        if let Some(end) = perform(stream, session, shared, steps).await? {
            return Ok(end);
        }
    }
}

/// What is to be sent, and how fast.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// Time after each byte.
    drip: Duration,
}

async fn perform<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    shared: &Shared,
    steps: Vec<Step>,
) -> std::io::Result<Option<End>> {
    let mut pending = Outgoing::default();
    for step in steps {
        if let Step::Send(bytes) = step {
            pending.bytes.extend(bytes);
            continue;
        }
        pending.send(stream).await?;
        match step {
            Step::Wait(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
            Step::Drip(milliseconds) => pending.drip = Duration::from_millis(milliseconds),
            Step::StartTls => return Ok(Some(End::StartTls)),
            Step::Submitted => shared.with(|office| session.submitted(office)),
            Step::Close => {
                stream.shutdown().await?;
                return Ok(Some(End::Closed));
            }
            Step::Send(_) | Step::Cut => return Ok(Some(End::Closed)),
        }
    }
    pending.send(stream).await?;
    Ok(None)
}

impl Outgoing {
    async fn send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let piece = if self.drip.is_zero() { self.bytes.len() } else { 1 };
        for piece in self.bytes.chunks(piece) {
            stream.write_all(piece).await?;
            stream.flush().await?;
            if !self.drip.is_zero() {
                tokio::time::sleep(self.drip).await;
            }
        }
        self.bytes.clear();
        Ok(())
    }
}
