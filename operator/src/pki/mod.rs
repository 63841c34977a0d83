//! The certificates of the admission webhook and the control service: from an authority of our own, with nothing to set
//! up, or from a Secret that cert-manager or a person maintains. And those of sidecars and gateways, from that authority.
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
//! `ca.crt`, or by cert-manager's injector. The authority of our own is there all the same: it signs the certificates by which
//! sidecars and gateways know each other ([`identity`]), and its bundle goes into route files.
//!
//! * [`authority`]: one CA, and the leaves it signs. [`bundle`]: CAs that are trusted together.
//! * [`keyring`]: which CA signs when, a state machine over values. [`leaf`]: when this replica takes a new leaf.
//! * [`anchors`], [`external_certificate`]: certificates that somebody else keeps, and which of two is served.
//! * [`secret`], [`trust`]: the two objects. [`tls`]: the server's configuration. `ca_rotation` (own authority) and `secret_watcher`
//!   (external certificate, `identity_ca` beside it) tie them together for one replica; the publisher owns the write of the `caBundle`,
//!   `stored_keyring` that of the Secret.
//!
//! Invariant: at any instant every leaf that a replica serves chains to the published bundle, through any number of
//! rotations. It is broken only by force: deleting the Secret begins anew, so that a stolen CA can be thrown away; and,
//! with an external certificate, by whoever issues it or maintains the bundle.

use std::future::Future;

use futures::FutureExt;
use futures::future::{Either, join};
use kube::Client;
use tokio::sync::watch;

use crate::leader_election::Leadership;
use announcements::announcements;
use ca_rotation::CaRotation;
use replica::Replica;
use secret_watcher::SecretWatcher;
use stored_keyring::StoredKeyring;

pub mod anchors;
mod announcements;
pub mod authority;
pub mod bundle;
mod ca_rotation;
pub mod external_certificate;
pub mod identity;
mod identity_ca;
pub mod keyring;
pub mod leaf;
mod pace;
mod publisher;
mod replica;
pub mod secret;
mod secret_watcher;
mod settings;
mod stored_keyring;
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
    let (announce, identities, pki) = announcements();
    let PkiSettings { source, ca_secret, lifetimes, .. } = settings.clone();
    let served = match &source {
        CertificateSource::Own => ca_secret.clone(),
        CertificateSource::External { secret, .. } => secret.clone(),
    };
    let replica = Replica::new(client, settings, served, leading.clone(), announce);
    let secrets = replica.secrets.clone();
    let stored = StoredKeyring::new(secrets.clone(), ca_secret.clone(), lifetimes, identities);
    let tls = tls::server_config(replica.served.clone())?;
    let keeper = match source {
        CertificateSource::Own => Either::Left(replica::run(CaRotation::new(replica, lifetimes, stored))),
        CertificateSource::External { publishes, .. } => {
            let watcher = replica::run(SecretWatcher::new(replica, publishes));
            let authorities = identity_ca::run(stored, secrets, ca_secret, leading);
            Either::Right(join(watcher, authorities).map(drop))
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
