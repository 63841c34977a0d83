//! The operator's entries in the MutatingWebhookConfiguration: which they are, and whether they make API servers ask about the pods that
//! want a sidecar, and about no others. Pure.
//!
//! * [`ConfigurationFinding`]: what can be wrong. [`findings`]: what is, given an entry.

mod check;
mod entry;
mod finding;

pub use check::{WebhookService, findings};
pub use entry::{NAMESPACE_WEBHOOK, WEBHOOK, entry};
pub use finding::ConfigurationFinding;
