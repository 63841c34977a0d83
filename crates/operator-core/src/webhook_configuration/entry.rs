//! Which entries of the configuration are ours.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

/// Name of our entry in `webhooks[]` about pods with a label of their own.
pub const WEBHOOK: &str = "inject.mailroute.dev";

/// Name of our entry in `webhooks[]` about the other pods of namespaces whose label names a route. It stands before [`WEBHOOK`], which
/// is asked about a pod once this one has labelled it, and again when another webhook has changed it.
pub const NAMESPACE_WEBHOOK: &str = "namespaces.mailroute.dev";

/// Our entry, if the configuration has one.
pub fn entry(configuration: &MutatingWebhookConfiguration) -> Option<&MutatingWebhook> {
    configuration.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK)
}
