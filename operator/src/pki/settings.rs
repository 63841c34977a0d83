//! What the certificates are for, where they are stored, and who hears of writes to the `caBundle`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::keyring::Lifetimes;

/// Who owns the fields that this module writes.
pub(super) const FIELD_MANAGER: &str = "mailroute-operator-pki";

/// Longest call to the API server.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// Whose certificate is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The authority of our own, which the leader then publishes in the `caBundle`.
    Own,
    /// A certificate with key and CA that somebody else keeps.
    External {
        /// The Secret of the operator's namespace that holds them.
        secret: String,
        /// Whether the leader publishes its CA in the `caBundle`; else that is somebody else's, too.
        publishes: bool,
    },
}

/// The webhook configuration as it was read last: the outer `None` before the first answer, the inner one when there is
/// no such object.
pub type WebhookConfiguration = Option<Option<MutatingWebhookConfiguration>>;

/// The result of writing the `caBundle`.
#[derive(Clone, Copy, Debug)]
pub enum BundleWritten<'a> {
    /// A new bundle is published.
    Bundle,
    /// Another actor had changed it, as seen here, and it is restored.
    Repair(&'a MutatingWebhookConfiguration),
    /// It could not be written.
    Failure,
}

/// Called after each write of the `caBundle`, with its result.
pub type OnBundleWritten = Arc<dyn Fn(BundleWritten<'_>) + Send + Sync>;

/// Where the certificates are kept, and what they are for.
#[derive(Clone)]
pub struct PkiSettings {
    /// Namespace of the operator.
    pub namespace: String,
    /// Whose certificate is served.
    pub source: CertificateSource,
    /// The Secret that holds the authorities of our own, founded and rotated by the leader. They sign the certificates of sidecars and
    /// gateways, whatever is served.
    pub ca_secret: String,
    /// How long they live.
    pub lifetimes: Lifetimes,
    /// Name of the MutatingWebhookConfiguration whose entry [`WEBHOOK`](super::trust::WEBHOOK) calls us.
    pub webhook_configuration: String,
    /// DNS names of the served certificate, see [`service_names`](super::service_names).
    pub names: Vec<String>,
    /// Called after each write of the `caBundle`.
    pub tell: OnBundleWritten,
}
