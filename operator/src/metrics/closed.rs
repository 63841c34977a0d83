//! The label values that counters can have, so that each is shown as 0 before it is first counted: a rate needs a start,
//! and an alert would miss the first of its kind.

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

/// Of admission reviews without a reason, by the label `outcome`.
pub(super) const ADMISSIONS: [&str; 6] = ["injected", "complete", "skipped", "deferred", "dry_run", "failed"];

/// Of admission reviews with the outcome `refused`, by the label `reason`.
pub(super) const REFUSALS: [&str; 19] = [
    "UnknownRoute",
    "InvalidRoute",
    "UnreadableRoute",
    "HostNetwork",
    "Windows",
    "ContainerName",
    "SidecarChanged",
    "VolumeName",
    "VolumeMounted",
    "PortInUse",
    "Sysctl",
    "FsGroup",
    "UnknownAnnotation",
    "InvalidAnnotation",
    "ImageNotAllowed",
    "RequestOverLimit",
    "SharedProcesses",
    "KubernetesTooOld",
    "Malformed",
];

/// Of evictions, by the label `outcome`.
pub(super) const EVICTIONS: [&str; 4] = ["evicted", "not_now", "gone", "failed"];

/// Of writes of the caBundle, by the label `result`.
pub(super) const CA_BUNDLE_WRITES: [&str; 3] = ["published", "repaired", "failed"];

/// Of looks at DNS, by the label `outcome`.
pub(super) const DNS_LOOKS: [&str; 3] = ["published", "findings", "failed"];

/// Of Kubernetes Events, by the label `outcome`.
pub(super) const EVENTS: [&str; 3] = ["published", "failed", "dropped"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The page lists the values of a label in its last column, in the order of the code that counts them.
    #[test]
    fn the_values_are_those_of_the_reference() {
        let page = include_str!("../../../docs/reference/metrics.md");
        for (metric, values) in [
            ("mailroute_reconciles_total", &RECONCILES[..]),
            ("mailroute_reports_received_total", &REPORTS),
            ("mailroute_leases_total", &LEASES),
            ("mailroute_token_requests_total", &TOKEN_REQUESTS),
            ("mailroute_admissions_total", &ADMISSIONS),
            ("mailroute_evictions_total", &EVICTIONS),
            ("mailroute_ca_bundle_writes_total", &CA_BUNDLE_WRITES),
            ("mailroute_events_total", &EVENTS),
            ("mailroute_dns_looks_total", &DNS_LOOKS),
        ] {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{metric}` |"))).unwrap();
            let meaning = row.rsplit_once(" | ").unwrap().1;
            let mut listed: Vec<_> = meaning.split('`').skip(1).step_by(2).collect();
            // Words of the sentence that are no values of this label.
            listed.retain(|word| {
                !["refused", "reason", "caBundle", "rollout: Restart", "broker.applications"].contains(word)
            });
            let mut expected = values.to_vec();
            listed.sort_unstable();
            expected.sort_unstable();
            assert_eq!(listed, expected, "{metric}");
        }
    }

    #[test]
    fn the_refusals_are_those_of_the_injection() {
        let source = include_str!("../../../crates/operator-core/src/inject/refusal.rs");
        let arms = source.split_once("pub const fn reason").unwrap().1.split_once("\n    }\n").unwrap().0;
        let mut reasons: Vec<_> = arms.split('"').skip(1).step_by(2).collect();
        let mut expected = REFUSALS.to_vec();
        reasons.sort_unstable();
        expected.sort_unstable();
        assert_eq!(reasons, expected);
    }
}
