//! The operator's entry in the MutatingWebhookConfiguration: which it is, and whether API servers ask by it about the pods that
//! want a sidecar, and about no others. Pure.
//!
//! * [`ConfigurationFinding`]: what can be wrong. [`findings`]: what is, given an entry.

mod check;
mod finding;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

pub use check::{WebhookService, findings};
pub use finding::ConfigurationFinding;

/// Name of our entry in `webhooks[]`.
pub const WEBHOOK: &str = "inject.mailroute.dev";

/// Our entry, if the configuration has one.
pub fn entry(configuration: &MutatingWebhookConfiguration) -> Option<&MutatingWebhook> {
    configuration.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK)
}
