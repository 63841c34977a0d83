//! The certificates of the admission webhook and the control service: from an authority of our own, with nothing to set
//! up, or from a Secret that cert-manager or a person maintains.
//!
//! ```text
//!                    leader                         every replica
//!   Secret ◄── keyring::due / advance ◄─┐      ┌─► leaf::is_wanted ─► sign ─► ServedLeaf ─► server
//!     │                                 │      │
//!     └──────────── watch ──────────────┴──────┤
//!   caBundle ◄── trust::publish (server-side apply of that field)
//!     └──────────── watch ─────────────────────┴─► ready: our leaf chains to the live caBundle
//! ```
//! With an external certificate the Secret is only watched ([`external_certificate`]), and the `caBundle` is written by the leader from its
//! `ca.crt`, or by cert-manager's injector.
//!
//! * [`authority`]: one CA, and the leaves it signs. [`bundle`]: CAs that are trusted together.
//! * [`keyring`]: which CA signs when, a state machine over values. [`leaf`]: when this replica takes a new leaf.
//! * [`anchors`], [`external_certificate`]: certificates that somebody else keeps, and which of two is served.
//! * [`secret`], [`trust`]: the two objects. [`tls`]: the server's configuration. `ca_rotation` (own authority) and `secret_watcher`
//!   (external certificate) tie them together for one replica; the publisher owns the write of the `caBundle`.
//!
//! Invariant: at any instant every leaf that a replica serves chains to the published bundle, through any number of
//! rotations. It is broken only by force: deleting the Secret begins anew, so that a stolen CA can be thrown away; and,
//! with an external certificate, by whoever issues it or maintains the bundle.

use std::future::Future;

use futures::future::Either;
use kube::Client;
use tokio::sync::watch;

use crate::leader_election::Leadership;
use announcements::announcements;
use ca_rotation::CaRotation;
use replica::Replica;
use secret_watcher::SecretWatcher;

pub mod anchors;
mod announcements;
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
mod settings;
pub mod tls;
pub mod trust;
mod watching;

pub use announcements::{Expiry, Pki};
pub use keyring::Lifetimes;
pub use settings::{BundleWritten, CertificateSource, OnBundleWritten, PkiSettings, WebhookConfiguration};

/// The DNS names under which a Service is called inside the cluster.
pub fn service_names(service: &str, namespace: &str, cluster_domain: &str) -> Vec<String> {
    let short = format!("{service}.{namespace}.svc");
    let long = format!("{short}.{cluster_domain}");
    vec![short, long]
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
