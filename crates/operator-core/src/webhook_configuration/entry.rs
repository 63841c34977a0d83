//! Which entry of the configuration is ours.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

/// Name of our entry in `webhooks[]`.
pub const WEBHOOK: &str = "inject.mailroute.dev";

/// Our entry, if the configuration has one.
pub fn entry(configuration: &MutatingWebhookConfiguration) -> Option<&MutatingWebhook> {
    configuration.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK)
}
