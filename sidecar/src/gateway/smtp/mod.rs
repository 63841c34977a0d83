//! SMTP for pods and machines without a sidecar: the listener on the network, who may log in there, and its certificate.
//!
//! What is said to clients is [`crate::smtp`]'s, the sockets and the bounds of each client are [`crate::listener`]'s. Owns whose mail is
//! taken: of users in a file, and of pods by the token of their ServiceAccount. Refuses to know what becomes of a message.

mod certificate;
mod failed_logins;
mod known_logins;
pub mod login;
mod login_order;
pub mod review;
pub mod tokens;
pub mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use mailroute_route::RouteFile;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::certificate::CertificateLoader;
use self::login::Logins;
use self::tokens::{ReviewTokens, Tokens};
use self::users::UsersLoader;
use crate::args::gateway::GatewayOptions;
use crate::config::Config;
use crate::file_watcher::FileWatcher;
use crate::listener::{
    ClientLimits, Listeners, Network, Service, SettingsSource, TlsSource, port, serve_network,
};
use crate::lock;
use crate::smtp::auth::Auth;
use crate::smtp::transaction::{Settings, StartTls};

/// What the listener is made of.
pub struct Parts {
    /// The command line's.
    pub options: GatewayOptions,
    /// What the sessions share; its settings, those of the route, are changed.
    pub service: Service,
    /// The configuration, with the route's rules and its number of sessions.
    pub config: watch::Receiver<Config>,
    /// How often to look for changed files.
    pub poll: Duration,
    /// Who reviews tokens.
    pub review: Option<Arc<dyn ReviewTokens>>,
}

/// A listener on its address. Clients wait until it is run.
pub struct NetworkListener {
    address: SocketAddr,
    listeners: Listeners,
    service: Service,
    network: Arc<Network>,
    sessions_at_once: watch::Receiver<usize>,
    /// What follows files and the route. Ends with this.
    files: JoinSet<()>,
}

impl NetworkListener {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop`, then until the last session has ended.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { listeners, service, network, sessions_at_once, files, .. } = self;
        serve_network(listeners, service, network, sessions_at_once, stop).await;
        drop(files);
    }
}

/// Listens on `--smtp-listen`, with certificate and users loaded; none without that option.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn bind(parts: Parts) -> anyhow::Result<Option<NetworkListener>> {
    let Parts { options, mut service, config, poll, review } = parts;
    let Some(address) = options.smtp_listen else { return Ok(None) };
    let bound = Listeners::bind_network(address).await;
    let listeners =
        bound.with_context(|| format!("cannot listen on {address} for SMTP; see --smtp-listen"))?;
    let address = listeners.addresses().first().copied().unwrap_or(address);

    service.observer.serves_network();

    let mut files = JoinSet::new();
    let (publish_tls, tls) = watch::channel(None);
    if let Some(directory) = &options.smtp_tls {
        let loader = CertificateLoader::new(directory, publish_tls, Arc::clone(&service.observer));
        let watcher = FileWatcher::new(loader.paths()).await;
        loader.load().await;
        files.spawn(follow(watcher, poll, async move || loader.load().await));
    }
    let (publish_users, users) = watch::channel(Arc::default());
    if let Some(path) = &options.smtp_users {
        let loader = UsersLoader::new(path.clone(), publish_users);
        let watcher = FileWatcher::new(vec![path.clone()]).await;
        loader.load().await;
        files.spawn(follow(watcher, poll, async move || loader.load().await));
    }
    let sessions = watch::Sender::new(port::sessions_at_once(&config.borrow()));
    let sessions_at_once = sessions.subscribe();
    files.spawn(follow_sessions(config.clone(), sessions));

    let auth = auth(&options, config.borrow().route.as_deref(), address);
    service.settings = source(Arc::clone(&service.settings), tls.clone(), auth);
    let tokens = Tokens::new(options.smtp_token_namespaces.clone(), config, review);
    let logins = Logins::new(users, tokens).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    let network = Network::new(tls, Arc::new(logins), limits(&options));
    tracing::info!(%address, "listening for SMTP from the network");
    Ok(Some(NetworkListener { address, listeners, service, network, sessions_at_once, files }))
}

fn limits(options: &GatewayOptions) -> ClientLimits {
    let defaults = ClientLimits::default();
    ClientLimits {
        sessions: options.smtp_client_sessions.unwrap_or(defaults.sessions),
        messages_per_minute: options.smtp_client_messages.unwrap_or(defaults.messages_per_minute),
    }
}

/// Why nobody can log in.
fn why_nobody(options: &GatewayOptions, route: Option<&RouteFile>) -> Option<&'static str> {
    match (options.smtp_users.is_some(), options.smtp_token_namespaces.is_empty(), route) {
        (false, true, _) => Some("neither --smtp-users nor --smtp-token-namespaces is set"),
        (false, false, Some(route)) if route.control.is_none() => Some(
            "--smtp-users is not set, and the route has no control service that could have tokens reviewed",
        ),
        _ => None,
    }
}

/// Who has to log in, said in the log.
fn auth(options: &GatewayOptions, route: Option<&RouteFile>, address: SocketAddr) -> Auth {
    let nobody = options.smtp_users.is_none() && options.smtp_token_namespaces.is_empty();
    if options.smtp_without_auth {
        tracing::warn!(
            %address,
            "SMTP WITHOUT LOGIN: everybody who reaches this address can send mail as this route; only a NetworkPolicy protects it"
        );
    } else if let Some(why) = why_nobody(options, route) {
        tracing::error!(why, "nobody can log in");
    }
    match (options.smtp_without_auth, nobody) {
        (true, true) => Auth::Off,
        (without, _) => Auth::Verified { required: !without },
    }
}

/// The route's settings with what is different on the network. Asked for after every read from a client.
fn source(of_route: SettingsSource, tls: TlsSource, auth: Auth) -> SettingsSource {
    let make = move |base: &Settings, has_tls: bool| {
        let start_tls = if has_tls { StartTls::Offered } else { StartTls::Unavailable };
        Arc::new(Settings { auth, start_tls, ..base.clone() })
    };
    let first = of_route();
    let has_tls = tls.borrow().is_some();
    let cached = Mutex::new((make(&first, has_tls), first, has_tls));
    Arc::new(move || {
        let (base, has_tls) = (of_route(), tls.borrow().is_some());
        let mut cached = lock(&cached);
        if !Arc::ptr_eq(&cached.1, &base) || cached.2 != has_tls {
            *cached = (make(&base, has_tls), base, has_tls);
        }
        Arc::clone(&cached.0)
    })
}

/// Calls `load` whenever the files have other content.
async fn follow(watcher: FileWatcher, poll: Duration, load: impl AsyncFn()) {
    let (changed, mut changes) = watch::channel(());
    let (_keep, never) = watch::channel(false);
    let look = move || {
        changed.send_replace(());
    };
    let loads = async {
        while changes.changed().await.is_ok() {
            load().await;
        }
    };
    tokio::join!(watcher.follow(poll, look, never), loads);
}

/// As many sessions at once as the route says.
async fn follow_sessions(mut config: watch::Receiver<Config>, sessions: watch::Sender<usize>) {
    while config.changed().await.is_ok() {
        sessions.send_replace(port::sessions_at_once(&config.borrow()));
    }
}

/// The two files of a certificate in a directory as the kubelet mounts a Secret.
fn certificate_files(directory: &std::path::Path) -> (PathBuf, PathBuf) {
    use mailroute_route::paths::{CERTIFICATE_FILE, KEY_FILE};
    (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::SAMPLE;

    #[test]
    fn whoever_installs_a_gateway_at_which_nobody_can_log_in_is_told_why() {
        let route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        let (users, tokens) = (Some(PathBuf::from("users")), vec!["shop".to_owned()]);
        let options = |smtp_users: &Option<PathBuf>, smtp_token_namespaces: &[String]| GatewayOptions {
            smtp_users: smtp_users.clone(),
            smtp_token_namespaces: smtp_token_namespaces.to_vec(),
            ..GatewayOptions::default()
        };
        let told = why_nobody(&options(&None, &[]), None).unwrap();
        assert!(told.contains("neither --smtp-users"), "{told}");
        let told = why_nobody(&options(&None, &tokens), Some(&route)).unwrap();
        assert!(told.contains("no control service"), "{told}");
        assert_eq!(why_nobody(&options(&None, &tokens), None), None, "the route may come");
        assert_eq!(why_nobody(&options(&users, &[]), Some(&route)), None);
    }
}
