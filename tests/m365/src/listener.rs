//! Accepting connections, with a door that can be shut: while a face is down its port is closed, so that clients are
//! refused by the operating system as they would be by an absent service, and open connections are cut.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Pause after an error that concerns the whole process (out of file descriptors), so that it does not become a spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Clients that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Accepts for ever, handing each connection to `serve` in a task of its own, while `door` is true; `open` tells whether
/// the port is open indeed. Dropping the future ends all connections.
///
/// # Errors
/// The port cannot be opened again.
pub async fn accept<Served>(
    listener: TcpListener,
    mut door: watch::Receiver<bool>,
    open: watch::Sender<bool>,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> Served,
) -> io::Result<()>
where
    Served: Future<Output = ()> + Send + 'static,
{
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    // While the face is down nobody else may get its port: its clients would go on asking whoever that is.
    let mut reserved = None;
    let mut connections = JoinSet::new();
    loop {
        let Some(listening) = &listener else {
            if !turned(&mut door, true).await {
                return Ok(());
            }
            listener = match reserved.take() {
                Some(socket) => Some(TcpSocket::listen(socket, BACKLOG)?),
                None => Some(TcpListener::bind(address).await?),
            };
            open.send_replace(true);
            continue;
        };
        tokio::select! {
            known = turned(&mut door, false) => {
                listener = None;
                reserved = Some(reserve(address)?);
                connections.shutdown().await;
                open.send_replace(false);
                if !known {
                    return Ok(());
                }
            }
            Some(_) = connections.join_next() => {}
            accepted = listening.accept() => match accepted {
                Ok((stream, client)) => {
                    // Replies are small and each is waited for.
                    drop(stream.set_nodelay(true));
                    connections.spawn(serve(stream, client));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Keeps a port without listening on it.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Waits until the door is as wanted; false when nobody holds it any more.
async fn turned(door: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    door.wait_for(|is_open| *is_open == wanted).await.is_ok()
}
