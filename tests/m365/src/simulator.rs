//! The running simulator: its ports, one shared state, and the handle that tests hold.
//!
//! Dropping the handle ends everything it started.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    authority::{Authority, ClientIdentity, TlsError},
    config::Config,
    control::Configurations,
    directory::Directory,
    dns::Lookup,
    entra::{AccessTokenKey, Resource, TokenExchange},
    faces::{self, Doors, Handshakes, Ports, Running},
    faults::Faults,
    files::write_atomically,
    keys::client_certificate,
    mailbox::Message,
    office::{Office, Shared},
    options::{Addresses, Options, StartError},
    records::{GraphRequest, NonDeliveryReport},
    stand_in::StandIn,
    state::Stored,
    tally::Statistics,
    tls::Identity,
    violations::Violation,
};

/// A running simulator.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    ca_pem: String,
    authority: Arc<Authority>,
    addresses: Addresses,
    doors: Doors<watch::Receiver<bool>>,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts all faces. They accept connections when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let faults = options.config.faults();
        if !faults.is_empty() {
            return Err(StartError::Config(faults.join("; ")));
        }
        let identity = Identity::new(&options.names, options.state.as_deref())?;
        let ports = Ports::open(&options).await?;
        let configurations =
            Configurations { stored: Stored::in_directory(options.state.as_deref()), first: options.config };
        let config = configurations.stored.config().unwrap_or_else(|| configurations.first.clone());
        let office = Office::new(config, AccessTokenKey::generate(), options.names);
        let mut simulator = Self {
            shared: Arc::new(Shared::new(office)),
            ca_pem: identity.authority.pem.clone(),
            addresses: ports.addresses,
            doors: ports.doors.map(watch::Sender::subscribe),
            authority: Arc::new(identity.authority),
            tasks: JoinSet::new(),
        };
        let tls = Handshakes::new(identity.submission, identity.relay, identity.other_name);
        let running = Running {
            shared: Arc::clone(&simulator.shared),
            authority: Arc::clone(&simulator.authority),
            configurations: Arc::new(configurations),
            tls,
        };
        faces::run(&mut simulator.tasks, ports, &running);
        Ok(simulator)
    }

    /// Where SMTP submission listens.
    #[must_use]
    pub fn smtp_address(&self) -> SocketAddr {
        self.addresses.smtp
    }

    /// Where the MX endpoint listens.
    #[must_use]
    pub fn relay_address(&self) -> SocketAddr {
        self.addresses.relay
    }

    /// Where High Volume Email listens.
    #[must_use]
    pub fn high_volume_email_address(&self) -> SocketAddr {
        self.addresses.high_volume_email
    }

    /// Where Communication Services listens for SMTP.
    #[must_use]
    pub fn communication_services_address(&self) -> SocketAddr {
        self.addresses.communication_services
    }

    /// Where Graph listens.
    #[must_use]
    pub fn graph_address(&self) -> SocketAddr {
        self.addresses.graph
    }

    /// Where the token endpoint listens.
    #[must_use]
    pub fn login_address(&self) -> SocketAddr {
        self.addresses.login
    }

    /// Where the name server listens, UDP and TCP.
    #[must_use]
    pub fn dns_address(&self) -> SocketAddr {
        self.addresses.dns
    }

    /// Where the control API listens.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.addresses.control
    }

    /// The certificate (PEM) that clients must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.shared.read(|office| office.messages.iter().cloned().collect())
    }

    /// Notes a message as if it had arrived; for tests of what reads them.
    pub fn insert(&self, message: Message) {
        self.shared.with(|office| office.messages.push_back(message));
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

    /// Questions to the name server seen so far.
    #[must_use]
    pub fn lookups(&self) -> Vec<Lookup> {
        self.shared.read(|office| office.lookups.clone())
    }

    /// Requests at Graph seen so far.
    #[must_use]
    pub fn requests(&self) -> Vec<GraphRequest> {
        self.shared.read(|office| office.requests.clone())
    }

    /// What Exchange did not deliver after Graph had accepted it.
    #[must_use]
    pub fn non_delivery_reports(&self) -> Vec<NonDeliveryReport> {
        self.shared.read(|office| office.non_delivery_reports.clone())
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
        let wanted = self.shared.read(Doors::wanted);
        for (door, wanted) in self.doors.each().into_iter().zip(wanted.each()) {
            // A face that failed holds its door no longer; its error is in the log and callers meet a closed port.
            drop(door.clone().wait_for(|open| open == wanted).await);
        }
    }

    /// A certificate for a client of SMTP relay with these names, from an authority that connectors trust. It ends
    /// `seconds` from now, or so many ago.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an address.
    pub fn relay_certificate(&self, names: &[&str], seconds: i64) -> Result<ClientIdentity, TlsError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.authority.client(&names, Timestamp::now(), seconds)
    }

    /// What signs for the stand-in issuer, usable beside the handle.
    pub fn signer(&self) -> impl Fn(&str) -> String + Clone + use<> {
        let shared = Arc::clone(&self.shared);
        move |subject| shared.read(|office| office.stand_in.assertion(subject, Timestamp::now(), 3600))
    }

    /// An access token for client submission as the token endpoint would issue it to the sample application; for tests of
    /// that face alone. It is valid for `seconds` from now, or was until so many seconds ago.
    #[must_use]
    pub fn access_token(&self, subject: &str, seconds: i64) -> String {
        self.access_token_for(Resource::Submission, subject, seconds)
    }

    /// The same for another service.
    #[must_use]
    pub fn access_token_for(&self, resource: Resource, subject: &str, seconds: i64) -> String {
        self.shared.read(|office| office.sample_token(resource, subject, Timestamp::now(), seconds))
    }

    /// The state of the service, usable beside the handle.
    #[must_use]
    pub fn office(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs until one of the faces fails; for the program.
    pub async fn wait(mut self) {
        self.tasks.join_next().await;
    }
}
