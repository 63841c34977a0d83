//! What a listener for the network has beyond one on localhost: TLS, logins, and bounds for each client address.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};

use super::clients::{ClientLimits, ClientTable};
use crate::lock;
use crate::smtp::auth::{Credentials, LoginResult};

/// The certificate in use, as TLS shows it; none while there is none.
pub type TlsSource = watch::Receiver<Option<Arc<ServerConfig>>>;

/// How long a session that was told to give way may take, before another one is told.
const WAY_MADE: Duration = Duration::from_secs(1);

/// Where a login comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginClient {
    /// The address.
    pub address: IpAddr,
    /// Whether somebody has logged in from there lately.
    pub has_logged_in: bool,
}

/// Whose credentials these are.
#[async_trait]
pub trait Verify: Send + Sync {
    /// Verifies them. Takes as long as it takes, within bounds of its own; writes the log line of a failure.
    async fn verify(&self, credentials: Credentials, client: LoginClient) -> Verified;
}

/// What came of a login, with the name for logs of who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Who it is.
    Accepted(Arc<str>),
    /// Nobody.
    Refused,
    /// It cannot be said now.
    Unavailable,
}

impl Verified {
    /// Without the name.
    pub const fn result(&self) -> LoginResult {
        match self {
            Self::Accepted(_) => LoginResult::Accepted,
            Self::Refused => LoginResult::Refused,
            Self::Unavailable => LoginResult::Unavailable,
        }
    }
}

/// What the sessions of a listener for the network share.
pub struct Network {
    tls: TlsSource,
    verify: Arc<dyn Verify>,
    clients: Mutex<ClientTable>,
}

impl Network {
    /// With nobody connected yet.
    pub fn new(tls: TlsSource, verify: Arc<dyn Verify>, limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self { tls, verify, clients: Mutex::new(ClientTable::new(limits)) })
    }

    /// A place among the sessions of an address; none when it has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let (session, gives_way) = lock(&self.clients).open(address, Instant::now())?;
        Some(Entered { network: Arc::clone(self), address, session, gives_way, is_settled: false })
    }
}

/// One session of an address, counted for as long as this lives.
pub(super) struct Entered {
    network: Arc<Network>,
    address: IpAddr,
    session: u64,
    gives_way: watch::Receiver<bool>,
    is_settled: bool,
}

impl Entered {
    /// The certificate in use.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.network.tls.borrow().clone()
    }

    /// Whose credentials these are.
    pub(super) async fn verify(&self, credentials: Credentials) -> Verified {
        let has_logged_in = lock(&self.network.clients).has_logged_in(self.address, Instant::now());
        let client = LoginClient { address: self.address, has_logged_in };
        self.network.verify.verify(credentials, client).await
    }

    /// Makes other sessions give way to this one, one after another, until it is served.
    pub(super) async fn make_way(&self) -> Infallible {
        loop {
            lock(&self.network.clients).make_way(self.address, Instant::now());
            sleep(WAY_MADE).await;
        }
    }

    /// The session is served from now on.
    pub(super) fn served(&self) {
        lock(&self.network.clients).served(self.session);
    }

    /// Ends when the session has to give way to another one; never once it is settled.
    pub(super) fn gives_way(&self) -> impl Future<Output = ()> + use<> {
        let mut gives_way = self.gives_way.clone();
        async move {
            if gives_way.wait_for(|&gives_way| gives_way).await.is_err() {
                pending().await
            }
        }
    }

    /// The client has begun a message: the session gives way to nobody.
    ///
    /// # Errors
    /// When it has to already.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if !self.is_settled {
            self.is_settled = lock(&self.network.clients).settle(self.session);
        }
        self.is_settled
            .then_some(())
            .ok_or_else(|| io::Error::other("the session gave way to another client"))
    }

    /// The same of a client that has logged in.
    ///
    /// # Errors
    /// When it has to already.
    pub(super) fn logged_in(&mut self) -> io::Result<()> {
        lock(&self.network.clients).logged_in(self.address, Instant::now());
        self.settle()
    }

    /// Counts a message.
    pub(super) fn message(&self) {
        lock(&self.network.clients).message(self.address, Instant::now());
    }

    /// Whether the address has to wait with its next message.
    pub(super) fn is_throttled(&self) -> bool {
        lock(&self.network.clients).is_throttled(self.address, Instant::now())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.network.clients).close(self.session, self.address, Instant::now());
    }
}
