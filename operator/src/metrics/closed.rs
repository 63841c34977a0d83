//! The label values that counters can have. Each is shown as 0 before it is first counted: otherwise a rate would miss the first
//! event, and so would an alert.

/// Of reconciliations, by the label `outcome`.
pub(super) const RECONCILES: [&str; 6] = ["ok", "foreign_config_map", "apply", "status", "evict", "timeout"];

/// Of reports, by the label `outcome`.
pub(super) const REPORTS: [&str; 10] = [
    "accepted",
    "not_leader",
    "unauthenticated",
    "forbidden",
    "throttled",
    "too_large",
    "malformed",
    "slow",
    "unavailable",
    "unwritten",
];

/// Of answers to sidecars that asked for a lease, by the label `outcome`.
pub(super) const LEASES: [&str; 4] = ["granted", "messages", "recipients", "connections"];

/// Of requests for a token, by the label `outcome`.
pub(super) const TOKEN_REQUESTS: [&str; 9] = [
    "granted",
    "not_issued",
    "not_allowed",
    "forbidden",
    "unauthenticated",
    "throttled",
    "malformed",
    "slow",
    "unavailable",
];

/// Of requests for a certificate, by the label `outcome`.
pub(super) const CERTIFICATE_REQUESTS: [&str; 8] = [
    "granted",
    "no_gateway",
    "forbidden",
    "unauthenticated",
    "throttled",
    "malformed",
    "slow",
    "unavailable",
];

/// Of requests to review a client's token, by the label `outcome`.
pub(super) const REVIEW_REQUESTS: [&str; 8] =
    ["accepted", "refused", "forbidden", "unauthenticated", "throttled", "malformed", "slow", "unavailable"];

/// Of admission reviews without a reason, by the label `outcome`.
pub(super) const ADMISSIONS: [&str; 6] = ["injected", "complete", "skipped", "deferred", "dry_run", "failed"];

/// Of evictions, by the label `outcome`.
pub(super) const EVICTIONS: [&str; 4] = ["evicted", "not_now", "gone", "failed"];

/// Of writes of the caBundle, by the label `result`.
pub(super) const CA_BUNDLE_WRITES: [&str; 3] = ["published", "repaired", "failed"];

/// Of looks at DNS, by the label `outcome`.
pub(super) const DNS_LOOKS: [&str; 3] = ["published", "findings", "failed"];

/// Of Kubernetes Events, by the label `outcome`.
pub(super) const EVENTS: [&str; 3] = ["published", "failed", "dropped"];
