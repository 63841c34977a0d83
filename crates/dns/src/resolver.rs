//! Asks name servers: one question, one answer, in bounded time.
//!
//! The system's resolver knows addresses only, so other records are asked for here, at the servers of `/etc/resolv.conf`
//! or at one that is named. UDP first, TCP for what does not fit; a server that fails or is silent is followed by the next.
//! Nothing is kept between questions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::message::{Answer, Exchanger, Query, Records, Reply, UDP_OCTETS, Wanted};

/// Where name servers are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Port of name servers.
const PORT: u16 = 53;

/// Most servers that are asked, as with the system's resolver.
const MAX_SERVERS: usize = 3;

/// Rounds through the servers.
const ROUNDS: usize = 2;

/// Longest wait for one server.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no answer. That a name has no records is one.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not a domain name.
    #[error("{0:?} is not a domain name")]
    NotAName(String),
    /// No server could tell.
    #[error("cannot look up {wanted:?} of {name} at {server}: {what}")]
    NoAnswer {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: Wanted,
        /// The server asked last.
        server: SocketAddr,
        /// What came of it.
        what: String,
    },
    /// The machine has no randomness, so answers could be forged.
    #[error("no random number for a DNS query")]
    NoRandomness,
}

/// Asks name servers.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    fixed: Option<SocketAddr>,
}

impl Resolver {
    /// Asks `fixed` when given, else the servers of the system.
    pub const fn new(fixed: Option<SocketAddr>) -> Self {
        Self { fixed }
    }

    /// The mail exchangers of `domain`.
    ///
    /// # Errors
    /// When no server can tell.
    pub async fn exchangers(&self, domain: &str) -> Result<Records<Exchanger>, ResolveError> {
        Ok(self.ask(domain, Wanted::Mx).await?.exchangers())
    }

    /// The addresses of `host`: IPv4, or IPv6 when there is none.
    ///
    /// # Errors
    /// When no server can tell.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let found = self.ask(host, Wanted::A).await?.addresses().found;
        if !found.is_empty() {
            return Ok(found);
        }
        Ok(self.ask(host, Wanted::Aaaa).await?.addresses().found)
    }

    /// What `wanted` says of `name`, which is taken as absolute.
    ///
    /// # Errors
    /// When no server can tell, after at most two rounds through three servers with three seconds for each.
    pub async fn ask(&self, name: &str, wanted: Wanted) -> Result<Answer, ResolveError> {
        let query = Query::new(name, wanted, random_id()?);
        let query = query.ok_or_else(|| ResolveError::NotAName(name.to_owned()))?;
        let servers = self.servers().await;
        let mut last = None;
        for &server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match exchange(&query, server).await {
                Ok(Reply::Answer(answer)) => return Ok(answer),
                Ok(Reply::Truncated) => last = Some((server, "the answer is cut off".to_owned())),
                Ok(Reply::Failed(code)) => last = Some((server, format!("it answers {code}"))),
                Err(error) => last = Some((server, error.to_string())),
            }
        }
        // There is always a server, so something was met.
        let (server, what) = last.unwrap_or_else(|| (local(), "no name server".into()));
        Err(ResolveError::NoAnswer { name: name.to_owned(), wanted, server, what })
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        match self.fixed {
            Some(server) => vec![server],
            None => name_servers(&tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default()),
        }
    }
}

fn random_id() -> Result<u16, ResolveError> {
    let mut id = [0; 2];
    SystemRandom::new().fill(&mut id).map_err(|_| ResolveError::NoRandomness)?;
    Ok(u16::from_be_bytes(id))
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// The servers that a `resolv.conf` names; this machine when it names none (resolv.conf(5)).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
    };
    let named: Vec<_> =
        text.lines().filter_map(address).take(MAX_SERVERS).map(|ip| SocketAddr::new(ip, PORT)).collect();
    if named.is_empty() { vec![local()] } else { named }
}

/// Asks one server.
async fn exchange(query: &Query, server: SocketAddr) -> io::Result<Reply> {
    match timed(over_udp(query, server)).await? {
        Reply::Truncated => timed(over_tcp(query, server)).await,
        reply => Ok(reply),
    }
}

async fn timed<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn over_udp(query: &Query, server: SocketAddr) -> io::Result<Reply> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of the system's choice, and datagrams from this server only.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query.octets()).await?;
    let mut octets = vec![0; usize::from(UDP_OCTETS)];
    loop {
        let len = socket.recv(&mut octets).await?;
        // What does not belong to the question may be forged; the right answer may still come.
        if let Some(reply) = query.read(octets[..len].to_vec()) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(query: &Query, server: SocketAddr) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(query.octets().len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query.octets()].concat()).await?;
    let mut octets = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut octets).await?;
    query.read(octets).ok_or_else(|| io::Error::other("the answer is not one to the question"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::mx_answer;

    #[test]
    fn servers_are_those_of_the_file_or_this_machine() {
        let text = "search shop.svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\n# nameserver 1.1.1.1\nnameserver x\noptions ndots:5\n";
        let servers: Vec<_> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        assert_eq!(name_servers(""), [local()]);
    }

    #[tokio::test]
    async fn what_belongs_to_another_question_is_waited_past() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = Resolver::new(Some(socket.local_addr().unwrap()));
        let serve = async {
            let mut octets = [0; 512];
            let (len, from) = socket.recv_from(&mut octets).await.unwrap();
            let right = mx_answer(&octets[..len], 60, &[(0, "mx.contoso.com")]);
            let mut forged = right.clone();
            forged[0] ^= 0xff;
            socket.send_to(&forged, from).await.unwrap();
            socket.send_to(&right, from).await.unwrap();
        };
        let (found, ()) = tokio::join!(resolver.exchangers("contoso.com"), serve);
        assert_eq!(found.unwrap().found[0].name, "mx.contoso.com");
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off_is_asked_for_over_tcp() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = tokio::net::TcpListener::bind(address).await.unwrap();
        let serve = async {
            let mut octets = [0; 512];
            let (len, from) = udp.recv_from(&mut octets).await.unwrap();
            let mut cut = mx_answer(&octets[..len], 60, &[]);
            cut[2] |= 2;
            udp.send_to(&cut, from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut octets = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut octets).await.unwrap();
            let whole = mx_answer(&octets, 60, &[(0, "mx.contoso.com")]);
            stream.write_u16(whole.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let resolver = Resolver::new(Some(address));
        let (found, ()) = tokio::join!(resolver.exchangers("contoso.com"), serve);
        assert_eq!(found.unwrap().found.len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_cannot_tell_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let resolver = Resolver::new(Some(address));
        let serve = async {
            for _ in 0..ROUNDS {
                let mut octets = [0; 512];
                let (len, from) = socket.recv_from(&mut octets).await.unwrap();
                let mut failed = mx_answer(&octets[..len], 60, &[]);
                failed[3] |= 2;
                socket.send_to(&failed, from).await.unwrap();
            }
        };
        let (found, ()) = tokio::join!(resolver.exchangers("contoso.com"), serve);
        let text = found.unwrap_err().to_string();
        assert!(text.contains("SERVFAIL") && text.contains(&address.to_string()), "{text}");
    }
}
