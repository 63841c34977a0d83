//! The ports, opened and served: which face is behind which, and the doors that faults shut.
//!
//! The only file that sees every face. It refuses to know what they say.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    authority::Authority,
    control::{self, Configurations},
    dns::{self, server::Sockets},
    entra::{
        issuers::Issuers,
        server::{Login, routes},
    },
    listener,
    mailbox::Face,
    office::{Office, Shared},
    simulator::{Options, StartError},
    submission::connection::{self, Entrance},
};

/// Time for the TLS handshake and the headers of a request at the token endpoint.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Where the faces listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Client submission.
    pub smtp: SocketAddr,
    /// The MX endpoint.
    pub relay: SocketAddr,
    /// The token endpoint.
    pub login: SocketAddr,
    /// The name server, UDP and TCP.
    pub dns: SocketAddr,
    /// The control API.
    pub control: SocketAddr,
}

/// One of something for each face that can go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors<T> {
    /// Client submission.
    pub smtp: T,
    /// The MX endpoint.
    pub relay: T,
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
        Doors { smtp: change(&self.smtp), relay: change(&self.relay), login: change(&self.login) }
    }
}

impl Doors<bool> {
    /// Which faces the faults leave open.
    #[must_use]
    pub fn wanted(office: &Office) -> Self {
        let faults = &office.faults;
        Self { smtp: !faults.submission.down, relay: !faults.relay.down, login: !faults.login.down }
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
        let (smtp, relay) = (listen(options.smtp).await?, listen(options.relay).await?);
        let (login, control) = (listen(options.login).await?, listen(options.control).await?);
        let (dns, dns_address) = Sockets::open(options.dns)
            .await
            .map_err(|source| StartError::Listen { address: options.dns, source })?;
        let listeners = Doors { smtp: smtp.0, relay: relay.0, login: login.0 };
        Ok(Self {
            addresses: Addresses {
                smtp: smtp.1,
                relay: relay.1,
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
    tasks.spawn(report(serve_smtp((listeners.smtp, open.smtp), doors.smtp.subscribe(), entrance)));
    tasks.spawn(report(serve_smtp((listeners.relay, open.relay), doors.relay.subscribe(), relay)));
    let entra = Login { shared: Arc::clone(&running.shared), issuers: Arc::new(Issuers::default()) };
    let tls = running.tls.submission.clone();
    tasks.spawn(report(serve_login((listeners.login, open.login), doors.login.subscribe(), entra, tls)));
    let control_routes = control::routes(
        Arc::clone(&running.shared),
        Arc::clone(&running.authority),
        Arc::clone(&running.configurations),
    );
    tasks.spawn(report(async move { axum::serve(control, control_routes).await }));
    tasks.spawn(report(dns::server::serve(dns, Arc::clone(&running.shared))));
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
        doors.smtp.send_replace(next.smtp);
        doors.relay.send_replace(next.relay);
        doors.login.send_replace(next.login);
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

async fn serve_https(
    stream: TcpStream,
    client: SocketAddr,
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    routes: Router,
) {
    let stream = match timeout(LOGIN_PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%client, "TLS at the token endpoint failed: {error}"),
        Err(_) => return,
    };
    let sni = stream.get_ref().1.server_name().map(str::to_owned);
    shared.with(|office| office.check_server_name(Timestamp::now(), 0, Face::Submission, sni.as_deref()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(LOGIN_PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%client, "connection to the token endpoint ended: {error}");
    }
}
