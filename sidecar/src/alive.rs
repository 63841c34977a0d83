//! `mailroute-sidecar alive`: asks the sidecar beside it whether it takes mail. For the kubelet's probes.
//!
//! The kubelet runs it in the container, where a probe over the network would not do: in a pod of a mesh the way from the
//! node to a port leads through a proxy that may not run yet, or that takes nothing without its own certificate.
//!
//! Owns one request on the loopback address; refuses to know what makes the answer. No runtime and no log, as it runs
//! every few seconds in every pod.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for each step, well below the kubelet's patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is looked at, bytes.
const MAX_ANSWER: u64 = 1024;

/// Why the sidecar does not count as alive. The kubelet shows it as the Event `Unhealthy`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the sidecar does not answer on {0}")]
    Silent(SocketAddr, #[source] io::Error),
    /// It answers that it takes no mail.
    #[error("the sidecar takes no mail: {0}")]
    Unwell(String),
}

/// Asks the sidecar that serves its health on `admin`, an address of this machine.
///
/// # Errors
/// When it does not answer, or not that it takes mail.
pub fn ask(admin: SocketAddr) -> Result<(), Error> {
    let address = reachable(admin);
    let answer = request(address).map_err(|error| Error::Silent(address, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_ascii_whitespace().nth(1);
    if status == Some("200") { Ok(()) } else { Err(Error::Unwell(body.trim().to_owned())) }
}

/// Where a listener on all addresses is reached.
fn reachable(admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, admin.port()).into() } else { admin }
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
    use std::thread;

    use super::*;

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
        assert_eq!(unwell.to_string(), "the sidecar takes no mail: not serving");
        for nonsense in ["", "200", "HTTP/1.1", "HTTP/1.1 2000 OK\r\n\r\n"] {
            assert!(ask(answering(nonsense)).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_named() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(gone).unwrap_err();
        assert_eq!(error.to_string(), format!("the sidecar does not answer on {gone}"));
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let all = "0.0.0.0:9025".parse().unwrap();
        assert_eq!(reachable(all).to_string(), "127.0.0.1:9025");
        assert_eq!(reachable("[::]:9025".parse().unwrap()).to_string(), "127.0.0.1:9025");
        assert_eq!(reachable("127.0.0.2:1".parse().unwrap()).to_string(), "127.0.0.2:1");
    }
}
