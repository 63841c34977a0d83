//! What a listener for the network has beyond one on localhost: TLS, logins, and bounds for each client address.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use super::clients::{ClientLimits, ClientTable};
use crate::lock;
use crate::smtp::auth::{Credentials, LoginResult};

/// The certificate in use, as TLS shows it; none while there is none.
pub type TlsSource = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Whose credentials these are.
#[async_trait]
pub trait Verify: Send + Sync {
    /// Verifies them. Takes as long as it takes, within bounds of its own; writes the log line of a failure.
    async fn verify(&self, credentials: Credentials, client: IpAddr) -> Verified;
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

    /// The certificate in use.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.borrow().clone()
    }

    pub(super) async fn verify(&self, credentials: Credentials, client: IpAddr) -> Verified {
        self.verify.verify(credentials, client).await
    }

    /// A place among the sessions of an address; none when it has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let entered = lock(&self.clients).open(address, Instant::now());
        entered.then(|| Entered { network: Arc::clone(self), address })
    }
}

/// One session of an address, counted for as long as this lives.
pub(super) struct Entered {
    pub(super) network: Arc<Network>,
    address: IpAddr,
}

impl Entered {
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
        lock(&self.network.clients).close(self.address, Instant::now());
    }
}
