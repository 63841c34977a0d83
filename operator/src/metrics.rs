//! Every metric of the operator, with its help line. Label values come from closed sets only: never a name of an
//! object, an address or an error text.

mod closed;

use std::time::Duration;

use mailroute_route::condition::Reason;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::pki::Written;
use crate::registration::Finding;

/// Admission answers have to come in milliseconds, reconciles in fractions of a second; one scale serves both.
const SECONDS: [f64; 11] = [0.000_25, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

/// The metrics of one operator process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    leader: IntGauge,
    reconciles: IntCounterVec,
    reconcile_seconds: Histogram,
    routes: IntGaugeVec,
    malformed: IntGauge,
    sidecars: IntGaugeVec,
    reports: IntCounterVec,
    leases: IntCounterVec,
    token_requests: IntCounterVec,
    token_exchanges: IntCounterVec,
    admissions: IntCounterVec,
    admission_seconds: Histogram,
    evictions: IntCounterVec,
    certificate_expiry: IntGaugeVec,
    ca_bundle_writes: IntCounterVec,
    webhook_findings: IntGaugeVec,
    events: IntCounterVec,
    dns_looks: IntCounterVec,
}

/// Which certificate an expiry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// The authority that signs at present.
    Authority,
    /// What this replica serves.
    Leaf,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics share a name; a programming error that any test would show.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let build = gauges(r, "mailroute_operator_build_info", "The program that runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let this = Self {
            leader: gauge(r, "mailroute_operator_leader", "1 on the replica that writes, 0 on the others.")?,
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
            )?,
            routes: gauges(r, "mailroute_routes", "MailRoutes by the status of Ready.", &["ready"])?,
            malformed: gauge(r, "mailroute_routes_malformed", "MailRoutes that this version cannot read.")?,
            sidecars: gauges(
                r,
                "mailroute_sidecars",
                "Sidecars of all routes: injected, ready, converged, outdated and missing.",
                &["state"],
            )?,
            leases: counters(
                r,
                "mailroute_leases_total",
                "Answers to sidecars that asked for a lease of their mailbox's limits: granted, or what there was not enough of.",
                &["outcome"],
            )?,
            reports: counters(
                r,
                "mailroute_reports_received_total",
                "Reports of sidecars by what became of them.",
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
            admissions: counters(
                r,
                "mailroute_admissions_total",
                "Admission reviews by outcome and, for refusals, by reason.",
                &["outcome", "reason"],
            )?,
            admission_seconds: histogram(
                r,
                "mailroute_admission_duration_seconds",
                "Time of one admission review.",
            )?,
            evictions: counters(
                r,
                "mailroute_evictions_total",
                "Pods with an outdated sidecar that were to be evicted, by what became of it.",
                &["outcome"],
            )?,
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
            webhook_findings: gauges(
                r,
                "mailroute_webhook_finding_status",
                "1 for what in the webhook configuration keeps pods from their sidecars, or sends others here.",
                &["reason"],
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
            registry,
        };
        this.show_closed_sets();
        Ok(this)
    }

    /// Makes every value of the closed sets visible before it is first counted.
    fn show_closed_sets(&self) {
        let one_label = [
            (&self.reconciles, &closed::RECONCILES[..]),
            (&self.reports, &closed::REPORTS),
            (&self.leases, &closed::LEASES),
            (&self.token_requests, &closed::TOKEN_REQUESTS),
            (&self.evictions, &closed::EVICTIONS),
            (&self.ca_bundle_writes, &closed::CA_BUNDLE_WRITES),
            (&self.events, &closed::EVENTS),
            (&self.dns_looks, &closed::DNS_LOOKS),
        ];
        for (counters, values) in one_label {
            for value in values {
                counters.with_label_values(&[value]);
            }
        }
        for outcome in closed::ADMISSIONS {
            self.admissions.with_label_values(&[outcome, ""]);
        }
        for reason in closed::REFUSALS {
            self.admissions.with_label_values(&["refused", reason]);
        }
        self.token_exchanges.with_label_values(&[Reason::TokenAcquired.as_str()]);
        self.webhook_findings(std::iter::empty());
    }

    /// Every metric in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be printed.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Whether this replica is the leader.
    pub fn leading(&self, leading: bool) {
        self.leader.set(leading.into());
    }

    /// One reconciliation ended. `outcome` is `ok` or the static label of an error.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.with_label_values(&[outcome]).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// How many routes have Ready with this status (`True`, `False` or `Unknown`).
    pub fn routes(&self, ready: &'static str, count: usize) {
        self.routes.with_label_values(&[ready]).set(saturating(count));
    }

    /// How many stored routes cannot be read.
    pub fn malformed_routes(&self, count: usize) {
        self.malformed.set(saturating(count));
    }

    /// How many sidecars are in this state (`injected`, `ready`, `converged`, `outdated` or `missing`).
    pub fn sidecars(&self, state: &'static str, count: usize) {
        self.sidecars.with_label_values(&[state]).set(saturating(count));
    }

    /// A sidecar that asked for a lease was answered. `outcome` is `granted`, or what there was not enough of.
    pub fn lease(&self, outcome: &'static str) {
        self.leases.with_label_values(&[outcome]).inc();
    }

    /// One report was answered. `outcome` comes from a closed set of the control service.
    pub fn report(&self, outcome: &'static str) {
        self.reports.with_label_values(&[outcome]).inc();
    }

    /// One request for an access token was answered. `outcome` comes from a closed set of the broker.
    pub fn token_asked(&self, outcome: &'static str) {
        self.token_requests.with_label_values(&[outcome]).inc();
    }

    /// One exchange of the operator's own identity ended.
    pub fn token_exchanged(&self, reason: Reason) {
        self.token_exchanges.with_label_values(&[reason.as_str()]).inc();
    }

    /// One admission review was answered. `outcome` and `reason` come from closed sets of the webhook; `reason` is
    /// empty where there is none.
    pub fn admission(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.admissions.with_label_values(&[outcome, reason]).inc();
        self.admission_seconds.observe(took.as_secs_f64());
    }

    /// A pod was to be evicted. `outcome` is one of a closed set of the controller.
    pub fn eviction(&self, outcome: &'static str) {
        self.evictions.with_label_values(&[outcome]).inc();
    }

    /// When a certificate ends, seconds since the Unix epoch.
    pub fn certificate_expiry(&self, certificate: Certificate, unix_seconds: i64) {
        let label = match certificate {
            Certificate::Authority => "ca",
            Certificate::Leaf => "leaf",
        };
        self.certificate_expiry.with_label_values(&[label]).set(unix_seconds);
    }

    /// The `caBundle` was written, or could not be.
    pub fn ca_bundle(&self, written: Written<'_>) {
        let result = match written {
            Written::Bundle => "published",
            Written::Repair(_) => "repaired",
            Written::Failure => "failed",
        };
        self.ca_bundle_writes.with_label_values(&[result]).inc();
    }

    /// These are the reasons of what is wrong with the webhook configuration now.
    pub fn webhook_findings<'a>(&self, reasons: impl Iterator<Item = &'a str>) {
        let found: Vec<_> = reasons.collect();
        for reason in Finding::REASONS {
            self.webhook_findings.with_label_values(&[reason]).set(found.contains(&reason).into());
        }
    }

    /// The DNS records of a domain were looked at (`published`, `findings`, `failed`).
    pub fn dns_look(&self, outcome: &'static str) {
        self.dns_looks.with_label_values(&[outcome]).inc();
    }

    /// One Kubernetes Event was published, failed, or was left out (`published`, `failed`, `dropped`).
    pub fn event(&self, outcome: &'static str) {
        self.events.with_label_values(&[outcome]).inc();
    }
}

fn saturating(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_that_is_gone_is_zero_again() {
        let metrics = Metrics::new().unwrap();
        let value = |reasons: &[&str]| {
            metrics.webhook_findings(reasons.iter().copied());
            let text = String::from_utf8(metrics.text().unwrap()).unwrap();
            let line = text.lines().find(|line| line.contains("reason=\"WebhookTooWide\"")).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!([value(&["WebhookTooWide"]), value(&[])], ["1", "0"]);
    }

    #[test]
    fn what_happened_is_printed() {
        let metrics = Metrics::new().unwrap();
        metrics.leading(true);
        metrics.report("accepted");
        metrics.admission("refused", "UnknownRoute", Duration::from_millis(3));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "mailroute_operator_leader 1",
            "mailroute_reports_received_total{outcome=\"accepted\"} 1",
            "mailroute_admissions_total{outcome=\"refused\",reason=\"UnknownRoute\"} 1",
            "mailroute_admission_duration_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
