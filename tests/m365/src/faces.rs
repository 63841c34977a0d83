//! The ports, opened and served: which face is behind which, and the doors that faults shut.
//!
//! The only file that sees every face. It refuses to know what they say.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::{Body, Incoming},
    service::{HttpService, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    authority::Authority,
    control::{self, Configurations},
    graph::server::Graph,
    listener,
    mailbox::{ConnectionFacts, Face},
    name_server::{self, Sockets},
    office::{Office, Shared},
    options::{Addresses, Options, StartError},
    submission::{
        connection::{self, Entrance},
        session::Handshake,
    },
    token_endpoint::{Login, issuers::Issuers, routes},
};

/// Time for the TLS handshake and the headers of a request at the token endpoint.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// One of something for each face that can go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors<T> {
    /// Client submission.
    pub smtp: T,
    /// The MX endpoint.
    pub relay: T,
    /// High Volume Email.
    pub high_volume_email: T,
    /// Communication Services.
    pub communication_services: T,
    /// Graph.
    pub graph: T,
    /// The token endpoint.
    pub login: T,
}

/// Open ports that nobody serves yet.
#[derive(Debug)]
pub struct Ports {
    /// Where they are.
    pub addresses: Addresses,
    /// Where each tells whether it is open.
    pub doors: Doors<watch::Sender<bool>>,
    listeners: Doors<TcpListener>,
    control: TcpListener,
    dns: Sockets,
}

/// What the faces do their handshakes with.
#[derive(Clone)]
pub struct Handshakes {
    submission: TlsAcceptor,
    relay: TlsAcceptor,
    other_name: TlsAcceptor,
}

/// What every face works with.
#[derive(Clone)]
pub struct Running {
    /// The service.
    pub shared: Arc<Shared>,
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// What `PUT` and `DELETE /config` work with.
    pub configurations: Arc<Configurations>,
    /// TLS.
    pub tls: Handshakes,
}

impl<T> Doors<T> {
    /// The same for each face.
    pub fn map<U>(&self, change: impl Fn(&T) -> U) -> Doors<U> {
        Doors {
            smtp: change(&self.smtp),
            relay: change(&self.relay),
            high_volume_email: change(&self.high_volume_email),
            communication_services: change(&self.communication_services),
            graph: change(&self.graph),
            login: change(&self.login),
        }
    }

    /// All of them, in the order of the fields.
    pub fn each(&self) -> [&T; 6] {
        [
            &self.smtp,
            &self.relay,
            &self.high_volume_email,
            &self.communication_services,
            &self.graph,
            &self.login,
        ]
    }
}

impl Doors<bool> {
    /// Which faces the faults leave open.
    #[must_use]
    pub fn wanted(office: &Office) -> Self {
        let faults = &office.faults;
        Self {
            smtp: !faults.submission.down,
            relay: !faults.relay.down,
            high_volume_email: !faults.high_volume_email.down,
            communication_services: !faults.communication_services.down,
            graph: !faults.graph.down,
            login: !faults.login.down,
        }
    }
}

impl Handshakes {
    /// For the submission face and the token endpoint, for the MX endpoint, and for the fault of another name.
    #[must_use]
    pub fn new(
        submission: Arc<ServerConfig>,
        relay: Arc<ServerConfig>,
        other_name: Arc<ServerConfig>,
    ) -> Self {
        Self { submission: submission.into(), relay: relay.into(), other_name: other_name.into() }
    }
}

impl Ports {
    /// Opens every port.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn open(options: &Options) -> Result<Self, StartError> {
        let at = options.addresses;
        let (smtp, relay) = (listen(at.smtp).await?, listen(at.relay).await?);
        let high_volume_email = listen(at.high_volume_email).await?;
        let communication_services = listen(at.communication_services).await?;
        let graph = listen(at.graph).await?;
        let (login, control) = (listen(at.login).await?, listen(at.control).await?);
        let (dns, dns_address) =
            Sockets::open(at.dns).await.map_err(|source| StartError::Listen { address: at.dns, source })?;
        let listeners = Doors {
            smtp: smtp.0,
            relay: relay.0,
            high_volume_email: high_volume_email.0,
            communication_services: communication_services.0,
            graph: graph.0,
            login: login.0,
        };
        Ok(Self {
            addresses: Addresses {
                smtp: smtp.1,
                relay: relay.1,
                high_volume_email: high_volume_email.1,
                communication_services: communication_services.1,
                graph: graph.1,
                login: login.1,
                dns: dns_address,
                control: control.1,
            },
            dns,
            doors: listeners.map(|_| watch::Sender::new(true)),
            listeners,
            control: control.0,
        })
    }
}

/// Serves every face in a task of its own.
pub fn run(tasks: &mut JoinSet<()>, ports: Ports, running: &Running) {
    let Ports { listeners, doors: open, control, dns, .. } = ports;
    let doors = open.map(|_| watch::Sender::new(true));
    let entrance = Entrance {
        face: Face::Submission,
        shared: Arc::clone(&running.shared),
        tls: running.tls.submission.clone(),
        other_name: running.tls.other_name.clone(),
        ca_pem: running.authority.pem.as_str().into(),
        last: Arc::default(),
    };
    let relay = Entrance { face: Face::Relay, tls: running.tls.relay.clone(), ..entrance.clone() };
    let bulk = Entrance { face: Face::HighVolumeEmail, ..entrance.clone() };
    let services = Entrance { face: Face::CommunicationServices, ..entrance.clone() };
    let graph = Entrance { face: Face::Graph, ..entrance.clone() };
    tasks.spawn(report(serve_graph((listeners.graph, open.graph), doors.graph.subscribe(), graph)));
    let smtp = [
        (listeners.smtp, open.smtp, &doors.smtp, entrance),
        (listeners.relay, open.relay, &doors.relay, relay),
        (listeners.high_volume_email, open.high_volume_email, &doors.high_volume_email, bulk),
        (
            listeners.communication_services,
            open.communication_services,
            &doors.communication_services,
            services,
        ),
    ];
    for (listener, open, door, entrance) in smtp {
        tasks.spawn(report(serve_smtp((listener, open), door.subscribe(), entrance)));
    }
    let entra = Login { shared: Arc::clone(&running.shared), issuers: Arc::new(Issuers::default()) };
    let tls = running.tls.submission.clone();
    tasks.spawn(report(serve_login((listeners.login, open.login), doors.login.subscribe(), entra, tls)));
    let control_routes = control::routes(
        Arc::clone(&running.shared),
        Arc::clone(&running.authority),
        Arc::clone(&running.configurations),
    );
    tasks.spawn(report(async move { axum::serve(control, control_routes).await }));
    tasks.spawn(report(name_server::serve(dns, Arc::clone(&running.shared))));
    tasks.spawn(keep_doors(Arc::clone(&running.shared), doors));
}

/// A listener, and where it tells whether it is open.
type Port = (TcpListener, watch::Sender<bool>);

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn report(face: impl Future<Output = io::Result<()>>) {
    if let Err(error) = face.await {
        tracing::error!("a face ended: {error}");
    }
}

/// Shuts and opens the doors as the faults have it.
async fn keep_doors(shared: Arc<Shared>, doors: Doors<watch::Sender<bool>>) {
    loop {
        let now = doors.map(|door| *door.borrow());
        let next = shared.wait_for(|office| Some(Doors::wanted(office)).filter(|next| *next != now)).await;
        for (door, next) in doors.each().into_iter().zip(next.each()) {
            door.send_replace(*next);
        }
    }
}

async fn serve_smtp(
    (listener, open): Port,
    door: watch::Receiver<bool>,
    entrance: Entrance,
) -> io::Result<()> {
    listener::accept(listener, door, open, move |stream, client| {
        connection::serve(stream, client, entrance.clone())
    })
    .await
}

async fn serve_login(
    (listener, open): Port,
    door: watch::Receiver<bool>,
    login: Login,
    tls: TlsAcceptor,
) -> io::Result<()> {
    let shared = Arc::clone(&login.shared);
    let routes = routes(login);
    listener::accept(listener, door, open, move |stream, client| {
        serve_https(stream, client, Arc::clone(&shared), tls.clone(), routes.clone())
    })
    .await
}

async fn serve_graph(
    (listener, open): Port,
    door: watch::Receiver<bool>,
    entrance: Entrance,
) -> io::Result<()> {
    listener::accept(listener, door, open, move |stream, client| {
        serve_graph_client(stream, client, entrance.clone())
    })
    .await
}

async fn serve_graph_client(stream: TcpStream, client: SocketAddr, entrance: Entrance) {
    let id = entrance.last.fetch_add(1, Ordering::Relaxed) + 1;
    let Some((stream, handshake)) = secure(stream, client, &entrance.tls).await else { return };
    let (shared, sni) = (entrance.shared, handshake.sni.as_deref());
    shared.with(|office| office.check_server_name(Timestamp::now(), id, entrance.face, sni));
    let idle = Duration::from_secs(shared.read(|office| office.config.pace.idle_seconds));
    let facts = ConnectionFacts {
        id,
        client: client.ip().to_canonical().to_string(),
        tls_version: Some(handshake.version),
        sni: handshake.sni,
        face: entrance.face,
        ..ConnectionFacts::default()
    };
    let graph = Graph { shared, facts };
    serve_http(stream, client, idle, service_fn(move |request| graph.clone().answer(request))).await;
}

async fn serve_https(
    stream: TcpStream,
    client: SocketAddr,
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    routes: Router,
) {
    let Some((stream, handshake)) = secure(stream, client, &tls).await else { return };
    let sni = handshake.sni.as_deref();
    shared.with(|office| office.check_server_name(Timestamp::now(), 0, Face::Submission, sni));
    serve_http(stream, client, LOGIN_PATIENCE, TowerToHyperService::new(routes)).await;
}

/// TLS for HTTP; a client that fails is logged.
async fn secure(
    stream: TcpStream,
    client: SocketAddr,
    tls: &TlsAcceptor,
) -> Option<(TlsStream<TcpStream>, Handshake)> {
    let stream = match timeout(LOGIN_PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%client, "TLS of an HTTPS connection failed: {error}");
            return None;
        }
        Err(_) => return None,
    };
    let (_, connection) = stream.get_ref();
    let handshake = Handshake {
        version: connection.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default(),
        sni: connection.server_name().map(str::to_owned),
        certificate: None,
    };
    Some((stream, handshake))
}

async fn serve_http<S, B>(stream: TlsStream<TcpStream>, client: SocketAddr, patience: Duration, service: S)
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%client, "an HTTPS connection ended: {error}");
    }
}
