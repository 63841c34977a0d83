//! The operator's entry in the MutatingWebhookConfiguration: which it is, and whether it makes API servers ask about the pods that
//! want a sidecar, and about no others. Pure.
//!
//! * [`ConfigurationFinding`]: what can be wrong. [`findings`]: what is, given an entry.

mod check;
mod entry;
mod finding;

pub use check::{WebhookService, findings};
pub use entry::{WEBHOOK, entry};
pub use finding::ConfigurationFinding;
