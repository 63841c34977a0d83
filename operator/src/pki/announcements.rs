//! What the certificates' tasks announce to the rest of the program.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::authority::Authority;
use super::keyring::Keyring;
use super::settings::WebhookConfiguration;
use super::watching::replace;

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
    /// The CAs that sign or will sign or did sign the certificates of sidecars and gateways, PEM. Empty until there are any.
    pub identity_ca: watch::Receiver<String>,
    /// The CA that signs them now.
    pub identity_signer: watch::Receiver<Option<Arc<Authority>>>,
    /// Whether the certificate of this replica chains to the live `caBundle`, so that API servers accept it.
    pub ready: watch::Receiver<bool>,
    /// For the metric.
    pub expiry: watch::Receiver<Expiry>,
    /// The webhook configuration, as it is read for the above.
    pub registration: watch::Receiver<WebhookConfiguration>,
}

/// The senders.
pub(super) struct Announcements {
    pub(super) ca_bundle: watch::Sender<String>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) expiry: watch::Sender<Expiry>,
    pub(super) registration: watch::Sender<WebhookConfiguration>,
}

/// The senders for what sidecars and gateways get.
pub(super) struct IdentityAnnouncements {
    bundle: watch::Sender<String>,
    signer: watch::Sender<Option<Arc<Authority>>>,
}

impl IdentityAnnouncements {
    /// This is the keyring now. One that is gone takes nothing away: what it signed is good until the next one is there.
    pub(super) fn keyring(&self, keyring: Option<&Keyring>) {
        let Some(keyring) = keyring else { return };
        replace(&self.bundle, keyring.bundle().to_pem());
        self.signer.send_if_modified(|present| {
            let signing = keyring.signing.certificate();
            let changed = present.as_ref().is_none_or(|present| present.certificate() != signing);
            if changed {
                *present = Some(Arc::new(keyring.signing.clone()));
            }
            changed
        });
    }
}

/// The senders, and a function that makes the handle with their receivers.
pub(super) fn announcements() -> (Announcements, IdentityAnnouncements, impl FnOnce(Arc<ServerConfig>) -> Pki)
{
    let (bundle, identity_ca) = watch::channel(String::new());
    let (signer, identity_signer) = watch::channel(None);
    let (ca_bundle, to_ca_bundle) = watch::channel(String::new());
    let (ready, to_ready) = watch::channel(false);
    let (expiry, to_expiry) = watch::channel(Expiry::default());
    let (registration, to_registration) = watch::channel(None);
    let pki = |tls| Pki {
        tls,
        ca_bundle: to_ca_bundle,
        identity_ca,
        identity_signer,
        ready: to_ready,
        expiry: to_expiry,
        registration: to_registration,
    };
    (Announcements { ca_bundle, ready, expiry, registration }, IdentityAnnouncements { bundle, signer }, pki)
}
