//! What the operator decides, as plain functions of what it is given.
//!
//! ```text
//!  MailRoute, platform settings ─► resolve ─► route.json, or why there is none
//!  pod, resolved route ──────────► inject ──► JSON patch, or why the pod is refused
//!  pods, resolved route ─────────► rollout ─► which pods have an outdated sidecar, and which may be evicted next
//!  all of it, and reports ───────► status ──► conditions and sums
//! ```
//!
//! * [`crd`]: the resources. [`pods`]: what a pod says of its sidecar. [`reports`]: what sidecars reported. [`tenant_quotas`]: which
//!   routes met a limit of their tenant. [`webhook_configuration`]: whether API servers ask
//!   about the right pods. [`kubernetes_version`]: whether they know native sidecars.
//!
//! No client of the API server, no files, no clock and no async: time and files' contents are passed in, and Cargo.toml has
//! neither a client nor a runtime.

use jiff::SignedDuration;

pub mod crd;
pub mod inject;
pub mod kubernetes_version;
pub mod pods;
pub mod reports;
pub mod resolve;
pub mod rollout;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod status;
pub mod tenant_quotas;
pub mod webhook_configuration;

/// How often a sidecar reports when nothing changes.
pub const REPORT_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// Age at which a report no longer counts: three were missed.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_secs(3 * REPORT_INTERVAL.as_secs());

#[cfg(test)]
mod tests;
