//! Bytes between a socket and a [`Session`]: reading, the steps, timeouts, the TLS handshake.
//!
//! The only part of the submission face that touches sockets, sleeps and the clock. Every await on the peer is bounded.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::session::{Peer, Session, Step};
use crate::{mailbox::ConnectionFacts, office::Shared, random, violations::Kind};

/// How the conversation over one stream ended.
enum End {
    Closed,
    StartTls,
}

/// Serves one client, from the banner to the end.
pub async fn serve(
    stream: TcpStream,
    client: std::net::SocketAddr,
    id: u64,
    shared: Arc<Shared>,
    tls: TlsAcceptor,
) {
    tracing::info!(connection = id, %client, "connected");
    shared.with(|office| {
        office.connections += 1;
        office.tally.connections += 1;
    });
    let whole = Duration::from_secs(shared.read(|office| office.config.pace.session_seconds));
    let mut conversation = Conversation { session: Session::new(peer(client, id)), shared };
    let Conversation { session, shared } = &mut conversation;
    converse(stream, session, shared, &tls, Instant::now() + whole).await;
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

fn peer(client: std::net::SocketAddr, id: u64) -> Peer {
    let facts =
        ConnectionFacts { id, client: client.ip().to_canonical().to_string(), ..ConnectionFacts::default() };
    Peer { facts, host: random::front_end(), session: random::hex::<8>().to_uppercase() }
}

async fn converse(
    mut stream: TcpStream,
    session: &mut Session,
    shared: &Shared,
    tls: &TlsAcceptor,
    deadline: Instant,
) {
    let banner = shared.with(|office| session.greet(office, Timestamp::now()));
    if !matches!(exchange(&mut stream, session, shared, banner, deadline).await, Ok(End::StartTls)) {
        return;
    }
    let Some(mut stream) = handshake(stream, session, shared, tls, deadline).await else { return };
    // An error here is a lost connection; the record is made by `Session::ended`.
    drop(exchange(&mut stream, session, shared, Vec::new(), deadline).await);
}

async fn handshake(
    stream: TcpStream,
    session: &mut Session,
    shared: &Shared,
    tls: &TlsAcceptor,
    deadline: Instant,
) -> Option<TlsStream<TcpStream>> {
    match timeout_at(deadline, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let (_, connection) = stream.get_ref();
            let version = connection.protocol_version().map(|version| format!("{version:?}"));
            let sni = connection.server_name().map(str::to_owned);
            tracing::info!(connection = session.id(), version, sni, "TLS");
            shared.with(|office| session.secured(version, sni, office, Timestamp::now()));
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

async fn perform<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    shared: &Shared,
    steps: Vec<Step>,
) -> std::io::Result<Option<End>> {
    let mut pending = Vec::new();
    for step in steps {
        match step {
            Step::Send(bytes) => pending.extend(bytes),
            Step::Wait(milliseconds) => {
                send(stream, &mut pending).await?;
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            }
            Step::StartTls => {
                send(stream, &mut pending).await?;
                return Ok(Some(End::StartTls));
            }
            Step::Submitted => {
                send(stream, &mut pending).await?;
                shared.with(|office| session.submitted(office));
            }
            Step::Close => {
                send(stream, &mut pending).await?;
                stream.shutdown().await?;
                return Ok(Some(End::Closed));
            }
            Step::Cut => {
                send(stream, &mut pending).await?;
                return Ok(Some(End::Closed));
            }
        }
    }
    send(stream, &mut pending).await?;
    Ok(None)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, pending: &mut Vec<u8>) -> std::io::Result<()> {
    if !pending.is_empty() {
        stream.write_all(pending).await?;
        stream.flush().await?;
        pending.clear();
    }
    Ok(())
}
