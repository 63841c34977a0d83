//! The operator's own certificates, for the admission webhook and the control service, with nothing to set up.
//!
//! ```text
//!                    leader                         every replica
//!   Secret ◄── keyring::due / advance ◄─┐      ┌─► leaf::is_wanted ─► sign ─► ServedLeaf ─► tls::TlsListener
//!     │                                 │      │
//!     └──────────── watch ──────────────┴──────┤
//!   caBundle ◄── trust::publish (server-side apply of that field)
//!     └──────────── watch ─────────────────────┴─► ready: our leaf chains to the live caBundle
//! ```
//!
//! * [`authority`]: one CA, and the leaves it signs. [`bundle`]: CAs that are trusted together.
//! * [`keyring`]: which CA signs when, a state machine over values. [`leaf`]: when this replica takes a new leaf.
//! * [`secret`], [`trust`]: the two objects. [`tls`]: the listener. The keeper ties them together.
//!
//! Invariant: at any instant every leaf that a replica serves chains to the published bundle, through any number of
//! rotations. It is broken only by force: deleting the Secret begins anew, so that a stolen CA can be thrown away.

use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::lease::Leadership;

pub mod authority;
pub mod bundle;
mod keeper;
pub mod keyring;
pub mod leaf;
mod pace;
pub mod secret;
pub mod tls;
pub mod trust;

pub use keyring::Lifetimes;
pub use tls::{Limits, TlsListener};

/// Who owns the fields that this module writes.
const FIELD_MANAGER: &str = "mailroute-operator-pki";

/// Where the certificates are kept, what they are for, and how long they live.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator.
    pub namespace: String,
    /// Name of the Secret that holds the CA.
    pub secret: String,
    /// Name of the MutatingWebhookConfiguration whose entry [`trust::WEBHOOK`] calls us.
    pub webhook_configuration: String,
    /// DNS names of the served certificate, see [`service_names`].
    pub names: Vec<String>,
    /// How long things live.
    pub lifetimes: Lifetimes,
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
    /// For [`TlsListener::bind`]; always serves the newest certificate.
    pub tls: Arc<ServerConfig>,
    /// The CAs that sign or will sign or did sign the served certificates, PEM. Empty until they are known.
    pub ca_bundle: watch::Receiver<String>,
    /// Whether the certificate of this replica chains to the live `caBundle`, so that API servers accept it.
    pub ready: watch::Receiver<bool>,
    /// For the metric.
    pub expiry: watch::Receiver<Expiry>,
}

/// Sets the certificates up. The future keeps them good and has to be polled for as long as they are used; it ends
/// only when the sender of `leading` is dropped. While this replica leads it also founds and rotates the CA.
///
/// # Errors
/// When the TLS library refuses the configuration.
pub fn start(
    client: Client,
    settings: Settings,
    leading: watch::Receiver<Leadership>,
) -> Result<(Pki, impl Future<Output = ()> + Send), rustls::Error> {
    let served = Arc::new(leaf::ServedLeaf::default());
    let tls = tls::server_config(served.clone())?;
    let (ca_bundle_sender, ca_bundle) = watch::channel(String::new());
    let (ready_sender, ready) = watch::channel(false);
    let (expiry_sender, expiry) = watch::channel(Expiry::default());
    let announce =
        keeper::Announcements { ca_bundle: ca_bundle_sender, ready: ready_sender, expiry: expiry_sender };
    let keeper = keeper::Keeper::new(client, settings, leading, served, announce);
    Ok((Pki { tls, ca_bundle, ready, expiry }, keeper.run()))
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
