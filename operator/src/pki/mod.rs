//! The certificates of the admission webhook and the control service: of an authority of our own, with nothing to set
//! up, or given in a Secret that cert-manager or a person keeps.
//!
//! ```text
//! leader                         every replica
//! Secret ◄── keyring::due / advance ◄─┐      ┌─► leaf::is_wanted ─► sign ─► ServedLeaf ─► server
//! │                                 │      │
//! └──────────── watch ──────────────┴──────┤
//! caBundle ◄── trust::publish (server-side apply of that field)
//! └──────────── watch ─────────────────────┴─► ready: our leaf chains to the live caBundle
//! ```
//! With a given certificate the Secret is only watched ([`external_certificate`]), and the `caBundle` is written by the leader from its
//! `ca.crt`, or by cert-manager's injector.
//!
//! * [`authority`]: one CA, and the leaves it signs. [`bundle`]: CAs that are trusted together.
//! * [`keyring`]: which CA signs when, a state machine over values. [`leaf`]: when this replica takes a new leaf.
//! * [`anchors`], [`external_certificate`]: certificates that somebody else keeps, and which of two is served.
//! * [`secret`], [`trust`]: the two objects. [`tls`]: the server's configuration. The keeper (own authority) and the follower (given
//! certificate) tie them together for one replica; the publisher owns the write of the `caBundle`.
//!
//! Invariant: at any instant every leaf that a replica serves chains to the published bundle, through any number of
//! rotations. It is broken only by force: deleting the Secret begins anew, so that a stolen CA can be thrown away; and,
//! with a given certificate, by whoever gives it or keeps the bundle.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::leader_election::Leadership;
use ca_rotation::CaRotation;
use replica::Replica;
use secret_watcher::SecretWatcher;

pub mod anchors;
pub mod authority;
pub mod bundle;
mod ca_rotation;
pub mod external_certificate;
pub mod keyring;
pub mod leaf;
mod pace;
mod publisher;
mod replica;
pub mod secret;
mod secret_watcher;
pub mod tls;
pub mod trust;
mod watching;

pub use keyring::Lifetimes;

/// Who owns the fields that this module writes.
const FIELD_MANAGER: &str = "mailroute-operator-pki";

/// Longest call to the API server.
const CALL: Duration = Duration::from_secs(10);
/// Longest sleep: a clock that was set, or a machine that slept, is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Shortest sleep, so that a wake-up a moment too early does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// Whose certificate is served, and from which Secret of the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// An authority of our own, founded and rotated by the leader, and published in the `caBundle`.
    Own {
        /// The Secret that holds the authorities.
        secret: String,
        /// How long things live.
        lifetimes: Lifetimes,
    },
    /// A certificate with key and CA that somebody else keeps.
    External {
        /// The Secret that holds them.
        secret: String,
        /// Whether the leader publishes its CA in the `caBundle`; else that is somebody else's, too.
        publishes: bool,
    },
}

/// The webhook configuration as it was read last: the outer `None` before the first answer, the inner one when there is
/// no such object.
pub type WebhookConfiguration = Option<Option<MutatingWebhookConfiguration>>;

/// What came of writing the `caBundle`.
#[derive(Clone, Copy, Debug)]
pub enum BundleWritten<'a> {
    /// A new bundle is published.
    Bundle,
    /// Another actor had changed it, as seen here, and it is put right.
    Repair(&'a MutatingWebhookConfiguration),
    /// It could not be written.
    Failure,
}

/// Who is told what came of writing the `caBundle`.
pub type OnBundleWritten = Arc<dyn Fn(BundleWritten<'_>) + Send + Sync>;

/// Where the certificates are kept, and what they are for.
#[derive(Clone)]
pub struct PkiSettings {
    /// Namespace of the operator.
    pub namespace: String,
    /// Source of the served certificate.
    pub source: CertificateSource,
    /// Name of the MutatingWebhookConfiguration whose entry [`trust::WEBHOOK`] calls us.
    pub webhook_configuration: String,
    /// DNS names of the served certificate, see [`service_names`].
    pub names: Vec<String>,
    /// Who is told of writes.
    pub tell: OnBundleWritten,
}

/// The DNS names under which a Service is called inside the cluster.
pub fn service_names(service: &str, namespace: &str, cluster_domain: &str) -> Vec<String> {
    let short = format!("{service}.{namespace}.svc");
    let long = format!("{short}.{cluster_domain}");
    vec![short, long]
}

/// When things end; `None` while they do not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// The served certificate.
    pub leaf: Option<Timestamp>,
    /// The CA that signs.
    pub ca: Option<Timestamp>,
}

/// What the rest of the program needs of the certificates.
#[derive(Clone, Debug)]
pub struct Pki {
    /// For a server; always has the newest certificate.
    pub tls: Arc<ServerConfig>,
    /// The CAs that sign or will sign or did sign the served certificates, PEM. Empty until they are known.
    pub ca_bundle: watch::Receiver<String>,
    /// Whether the certificate of this replica chains to the live `caBundle`, so that API servers accept it.
    pub ready: watch::Receiver<bool>,
    /// For the metric.
    pub expiry: watch::Receiver<Expiry>,
    /// The webhook configuration, as it is read for the above.
    pub registration: watch::Receiver<WebhookConfiguration>,
}

/// What the rest of the program learns.
struct Announcements {
    ca_bundle: watch::Sender<String>,
    ready: watch::Sender<bool>,
    expiry: watch::Sender<Expiry>,
    registration: watch::Sender<WebhookConfiguration>,
}

fn announcements() -> (Announcements, impl FnOnce(Arc<ServerConfig>) -> Pki) {
    let (ca_bundle, to_ca_bundle) = watch::channel(String::new());
    let (ready, to_ready) = watch::channel(false);
    let (expiry, to_expiry) = watch::channel(Expiry::default());
    let (registration, to_registration) = watch::channel(None);
    let pki = |tls| Pki {
        tls,
        ca_bundle: to_ca_bundle,
        ready: to_ready,
        expiry: to_expiry,
        registration: to_registration,
    };
    (Announcements { ca_bundle, ready, expiry, registration }, pki)
}

fn sleep_until(next: Timestamp, now: Timestamp) -> Duration {
    // What is past is negative, and due.
    let until = Duration::try_from(next.duration_since(now)).unwrap_or_default();
    until.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

/// Sets the certificates up. The future keeps them good and has to be polled for as long as they are used; it ends
/// only when the sender of `leading` is dropped. While this replica leads it also founds and rotates the CA.
///
/// # Errors
/// When the TLS library refuses the configuration.
pub fn start(
    client: Client,
    settings: PkiSettings,
    leading: watch::Receiver<Leadership>,
) -> Result<(Pki, impl Future<Output = ()> + Send), rustls::Error> {
    let (announce, pki) = announcements();
    let source = settings.source.clone();
    let (CertificateSource::Own { secret, .. } | CertificateSource::External { secret, .. }) = &source;
    let replica = Replica::new(client, settings, secret.clone(), leading, announce);
    let tls = tls::server_config(replica.served.clone())?;
    let keeper = match source {
        CertificateSource::Own { lifetimes, .. } => {
            Either::Left(replica::run(CaRotation::new(replica, lifetimes)))
        }
        CertificateSource::External { publishes, .. } => {
            Either::Right(replica::run(SecretWatcher::new(replica, publishes)))
        }
    };
    Ok((pki(tls), keeper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_by_its_short_and_its_full_name() {
        assert_eq!(
            service_names("mailroute", "mail", "cluster.local"),
            ["mailroute.mail.svc", "mailroute.mail.svc.cluster.local"]
        );
    }
}
