//! The name server over UDP and TCP.
//!
//! It decides nothing: what is known comes from [`crate::dns::zone`], what goes wrong from the faults.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use domain::base::iana::Rcode;
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    dns::{
        Lookup, Transport,
        message::Query,
        zone::{Data, Record, look_up},
    },
    faults::DnsAction,
    office::{Office, Shared},
};

/// Questions and connections that are answered at once at most, so that a slow fault cannot fill the memory.
const MAX_PENDING: usize = 256;

/// Time that a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries to find a port that is free for both.
const TRIES: usize = 16;

/// The same port over UDP and TCP.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Opens both. Port 0 finds one that is free for both.
    ///
    /// # Errors
    /// One cannot be opened.
    pub async fn open(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let udp = UdpSocket::bind(address).await?;
            let bound = udp.local_addr()?;
            match TcpListener::bind(bound).await {
                Ok(tcp) => return Ok((Self { udp, tcp }, bound)),
                Err(_) if address.port() == 0 && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Serves both for ever.
///
/// # Errors
/// A socket fails.
pub async fn serve(sockets: Sockets, shared: Arc<Shared>) -> io::Result<()> {
    let udp = Arc::new(sockets.udp);
    let permits = Arc::new(Semaphore::new(MAX_PENDING));
    let mut pending = JoinSet::new();
    let mut octets = [0; 4096];
    loop {
        while pending.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
        tokio::select! {
            received = udp.recv_from(&mut octets) => {
                // An error here is that of an earlier answer (the client's port is closed); it concerns no one.
                let Ok((length, client)) = received else { continue };
                let (question, udp, shared) = (octets[..length].to_vec(), Arc::clone(&udp), Arc::clone(&shared));
                pending.spawn(async move {
                    if let Some(answer) = answer(&shared, &question, Transport::Udp).await {
                        drop(udp.send_to(&answer, client).await);
                    }
                    drop(permit);
                });
            }
            accepted = sockets.tcp.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                pending.spawn(async move {
                    drop(converse(stream, &shared).await);
                    drop(permit);
                });
            }
        }
    }
}

/// Messages over a connection have their length in front (RFC 1035 section 4.2.2).
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let length = timeout(PATIENCE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(PATIENCE, stream.read_exact(&mut question)).await??;
        let Some(answer) = answer(shared, &question, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

async fn answer(shared: &Shared, octets: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let query = Query::read(octets)?;
    let (delay, answer) = shared.with(|office| decide(office, &query, transport, Timestamp::now()));
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    answer
}

/// What is answered, and after how many milliseconds. Pure.
fn decide(office: &mut Office, query: &Query, transport: Transport, at: Timestamp) -> (u64, Option<Vec<u8>>) {
    let (delay, action) = office.faults.dns.take(query.kind);
    let udp = transport == Transport::Udp;
    let ttl = office.config.dns.ttl_seconds;
    let exchanger = |host: String| {
        let data = Data::Mx { preference: 0, host };
        query.answer(Some(&[Record { name: query.name.clone(), data }]), ttl, udp)
    };
    let mut records = None;
    let answer = match action {
        Some(DnsAction::ServFail) => query.failed(Rcode::SERVFAIL),
        Some(DnsAction::Refused) => query.failed(Rcode::REFUSED),
        Some(DnsAction::NxDomain) => query.answer(None, ttl, udp),
        Some(DnsAction::NoData) => query.answer(Some(&[]), ttl, udp),
        Some(DnsAction::Silence) => None,
        Some(DnsAction::NullMx) => exchanger(String::new()),
        Some(DnsAction::ForeignMx(host)) => exchanger(host),
        Some(DnsAction::Truncate) if udp => query.truncated(),
        Some(DnsAction::Truncate | DnsAction::Delay(_)) | None => {
            let found = look_up(&office.config.directory, &office.config.dns, &query.name, query.kind);
            records = Some(found.as_ref().map_or(0, Vec::len));
            query.answer(found.as_deref(), ttl, udp)
        }
    };
    tracing::debug!(name = query.name, kind = ?query.kind, ?transport, records, "name looked up");
    office.lookup(Lookup { at, name: query.name.clone(), kind: query.kind, transport, records });
    (delay, answer)
}
