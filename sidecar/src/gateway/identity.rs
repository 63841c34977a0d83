//! This pod's certificate for its route, by which sidecars and gateways know each other; names as in
//! [`mailroute_route::identity`].
//!
//! Owns what is verified: the CA of the route file, and the role and the route in the peer's certificate; and, in `renewal`, how the
//! certificate is had from the operator; in `stored`, how a restart of the container finds it again. Refuses to know what is said over
//! the connection.

mod renewal;
mod stored;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use mailroute_route::file::Gateway;
use mailroute_route::identity::{Role, dns_name};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::{Notify, watch};
use tokio::time::timeout_at;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::renewal::Held;
pub use self::stored::IDENTITY_FILE;
use crate::clock;
use crate::config::Config;
use crate::net::tls::{Trust, TrustError, client_config_with, roots_from_pem};

/// Why there is no TLS between sidecar and gateway.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The route has no gateway, or there is no route.
    #[error("the route has no gateway")]
    NoGateway,
    /// The operator has no CA yet.
    #[error("the operator has no CA yet that signs certificates of sidecars and gateways")]
    NoAuthority,
    /// The operator has issued no certificate yet.
    #[error("the operator has not issued a certificate for this pod yet")]
    NoCertificate,
    /// The certificate has ended.
    #[error("this pod's certificate has expired, the operator has not renewed it since {0}")]
    Expired(Timestamp),
    /// The CA bundle of the route file cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Names or certificates that TLS cannot use.
    #[error("the certificates cannot be used for TLS: {0}")]
    Tls(String),
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the pod does for the route.
    pub role: Role,
    /// The URI in its certificate, which names the pod. For logs.
    pub uri: String,
}

/// Why the other end is nobody to talk to.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the client has shown no certificate")]
    NoCertificate,
    /// Its certificate is not of a pod of this route.
    #[error("the client's certificate is not of a pod of this route")]
    OtherRoute,
}

/// What a connection rests on. When one of the two changes, the connection is not used any more.
#[derive(Clone)]
pub struct Basis {
    /// The route's gateway, with the CA that its certificate chains to.
    gateway: Gateway,
    /// This pod's certificate.
    certified: Arc<CertifiedKey>,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.gateway == other.gateway && Arc::ptr_eq(&self.certified, &other.certified)
    }
}

/// Changes of an [`Identity`].
pub struct IdentityChanges {
    held: watch::Receiver<Option<Held>>,
    failure: watch::Receiver<Option<String>>,
    config: watch::Receiver<Config>,
}

impl IdentityChanges {
    /// Completes at the next change.
    pub async fn next(&mut self) {
        tokio::select! {
            Ok(()) = self.held.changed() => {}
            Ok(()) = self.failure.changed() => {}
            Ok(()) = self.config.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Told when a new certificate ends, seconds since the epoch.
type Observer = Box<dyn Fn(i64) + Send + Sync>;

/// This pod's certificate and key, and what it verifies others with.
pub struct Identity {
    config: watch::Receiver<Config>,
    role: Role,
    held: watch::Sender<Option<Held>>,
    /// Why the operator has issued none when it was asked last.
    failure: watch::Sender<Option<String>>,
    /// Somebody needs one.
    wanted: Notify,
    observer: OnceLock<Observer>,
    /// Where it outlives the process.
    file: OnceLock<PathBuf>,
}

impl Identity {
    /// Without a certificate yet. [`Identity::run`] gets one.
    pub fn new(config: watch::Receiver<Config>, role: Role) -> Arc<Self> {
        Arc::new(Self {
            config,
            role,
            held: watch::Sender::default(),
            failure: watch::Sender::default(),
            wanted: Notify::new(),
            observer: OnceLock::new(),
            file: OnceLock::new(),
        })
    }

    /// Tells `observer` when each new certificate ends, seconds since the epoch: for the metric. The first observer counts.
    pub fn observe(&self, observer: impl Fn(i64) + Send + Sync + 'static) {
        // The second one tells the same metric.
        let _ = self.observer.set(Box::new(observer));
    }

    /// Keeps certificate and key in this file, and takes them from there at the start. The first call counts.
    pub fn keep_in(&self, file: PathBuf) {
        // The second one names the same.
        let _ = self.file.set(file);
    }

    /// What this pod does for the route.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Uses this certificate from the next connection on.
    pub fn set(&self, certified: Arc<CertifiedKey>) {
        self.hold(certified, clock::unix_seconds());
    }

    /// The same with one that was issued at `begins`, in seconds since the epoch.
    fn hold(&self, certified: Arc<CertifiedKey>, begins: i64) {
        let held = Held::new(certified, begins, clock::chance());
        if let Some(observer) = self.observer.get() {
            observer(held.ends());
        }
        self.held.send_replace(Some(held));
    }

    /// A certificate is needed: after a failure the operator is asked again soon.
    pub fn wanted(&self) {
        self.wanted.notify_one();
    }

    /// Why this pod has no certificate that it can use, once it has been asked for in vain. None while it has one, or needs none.
    pub fn problem(&self) -> Option<String> {
        match self.usable() {
            Ok(_) | Err(IdentityError::NoGateway) => None,
            Err(error @ IdentityError::NoAuthority) => Some(error.to_string()),
            Err(error) => self.failure.borrow().as_ref().map(|failure| format!("{error}: {failure}")),
        }
    }

    /// Whether this pod has a certificate that it can use, or needs none.
    ///
    /// # Errors
    /// When it needs one and has none.
    pub fn ready(&self) -> Result<(), IdentityError> {
        match self.usable() {
            Ok(_) | Err(IdentityError::NoGateway) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells when the certificate, the lack of one or the route has changed.
    pub fn changes(&self) -> IdentityChanges {
        let (held, failure) = (self.held.subscribe(), self.failure.subscribe());
        IdentityChanges { held, failure, config: self.config.clone() }
    }

    /// The route's gateway, as the route file has it now.
    pub fn gateway(&self) -> Option<Gateway> {
        self.config.borrow().route.as_ref().and_then(|route| route.gateway.clone())
    }

    /// For a connection to a gateway of the route: this pod's certificate is shown, and the server's has to be of a gateway of the
    /// same route.
    ///
    /// # Errors
    /// While there is no gateway, no certificate or no CA.
    pub async fn client(&self) -> Result<(Arc<ClientConfig>, ServerName<'static>), IdentityError> {
        let (gateway, certified) = self.both()?;
        let name = ServerName::try_from(self.name(Role::Gateway)?)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let config = client_config_with(&Trust::Pem(gateway.ca_pem), Some(certified)).await?;
        Ok((config, name))
    }

    /// Waits for the first certificate of a pod that has just started, but no longer than until `deadline`.
    ///
    /// # Errors
    /// While there is no gateway, no certificate or no CA.
    pub async fn certified_by(&self, deadline: clock::Instant) -> Result<(), IdentityError> {
        let mut held = self.held.subscribe();
        match self.both() {
            Err(IdentityError::NoCertificate) => {}
            result => return result.map(drop),
        }
        drop(timeout_at(deadline, held.wait_for(Option::is_some)).await);
        self.both().map(drop)
    }

    /// What connections rest on from now on.
    ///
    /// # Errors
    /// While there is no gateway, no certificate or no CA.
    pub fn basis(&self) -> Result<Basis, IdentityError> {
        let (gateway, certified) = self.both()?;
        Ok(Basis { gateway, certified })
    }

    /// For connections of sidecars and of other gateways: they have to show a certificate of the CA; [`Identity::peer`] tells whose.
    ///
    /// # Errors
    /// While there is no gateway, no certificate or no CA.
    pub fn server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let (gateway, certified) = self.both()?;
        let roots = Arc::new(roots_from_pem(gateway.ca_pem.as_bytes())?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| IdentityError::Tls(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // Every connection shows its certificate anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Who a client is, by the chain that it has shown and TLS has verified: a sidecar or a gateway of this route.
    ///
    /// # Errors
    /// When it is neither.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<Peer, PeerError> {
        let leaf = chain.and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| PeerError::OtherRoute)?;
        let is = |role: &Role| {
            let name = self.name(*role).ok().and_then(|name| ServerName::try_from(name).ok());
            name.is_some_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        let role = [Role::Sidecar, Role::Gateway].into_iter().find(is).ok_or(PeerError::OtherRoute)?;
        Ok(Peer { role, uri: uri_of(leaf).unwrap_or_default() })
    }

    fn both(&self) -> Result<(Gateway, Arc<CertifiedKey>), IdentityError> {
        self.usable().inspect_err(|_| self.wanted())
    }

    fn usable(&self) -> Result<(Gateway, Arc<CertifiedKey>), IdentityError> {
        let gateway = self.gateway().ok_or(IdentityError::NoGateway)?;
        if gateway.ca_pem.is_empty() {
            return Err(IdentityError::NoAuthority);
        }
        let certified = self.held().ok_or(IdentityError::NoCertificate)?.at(clock::unix_seconds())?;
        Ok((gateway, certified))
    }

    fn held(&self) -> Option<Held> {
        self.held.borrow().clone()
    }

    fn name(&self, role: Role) -> Result<String, IdentityError> {
        let config = self.config.borrow();
        let route = config.route.as_ref().ok_or(IdentityError::NoGateway)?;
        Ok(dns_name(role, &route.namespace, &route.name))
    }
}

fn uri_of(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    #[tokio::test]
    async fn a_pod_that_has_just_started_waits_for_its_first_certificate() {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["pod.example".to_owned()]).unwrap();
        let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        route.gateway = Some(Gateway { host: "mail-gateway".into(), ca_pem: cert.pem() });
        let config = Config { route: Some(Arc::new(route)), ..Config::default() };
        let identity = Identity::new(watch::channel(config).1, Role::Sidecar);
        let none = identity.certified_by(clock::now()).await;
        assert!(matches!(none, Err(IdentityError::NoCertificate)), "{none:?}");

        let of_pod = Arc::clone(&identity);
        let later = clock::now() + Duration::from_secs(60);
        let waiting = tokio::spawn(async move { of_pod.certified_by(later).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let provider = rustls::crypto::ring::default_provider();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let certified = CertifiedKey::from_der(vec![cert.der().clone()], key, &provider).unwrap();
        identity.set(Arc::new(certified));
        waiting.await.unwrap().unwrap();
    }
}
