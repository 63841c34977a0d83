//! An HTTP proxy for tests: each tunnel that it is asked for (CONNECT, RFC 9110 §9.3.6) leads to one address, whatever
//! host was named.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Longest head of a request, octets.
const MAX_HEAD: usize = 8 * 1024;

/// The proxy, until it is dropped.
#[derive(Debug)]
pub struct WebProxy {
    /// Where it listens.
    pub address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    heads: watch::Receiver<Vec<String>>,
    server: JoinHandle<()>,
}

impl WebProxy {
    /// Listens on a free port. Tunnels wait for [`Self::lead_to`].
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (to, target) = watch::channel(None);
        let (note, heads) = watch::channel(vec![]);
        let server = tokio::spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                tunnels.spawn(tunnel(stream, target.clone(), note.clone()));
            }
        });
        Ok(Self { address, to, heads, server })
    }

    /// Where tunnels end from now on.
    pub fn lead_to(&self, address: SocketAddr) {
        self.to.send_replace(Some(address));
    }

    /// The heads of the requests so far, with the line ends.
    pub fn requests(&self) -> Vec<String> {
        self.heads.borrow().clone()
    }
}

impl Drop for WebProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn tunnel(
    mut stream: TcpStream,
    mut to: watch::Receiver<Option<SocketAddr>>,
    note: watch::Sender<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    note.send_modify(|heads| heads.push(String::from_utf8_lossy(&head).into_owned()));
    let address = *to.wait_for(Option::is_some).await.map_err(io::Error::other)?;
    let mut far = TcpStream::connect(address.as_slice()).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut far).await.map(drop)
}
