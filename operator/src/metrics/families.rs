//! The metrics by family, each with its name and help line. What is counted when is the business of [`super::Metrics`].

use mailroute_metrics::{
    Families, PrintedGauge, counter, counters, gauge, gauges, histogram, printed_gauges,
};
use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Admission answers have to come in milliseconds, reconciles in fractions of a second; one scale serves both.
const SECONDS: [f64; 11] = [0.000_25, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

/// The state of this replica and of all routes.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) leader: IntGauge,
    pub(super) routes: IntGaugeVec,
    pub(super) malformed: IntGauge,
    pub(super) sidecars: IntGaugeVec,
}

impl Standing {
    pub(super) fn register(r: &Families) -> Result<Self, Error> {
        Ok(Self {
            leader: gauge(r, "mailroute_operator_leader", "1 on the replica that writes, 0 on the others.")?,
            routes: gauges(r, "mailroute_routes", "MailRoutes by the status of Ready.", &["ready"])?,
            malformed: gauge(r, "mailroute_routes_malformed", "MailRoutes that this version cannot read.")?,
            sidecars: gauges(
                r,
                "mailroute_sidecars",
                "Sidecars of all routes: injected, ready, converged, outdated, missing and silent.",
                &["state"],
            )?,
        })
    }
}

/// Each route by itself, as its status says.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) ready: PrintedGauge,
    pub(super) sidecars: PrintedGauge,
    pub(super) queued: PrintedGauge,
    pub(super) oldest: PrintedGauge,
    pub(super) dead_letters: PrintedGauge,
    pub(super) lost: PrintedGauge,
}

impl Routes {
    pub(super) fn register(r: &Families) -> Self {
        Self {
            ready: printed_gauges(
                r,
                "mailroute_route_ready_status",
                "Ready of a MailRoute: 1 True, 0 False, -1 Unknown.",
                &["namespace", "route"],
            ),
            sidecars: printed_gauges(
                r,
                "mailroute_route_sidecars",
                "Sidecars of a MailRoute: injected, and silent.",
                &["namespace", "route", "state"],
            ),
            queued: printed_gauges(
                r,
                "mailroute_route_queue_messages",
                "Messages that wait in the pods of a MailRoute.",
                &["namespace", "route"],
            ),
            oldest: printed_gauges(
                r,
                "mailroute_route_queue_oldest_age_seconds",
                "For how long the oldest of them has been tried.",
                &["namespace", "route"],
            ),
            dead_letters: printed_gauges(
                r,
                "mailroute_route_dead_letter_messages",
                "Dead letters in the pods of a MailRoute.",
                &["namespace", "route"],
            ),
            lost: printed_gauges(
                r,
                "mailroute_route_lost_messages",
                "Messages that waited in pods of a MailRoute when these ended, since it was created.",
                &["namespace", "route"],
            ),
        }
    }
}

/// What the leader does about routes and pods; and Events, which every replica publishes.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    pub(super) reconciles: IntCounterVec,
    pub(super) reconcile_seconds: Histogram,
    pub(super) evictions: IntCounterVec,
    pub(super) events: IntCounterVec,
    pub(super) dns_looks: IntCounterVec,
    pub(super) messages_lost: IntCounter,
}

impl Leading {
    pub(super) fn register(r: &Families) -> Result<Self, Error> {
        Ok(Self {
            reconciles: counters(
                r,
                "mailroute_reconciles_total",
                "Reconciliations by outcome: ok, or the step that failed.",
                &["outcome"],
            )?,
            reconcile_seconds: histogram(
                r,
                "mailroute_reconcile_duration_seconds",
                "Time of one reconciliation.",
                &SECONDS,
            )?,
            evictions: counters(
                r,
                "mailroute_evictions_total",
                "Pods with an outdated sidecar that were to be evicted, by what became of it.",
                &["outcome"],
            )?,
            events: counters(
                r,
                "mailroute_events_total",
                "Kubernetes Events by what became of them.",
                &["outcome"],
            )?,
            dns_looks: counters(
                r,
                "mailroute_dns_looks_total",
                "Looks at the DNS records of an accepted domain by outcome.",
                &["outcome"],
            )?,
            messages_lost: counter(
                r,
                "mailroute_messages_lost_total",
                "Messages that waited in pods when they ended.",
            )?,
        })
    }
}

/// What sidecars and gateways ask the control service for, and the exchanges that lending tokens takes.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) reports: IntCounterVec,
    pub(super) leases: IntCounterVec,
    pub(super) token_requests: IntCounterVec,
    pub(super) token_exchanges: IntCounterVec,
    pub(super) certificate_requests: IntCounterVec,
    pub(super) review_requests: IntCounterVec,
}

impl Control {
    pub(super) fn register(r: &Families) -> Result<Self, Error> {
        Ok(Self {
            reports: counters(
                r,
                "mailroute_reports_received_total",
                "Reports of sidecars by what became of them.",
                &["outcome"],
            )?,
            leases: counters(
                r,
                "mailroute_leases_total",
                "Answers to sidecars that asked for a lease of their mailbox's limits: granted, or what there was not enough of.",
                &["outcome"],
            )?,
            token_requests: counters(
                r,
                "mailroute_token_requests_total",
                "Requests of sidecars for an access token by what became of them.",
                &["outcome"],
            )?,
            token_exchanges: counters(
                r,
                "mailroute_operator_token_exchanges_total",
                "Exchanges of the operator at the token endpoint by reason; TokenAcquired for those that worked.",
                &["reason"],
            )?,
            certificate_requests: counters(
                r,
                "mailroute_certificate_requests_total",
                "Requests of sidecars and gateways for a certificate by what became of them.",
                &["outcome"],
            )?,
            review_requests: counters(
                r,
                "mailroute_review_requests_total",
                "Requests of gateways to review a client's token by what became of them.",
                &["outcome"],
            )?,
        })
    }
}

/// What API servers ask the webhook.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) reviews: IntCounterVec,
    pub(super) seconds: Histogram,
}

impl Admission {
    pub(super) fn register(r: &Families) -> Result<Self, Error> {
        Ok(Self {
            reviews: counters(
                r,
                "mailroute_admissions_total",
                "Admission reviews by outcome and, for refusals, by reason.",
                &["outcome", "reason"],
            )?,
            seconds: histogram(
                r,
                "mailroute_admission_duration_seconds",
                "Time of one admission review.",
                &SECONDS,
            )?,
        })
    }
}

/// Why API servers believe and ask this webhook: its certificates and its configuration.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) certificate_expiry: IntGaugeVec,
    pub(super) ca_bundle_writes: IntCounterVec,
    pub(super) findings: IntGaugeVec,
}

impl Trust {
    pub(super) fn register(r: &Families) -> Result<Self, Error> {
        Ok(Self {
            certificate_expiry: gauges(
                r,
                "mailroute_certificate_expiry_timestamp_seconds",
                "When a certificate of the webhook and control service ends, seconds since the Unix epoch.",
                &["certificate"],
            )?,
            ca_bundle_writes: counters(
                r,
                "mailroute_ca_bundle_writes_total",
                "Writes of the webhook configuration's caBundle: published, repaired after another actor, failed.",
                &["result"],
            )?,
            findings: gauges(
                r,
                "mailroute_webhook_finding_status",
                "1 for what in the webhook configuration keeps pods from their sidecars, or sends others here.",
                &["reason"],
            )?,
        })
    }
}
