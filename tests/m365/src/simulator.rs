//! The running simulator: three ports, one shared state, and the handle that tests hold.
//!
//! The only file that sees every part. Dropping the handle ends everything it started.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use jiff::Timestamp;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::Config,
    control,
    directory::Directory,
    entra::{
        AccessTokenKey, TokenExchange, client_certificate,
        issuers::Issuers,
        server::{Login, routes},
    },
    faults::Faults,
    listener,
    mailbox::Message,
    office::{Office, Shared},
    stand_in::StandIn,
    submission,
    tally::Statistics,
    tls::{Identity, TlsError},
    violations::Violation,
};

/// Time for the TLS handshake and the headers of a request at the token endpoint.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// How the simulator starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the submission face.
    pub smtp: SocketAddr,
    /// Address of the token endpoint.
    pub login: SocketAddr,
    /// Address of the control API.
    pub control: SocketAddr,
    /// Names in the certificate. Clients must ask for one of them.
    pub names: Vec<String>,
    /// Set-up.
    pub config: Config,
    /// Where the certificate authority is kept; absent means in memory.
    pub state: Option<PathBuf>,
}

/// A listener, and where it tells whether it is open.
type Port = (TcpListener, watch::Sender<bool>);

/// Why the simulator does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A running simulator.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    ca_pem: String,
    smtp: SocketAddr,
    login: SocketAddr,
    control: SocketAddr,
    smtp_open: watch::Receiver<bool>,
    login_open: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl Default for Options {
    /// Free ports on loopback, the name `localhost`, the sample directory, no tarpit.
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config::contoso();
        config.pace.tarpit_milliseconds = 0;
        config.tokens.keys_refetch_seconds = 0;
        Self {
            smtp: loopback,
            login: loopback,
            control: loopback,
            names: vec!["localhost".into()],
            config,
            state: None,
        }
    }
}

impl Simulator {
    /// Starts all three faces. They accept connections when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let faults = options.config.faults();
        if !faults.is_empty() {
            return Err(StartError::Config(faults.join("; ")));
        }
        let identity = Identity::new(&options.names, options.state.as_deref())?;
        let (smtp, login, control) =
            (listen(options.smtp).await?, listen(options.login).await?, listen(options.control).await?);
        let office = Office::new(options.config, AccessTokenKey::generate(), options.names);
        let (smtp_open, login_open) = (watch::Sender::new(true), watch::Sender::new(true));
        let mut simulator = Self {
            shared: Arc::new(Shared::new(office)),
            ca_pem: identity.ca_pem.clone(),
            smtp: smtp.1,
            login: login.1,
            control: control.1,
            smtp_open: smtp_open.subscribe(),
            login_open: login_open.subscribe(),
            tasks: JoinSet::new(),
        };
        let tls = TlsAcceptor::from(identity.server);
        simulator.run((smtp.0, smtp_open), (login.0, login_open), control.0, &tls);
        Ok(simulator)
    }

    fn run(&mut self, smtp: Port, login: Port, control: TcpListener, tls: &TlsAcceptor) {
        let (smtp_door, login_door) = (watch::Sender::new(true), watch::Sender::new(true));
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(report(serve_smtp(smtp, smtp_door.subscribe(), shared, tls.clone())));
        let entra = Login { shared: Arc::clone(&self.shared), issuers: Arc::new(Issuers::default()) };
        self.tasks.spawn(report(serve_login(login, login_door.subscribe(), entra, tls.clone())));
        let control_routes = control::routes(Arc::clone(&self.shared), self.ca_pem.clone());
        self.tasks.spawn(report(async move { axum::serve(control, control_routes).await }));
        self.tasks.spawn(keep_doors(Arc::clone(&self.shared), smtp_door, login_door));
    }

    /// Where SMTP submission listens.
    #[must_use]
    pub fn smtp_address(&self) -> SocketAddr {
        self.smtp
    }

    /// Where the token endpoint listens.
    #[must_use]
    pub fn login_address(&self) -> SocketAddr {
        self.login
    }

    /// Where the control API listens.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.control
    }

    /// The certificate (PEM) that clients must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.shared.read(|office| office.messages.clone())
    }

    /// Notes a message as if it had arrived; for tests of what reads them.
    pub fn insert(&self, message: Message) {
        self.shared.with(|office| office.messages.push(message));
    }

    /// Waits until `count` messages are there, or `patience` is over; gives what is there.
    pub async fn wait_for_messages(&self, count: usize, patience: Duration) -> Vec<Message> {
        let enough = |office: &Office| (office.messages.len() >= count).then_some(());
        // After the time is over, the caller sees by the number what is missing.
        drop(timeout(patience, self.shared.wait_for(enough)).await);
        self.messages()
    }

    /// Waits until `look` gives a value, or `patience` is over.
    pub async fn wait_for<R>(&self, patience: Duration, look: impl FnMut(&Office) -> Option<R>) -> Option<R> {
        timeout(patience, self.shared.wait_for(look)).await.ok()
    }

    /// Looks at the state of the service.
    pub fn read<R>(&self, look: impl FnOnce(&Office) -> R) -> R {
        self.shared.read(look)
    }

    /// Breaches seen so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.read(|office| office.violations.clone())
    }

    /// Counters and peaks: replies 432, 421 and 5.2.25x given, messages in a minute, submitting connections.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.read(Office::statistics)
    }

    /// Begins the counters and peaks anew.
    pub fn forget_statistics(&self) {
        self.shared.with(Office::forget_statistics);
    }

    /// Token requests seen so far.
    #[must_use]
    pub fn exchanges(&self) -> Vec<TokenExchange> {
        self.shared.read(|office| office.exchanges.clone())
    }

    /// Switches faults on, in the place of those before. When a face goes down or comes up, wait for it with
    /// [`Self::wait_until_settled`].
    pub fn set_faults(&self, faults: Faults) {
        self.shared.with(|office| office.faults = faults);
    }

    /// Changes the directory.
    pub fn directory<R>(&self, change: impl FnOnce(&mut Directory) -> R) -> R {
        self.shared.with(|office| change(&mut office.config.directory))
    }

    /// Changes anything in the configuration.
    pub fn config<R>(&self, change: impl FnOnce(&mut Config) -> R) -> R {
        self.shared.with(|office| change(&mut office.config))
    }

    /// Changes the stand-in issuer, for example [`StandIn::rotate`].
    pub fn stand_in<R>(&self, change: impl FnOnce(&mut StandIn) -> R) -> R {
        self.shared.with(|office| change(&mut office.stand_in))
    }

    /// An assertion of the stand-in issuer for `system:serviceaccount:<namespace>:<name>`, valid for an hour.
    #[must_use]
    pub fn assertion(&self, subject: &str) -> String {
        self.signer()(subject)
    }

    /// The certificate that the sample application is registered with, and its key, both PEM.
    #[must_use]
    pub fn client_certificate(&self) -> (&'static str, &'static str) {
        let certificate = client_certificate::stand_in();
        (certificate.certificate_pem(), certificate.key_pem())
    }

    /// Writes [`Self::assertion`] to a file, as the kubelet would: readers see the old or the new, never a part.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_assertion(&self, subject: &str, path: &Path) -> io::Result<()> {
        write_atomically(path, &self.assertion(subject))
    }

    /// Waits until the ports are open or closed, as the faults have it.
    pub async fn wait_until_settled(&self) {
        let (smtp, login) =
            self.shared.read(|office| (!office.faults.submission.down, !office.faults.login.down));
        // A face that failed holds its door no longer; its error is in the log and callers meet a closed port.
        drop(self.smtp_open.clone().wait_for(|open| *open == smtp).await);
        drop(self.login_open.clone().wait_for(|open| *open == login).await);
    }

    /// What signs for the stand-in issuer, usable beside the handle.
    pub fn signer(&self) -> impl Fn(&str) -> String + Clone + use<> {
        let shared = Arc::clone(&self.shared);
        move |subject| shared.read(|office| office.stand_in.assertion(subject, Timestamp::now(), 3600))
    }

    /// An access token as the token endpoint would issue it to the sample application; for tests of the
    /// submission face alone. It is valid for `seconds` from now, or was until so many seconds ago.
    #[must_use]
    pub fn access_token(&self, subject: &str, seconds: i64) -> String {
        self.shared.read(|office| office.sample_token(subject, Timestamp::now(), seconds))
    }

    /// Runs until one of the faces fails; for the program.
    pub async fn wait(mut self) {
        self.tasks.join_next().await;
    }
}

/// Writes `text` beside `path` and renames it into place.
///
/// # Errors
/// The file cannot be written.
pub fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

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
async fn keep_doors(shared: Arc<Shared>, smtp: watch::Sender<bool>, login: watch::Sender<bool>) {
    loop {
        let wanted = |office: &Office| (!office.faults.submission.down, !office.faults.login.down);
        let now = (*smtp.borrow(), *login.borrow());
        let next = shared.wait_for(|office| Some(wanted(office)).filter(|wanted| *wanted != now)).await;
        smtp.send_replace(next.0);
        login.send_replace(next.1);
    }
}

async fn serve_smtp(
    (listener, open): Port,
    door: watch::Receiver<bool>,
    shared: Arc<Shared>,
    tls: TlsAcceptor,
) -> io::Result<()> {
    let mut last = 0;
    listener::accept(listener, door, open, move |stream, client| {
        last += 1;
        submission::connection::serve(stream, client, last, Arc::clone(&shared), tls.clone())
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
    shared.with(|office| office.check_server_name(Timestamp::now(), 0, sni.as_deref()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(LOGIN_PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%client, "connection to the token endpoint ended: {error}");
    }
}
