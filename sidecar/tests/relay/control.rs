//! The operator's control service, as far as a sidecar sees it: HTTPS with its own CA, a leader and another replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mailroute_m365::tls::Identity;
use mailroute_route::control::{NotLeader, Report, ReportReply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Two replicas; the second is the leader.
pub struct Control {
    pub ca_pem: String,
    /// Address of the replica that is not the leader, by name.
    pub address: String,
    pub reports: watch::Receiver<Vec<Report>>,
    /// The whole request text of every report, headers included.
    pub requests: watch::Receiver<String>,
    /// Whether the operator says that the route was deleted.
    pub route_deleted: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Control {
    pub async fn start() -> Self {
        let (ca_pem, acceptor) = identity("localhost");
        let (reports, requests) = (watch::Sender::new(vec![]), watch::Sender::new(String::new()));
        let route_deleted = Arc::<AtomicBool>::default();
        let said = Arc::clone(&route_deleted);
        let mut tasks = JoinSet::new();
        let (leader_listener, leader) = listen().await;
        let (other_listener, other) = listen().await;
        let control = Self {
            ca_pem,
            address: format!("localhost:{}", other.port()),
            reports: reports.subscribe(),
            requests: requests.subscribe(),
            route_deleted,
            _tasks: JoinSet::new(),
        };
        let pointer = serde_json::to_string(&NotLeader { leader: Some(leader.to_string()) }).unwrap();
        tasks.spawn(serve(other_listener, acceptor.clone(), move |_| (421, pointer.clone())));
        tasks.spawn(serve(leader_listener, acceptor, move |request| {
            requests.send_modify(|all| all.push_str(&request));
            let body = request.split_once("\r\n\r\n").expect("a body").1;
            let report = serde_json::from_str(body).expect("a report");
            reports.send_modify(|all| all.push(report));
            let route_deleted = said.load(Ordering::Relaxed);
            let reply =
                ReportReply { next_seconds: 3600, allotment: None, allotments: vec![], route_deleted };
            (200, serde_json::to_string(&reply).unwrap())
        }));
        Self { _tasks: tasks, ..control }
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A CA, and the TLS of a server called `name` under it.
pub fn identity(name: &str) -> (String, TlsAcceptor) {
    let identity = Identity::new(&[name.to_owned()], None).unwrap();
    (identity.authority.pem, TlsAcceptor::from(identity.submission))
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    mut answer: impl FnMut(String) -> (u16, String),
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let Some(request) = read(&mut stream).await else { continue };
        let (status, body) = answer(request);
        let response = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(response.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// A request with a content length.
pub async fn read(stream: &mut TlsStream<tokio::net::TcpStream>) -> Option<String> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if length.is_some_and(|length| body.len() >= length) {
            return Some(text.into_owned());
        }
    }
}
