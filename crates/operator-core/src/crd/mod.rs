//! The API: the kind `MailRoute` of `mailroute.dev/v1alpha1`, as people write it and as `kubectl` shows it; and
//! `MailboxUsage`, which the operator writes for itself.
//!
//! * [`mail_route`]: the spec as a whole and the rules that span it. Its parts: [`tenant`], [`method`] (how mail leaves),
//!   [`delivery`] (what is promised, and bounds), [`local`] (senders), [`rules`]
//!   (what is done to messages), [`sidecar`] (the container).
//! * [`status`]: what the operator writes back.
//! * [`cloud`]: Microsoft's clouds and the endpoints of each. [`units`]: durations and quantities.
//! * [`mailbox_usage`]: what was used of a mailbox's limits.
//! * [`definition`]: the CustomResourceDefinitions and their YAML, for `crds/` and for the chart.
//!
//! Types and constants only: no client, no clock. What the schema can refuse it refuses, so that `kubectl apply` tells;
//! [`crate::resolve`] repeats it for objects that were stored under an older schema.

pub mod cloud;
pub mod definition;
pub mod delivery;
pub mod local;
pub mod mail_route;
pub mod mailbox_usage;
pub mod method;
pub mod rules;
pub mod sidecar;
pub mod status;
pub mod tenant;
pub mod units;

#[cfg(test)]
mod defaults;

pub use mail_route::{MailRoute, MailRouteSpec};
pub use mailbox_usage::{MailboxUsage, MailboxUsageSpec};
pub use status::MailRouteStatus;

/// API group, and prefix of every label and annotation.
pub const GROUP: &str = "mailroute.dev";

/// Pod label that asks for the sidecar. Its value names the `MailRoute`, in the pod's own namespace.
pub const ROUTE_LABEL: &str = "mailroute.dev/route";

/// Name of the ConfigMap that holds a route as its sidecars read it.
pub fn config_map_name(route: &str) -> String {
    format!("mailroute-{route}")
}
