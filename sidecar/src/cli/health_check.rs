//! `mailroute-sidecar alive`: asks the sidecar beside it whether it takes mail. For the kubelet's probes.
//!
//! The kubelet runs it in the container, where a probe over the network would not do: in a pod of a mesh the way from the
//! node to a port leads through a proxy that may not run yet, or that takes nothing without its own certificate. And
//! whoever can connect to a port can use it up, and have the sidecar restarted: other pods on the pod's address, the
//! other containers of the pod on loopback. So the answer comes on a socket in the spool, which only this container
//! mounts; only where the volume cannot hold sockets is the port asked, on loopback.
//!
//! Owns both ends of that; refuses to know what makes the answer. The asking end has no runtime and no log, as it runs
//! every few seconds in every pod.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mailroute_route::text::shortened;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::cli::socket::{self, Listening};
use crate::spool::Layout;

/// Longest wait for each step, well below the kubelet's patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is looked at, bytes.
const MAX_ANSWER: u64 = 1024;

/// The first line of the answer of a sidecar that takes mail.
const WELL: &str = "ok";

/// The second line where nothing else is in the way of what others want of the pod.
const READY: &str = "ready";

/// Longest reason in an answer.
const MAX_REASON: usize = 400;

/// How long to leave a socket alone that cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the sidecar does not count as alive. The kubelet shows it as the Event `Unhealthy`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the sidecar does not answer on {0}")]
    Silent(String, #[source] io::Error),
    /// It answers that it takes no mail.
    #[error("the sidecar does not accept mail: {0}")]
    Unwell(String),
    /// It answers that a gateway can take nothing over.
    #[error("not ready: {0}")]
    Unready(String),
}

/// What keeps a pod that is alive from being ready.
pub type Obstacle = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Answers on the socket until `stop`: whether the local listener is serving, and whether the pod is ready. There is nothing to wait
/// for, since nothing is asked and the answer fits into the buffer of a new connection.
pub async fn answer(
    listening: Listening,
    serving: Arc<AtomicBool>,
    obstacle: Obstacle,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            _ = stop.wait_for(|&stop| stop) => return,
        };
        let Ok(mut stream) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let alive = if serving.load(Ordering::Relaxed) { WELL } else { "the local listener is not serving" };
        let ready = obstacle().unwrap_or_else(|| READY.to_owned());
        let text = format!("{alive}\n{}\n", shortened(&ready, MAX_REASON));
        // One that is gone already does not want to know.
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

/// The same, and whether it is ready: a gateway has a certificate to take messages over with. On a volume without sockets a pod that is
/// alive is ready.
///
/// # Errors
/// As [`ask`], and when it is not ready.
pub fn ask_ready(spool_dir: &Path, admin: SocketAddr) -> Result<(), Error> {
    match answered(spool_dir, admin)? {
        Some(ready) if ready != READY => Err(Error::Unready(ready)),
        _ => Ok(()),
    }
}

/// Asks the sidecar that has the spool in `spool_dir` open. When nobody takes connections there, as on a volume without
/// sockets, it is asked on `admin`, an address of this machine.
///
/// # Errors
/// When it does not answer, or not that it takes mail.
pub fn ask(spool_dir: &Path, admin: SocketAddr) -> Result<(), Error> {
    answered(spool_dir, admin).map(drop)
}

/// What a sidecar that is alive says of being ready; nothing on the port.
fn answered(spool_dir: &Path, admin: SocketAddr) -> Result<Option<String>, Error> {
    let path = Layout::new(spool_dir).alive();
    let Some(stream) = connect(path.clone()) else { return ask_port(admin).map(|()| None) };
    let told = told(stream).map_err(|error| Error::Silent(path.display().to_string(), error))?;
    let mut lines = told.lines().map(str::trim);
    match lines.next().unwrap_or_default() {
        WELL => Ok(lines.next().map(str::to_owned)),
        unwell => Err(Error::Unwell(unwell.to_owned())),
    }
}

/// In a thread of its own, since a path on a volume that hangs takes as long as it likes.
fn connect(path: PathBuf) -> Option<UnixStream> {
    let (done, connected) = mpsc::sync_channel(1);
    thread::spawn(move || done.send(socket::connect_blocking(&path)));
    connected.recv_timeout(PATIENCE).ok()?.ok()
}

fn told(stream: UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut told = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut told)?;
    if told.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(told) }
}

fn ask_port(admin: SocketAddr) -> Result<(), Error> {
    let mut last = None;
    for address in reachable(admin) {
        match request(address) {
            Ok(answer) => {
                let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
                let status = head.split_ascii_whitespace().nth(1);
                return if status == Some("200") {
                    Ok(())
                } else {
                    Err(Error::Unwell(body.trim().to_owned()))
                };
            }
            // Nobody listens on this one.
            Err(error) => last = Some(Error::Silent(address.to_string(), error)),
        }
    }
    last.map_or(Ok(()), Err)
}

/// Where a listener on all addresses is reached: a pod may have one family alone.
fn reachable(admin: SocketAddr) -> Vec<SocketAddr> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if admin.ip().is_unspecified() {
        loopback.map(|ip| SocketAddr::new(ip, admin.port())).into()
    } else {
        vec![admin]
    }
}

fn request(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Asks on the port, as there is no spool.
    fn ask(admin: SocketAddr) -> Result<(), Error> {
        super::ask(Path::new("/nonexistent"), admin)
    }

    /// A spool whose socket is answered on while `serving`.
    fn answered(serving: &Arc<AtomicBool>) -> (tempfile::TempDir, watch::Sender<bool>) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        std::fs::create_dir_all(layout.tmp()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let listening = Listening::bind(&layout, layout.alive()).unwrap();
        let obstacle = || Some("no certificate".to_owned());
        tokio::spawn(answer(listening, Arc::clone(serving), Box::new(obstacle), stopped));
        (root, stop)
    }

    /// An address on which a connection is taken and nothing is ever said, as when a port is used up.
    fn mute() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_probe_does_not_need_the_port() {
        let (_keep, used_up) = mute();
        let serving = Arc::new(AtomicBool::new(true));
        let (root, _stop) = answered(&serving);
        // More at once than any port would take.
        let _held: Vec<_> = (0..50).map(|_| connect(Layout::new(root.path()).alive()).unwrap()).collect();
        super::ask(root.path(), used_up).unwrap();
        let unready = ask_ready(root.path(), used_up).unwrap_err();
        assert_eq!(unready.to_string(), "not ready: no certificate");
        serving.store(false, Ordering::Relaxed);
        let unwell = super::ask(root.path(), used_up).unwrap_err();
        assert_eq!(unwell.to_string(), "the sidecar does not accept mail: the local listener is not serving");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_nobody_serves_the_socket_the_port_is_asked() {
        let (root, stop) = answered(&Arc::default());
        let path = Layout::new(root.path()).alive();
        stop.send_replace(true);
        while path.exists() {
            tokio::task::yield_now().await;
        }
        super::ask(root.path(), answering("HTTP/1.1 200 OK\r\n\r\nok\n")).unwrap();
        // What a program left that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        super::ask(root.path(), answering("HTTP/1.1 200 OK\r\n\r\nok\n")).unwrap();
    }

    #[test]
    fn a_program_that_hangs_is_not_alive() {
        let root = tempfile::tempdir().unwrap();
        let _hangs = std::os::unix::net::UnixListener::bind(Layout::new(root.path()).alive()).unwrap();
        let error = super::ask(root.path(), answering("HTTP/1.1 200 OK\r\n\r\nok\n")).unwrap_err();
        assert!(matches!(error, Error::Silent(..)), "{error}");
    }

    /// A server that answers one request with this.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /livez HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_a_200_is_alive() {
        assert!(ask(answering("HTTP/1.1 200 OK\r\n\r\nok\n")).is_ok());
        let unwell = ask(answering("HTTP/1.1 503 Service Unavailable\r\n\r\nnot serving\n")).unwrap_err();
        assert_eq!(unwell.to_string(), "the sidecar does not accept mail: not serving");
        for nonsense in ["", "200", "HTTP/1.1", "HTTP/1.1 2000 OK\r\n\r\n"] {
            assert!(ask(answering(nonsense)).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_named() {
        // Discard (RFC 863).
        let gone = "127.0.0.1:9".parse().unwrap();
        let error = ask(gone).unwrap_err();
        assert_eq!(error.to_string(), format!("the sidecar does not answer on {gone}"));
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback_of_either_family() {
        let reached =
            |admin: &str| reachable(admin.parse().unwrap()).iter().map(ToString::to_string).collect();
        let (of_both, of_one): (Vec<String>, Vec<String>) = (reached("[::]:9025"), reached("127.0.0.2:1"));
        assert_eq!(of_both, ["127.0.0.1:9025", "[::1]:9025"]);
        assert_eq!((reached("0.0.0.0:9025"), of_one), (of_both, vec!["127.0.0.2:1".to_owned()]));
    }
}
