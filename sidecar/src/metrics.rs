//! Every metric, each with its one line of help.
//!
//! Names are `mailroute_<thing>_<unit>[_total]`. Label values come from closed sets only: outcomes, reasons, conditions,
//! refusals. Never an address, a host or a text.

use std::time::Duration;

use mailroute_route::condition::Reason;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::clock;
use crate::config::Config;
use crate::delivery::outcome::{Attempt, Outcome};
use crate::health::Health;
use crate::server::{self, Refusal};
use crate::smtp::reply::Reply;
use crate::token::{Failure, store};

/// Upper bounds for what takes a few round trips to Microsoft, seconds; five seconds is Exchange's tarpit.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The metrics of one sidecar.
pub struct Metrics {
    registry: Registry,
    sessions: IntGauge,
    sessions_total: IntCounter,
    refusals: IntCounterVec,
    messages: IntCounterVec,
    received_bytes: IntCounter,
    accept_seconds: Histogram,
    deliveries: IntCounterVec,
    delivery_seconds: HistogramVec,
    delivered_recipients: IntCounter,
    delivered_bytes: IntCounter,
    fast_failures: IntCounter,
    probes: IntCounterVec,
    conditions: IntGaugeVec,
    token_exchanges: IntCounterVec,
    token_expiry: IntGauge,
    config_generation: IntGauge,
    config_valid: IntGauge,
    config_errors: IntCounter,
    reports: IntCounterVec,
    resident_bytes: IntGauge,
}

/// What became of a report, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportResult {
    /// Taken.
    Taken,
    /// No replica took it.
    Failed,
}

impl Metrics {
    /// All metrics, registered, the labelled ones with every value that they can have.
    ///
    /// # Errors
    /// When two metrics have one name, which is a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        let this = Self {
            sessions: add(&r, IntGauge::new("mailroute_sessions_open", "SMTP sessions open now."))?,
            sessions_total: add(&r, IntCounter::new("mailroute_sessions_total", "SMTP sessions opened."))?,
            refusals: add(
                &r,
                counters(
                    "mailroute_refusals_total",
                    "Sessions, commands and messages that the local server refused itself, by reason.",
                    &["reason"],
                ),
            )?,
            messages: add(
                &r,
                counters(
                    "mailroute_messages_total",
                    "Messages received completely, by what the application was answered.",
                    &["result"],
                ),
            )?,
            received_bytes: add(
                &r,
                IntCounter::new("mailroute_received_bytes_total", "Octets of messages received completely."),
            )?,
            accept_seconds: add(
                &r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "mailroute_accept_duration_seconds",
                        "Time from the end of a message's data to the application's answer.",
                    )
                    .buckets(SECONDS.to_vec()),
                ),
            )?,
            deliveries: add(
                &r,
                counters(
                    "mailroute_deliveries_total",
                    "Attempts to deliver a message to the upstream, by outcome and reason.",
                    &["outcome", "reason"],
                ),
            )?,
            delivery_seconds: add(
                &r,
                HistogramVec::new(
                    HistogramOpts::new(
                        "mailroute_delivery_duration_seconds",
                        "Duration of attempts to deliver, waiting for the connection included.",
                    )
                    .buckets(SECONDS.to_vec()),
                    &["outcome"],
                ),
            )?,
            delivered_recipients: add(
                &r,
                IntCounter::new(
                    "mailroute_delivered_recipients_total",
                    "Recipients of messages that the upstream accepted.",
                ),
            )?,
            delivered_bytes: add(
                &r,
                IntCounter::new(
                    "mailroute_delivered_bytes_total",
                    "Octets of messages that the upstream accepted.",
                ),
            )?,
            fast_failures: add(
                &r,
                IntCounter::new(
                    "mailroute_fast_failures_total",
                    "Messages answered 451 without an attempt, as the route is known not to work.",
                ),
            )?,
            probes: add(
                &r,
                counters(
                    "mailroute_probes_total",
                    "Walks to the log-in without a message, by result.",
                    &["result"],
                ),
            )?,
            conditions: add(
                &r,
                IntGaugeVec::new(
                    Opts::new(
                        "mailroute_condition_status",
                        "Conditions as this sidecar met them last: 1 for the reason in force, by condition and reason.",
                    ),
                    &["condition", "reason"],
                ),
            )?,
            token_exchanges: add(
                &r,
                counters(
                    "mailroute_token_exchanges_total",
                    "Exchanges at the token endpoint, by reason.",
                    &["reason"],
                ),
            )?,
            token_expiry: add(
                &r,
                IntGauge::new(
                    "mailroute_token_expiry_timestamp_seconds",
                    "When the access token in use ends, seconds since the epoch; 0 without one.",
                ),
            )?,
            config_generation: add(
                &r,
                IntGauge::new(
                    "mailroute_config_generation_number",
                    "Generation of the route in use; 0 before the first.",
                ),
            )?,
            config_valid: add(
                &r,
                IntGauge::new(
                    "mailroute_config_valid_status",
                    "1 when the newest route file is the one in use.",
                ),
            )?,
            config_errors: add(
                &r,
                IntCounter::new("mailroute_config_errors_total", "Route files that could not be used."),
            )?,
            reports: add(
                &r,
                counters(
                    "mailroute_reports_total",
                    "Reports to the control service, by result.",
                    &["result"],
                ),
            )?,
            resident_bytes: add(
                &r,
                IntGauge::new("mailroute_resident_memory_bytes", "Memory of the process that is in RAM."),
            )?,
            registry: r,
        };
        this.show_closed_sets();
        Ok(this)
    }

    /// Makes the values of closed sets visible before they are first counted, so that a rate has a start.
    fn show_closed_sets(&self) {
        for refusal in Refusal::ALL {
            self.refusals.with_label_values(&[refusal.as_str()]);
        }
        for result in ["accepted", "deferred", "refused"] {
            self.messages.with_label_values(&[result]);
        }
        for outcome in Outcome::NAMES {
            self.delivery_seconds.with_label_values(&[outcome]);
        }
        for result in [ReportResult::Taken, ReportResult::Failed] {
            self.reports.with_label_values(&[result.as_str()]);
        }
        for result in ["well", "trouble"] {
            self.probes.with_label_values(&[result]);
        }
    }

    /// One attempt to deliver a message of `bytes` octets to `recipients`.
    pub fn attempted(&self, attempt: &Attempt, recipients: u64, bytes: u64, took: Duration) {
        let outcome = attempt.verdict.outcome;
        self.deliveries.with_label_values(&[outcome.as_str(), reason_label(outcome)]).inc();
        self.delivery_seconds.with_label_values(&[outcome.as_str()]).observe(took.as_secs_f64());
        if outcome == Outcome::Delivered {
            self.delivered_recipients.inc_by(recipients);
            self.delivered_bytes.inc_by(bytes);
        }
    }

    /// A message was answered without an attempt.
    pub fn failed_fast(&self) {
        self.fast_failures.inc();
    }

    /// A probe ended.
    pub fn probed(&self, well: bool) {
        self.probes.with_label_values(&[if well { "well" } else { "trouble" }]).inc();
    }

    /// The configuration in use.
    pub fn configured(&self, config: &Config) {
        self.config_generation.set(config.route.as_ref().map_or(0, |route| route.generation));
        self.config_valid.set(i64::from(config.error.is_none() && config.route.is_some()));
        if config.error.is_some() {
            self.config_errors.inc();
        }
    }

    /// A report ended.
    pub fn reported(&self, result: ReportResult) {
        self.reports.with_label_values(&[result.as_str()]).inc();
    }

    /// The text for Prometheus.
    pub fn render(&self, health: &Health) -> Vec<u8> {
        self.conditions.reset();
        for observation in health.observations() {
            let labels = [observation.condition.as_str(), observation.reason.as_str()];
            self.conditions.with_label_values(&labels).set(1);
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be printed");
        }
        text
    }
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn reason_label(outcome: Outcome) -> &'static str {
    outcome.reason().map_or("none", Reason::as_str)
}

/// Resident memory, from `/proc/self/statm` (pages of 4 KiB on every platform we build for).
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<i64>().ok().map(|pages| pages * 4096)
}

impl ReportResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Failed => "failed",
        }
    }
}

impl server::Observer for Metrics {
    fn session_opened(&self) {
        self.sessions.inc();
        self.sessions_total.inc();
    }

    fn session_closed(&self, _lasted: Duration) {
        self.sessions.dec();
    }

    fn refused(&self, reason: Refusal) {
        self.refusals.with_label_values(&[reason.as_str()]).inc();
    }

    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration) {
        let result = match reply.code {
            ..400 => "accepted",
            400..500 => "deferred",
            _ => "refused",
        };
        self.messages.with_label_values(&[result]).inc();
        self.received_bytes.inc_by(bytes);
        self.accept_seconds.observe(elapsed.as_secs_f64());
    }
}

impl store::Observe for Metrics {
    fn issued(&self, life: Duration) {
        self.token_exchanges.with_label_values(&[Reason::TokenAcquired.as_str()]).inc();
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        self.token_expiry.set(clock::unix_seconds().saturating_add(life));
        tracing::info!(life_seconds = life, "access token issued");
    }

    fn refused(&self, failure: &Failure) {
        self.token_exchanges.with_label_values(&[failure.reason.as_str()]).inc();
        tracing::warn!(reason = failure.reason.as_str(), met = failure.message, "no access token issued");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::outcome::{Met, Verdict};
    use crate::server::Observer;

    fn rendered(metrics: &Metrics, health: &Health) -> String {
        String::from_utf8(metrics.render(health)).unwrap()
    }

    #[test]
    fn every_name_has_the_prefix_a_unit_and_help() {
        let metrics = Metrics::new().unwrap();
        let units = ["_total", "_seconds", "_bytes", "_open", "_status", "_number"];
        let text = rendered(&metrics, &Health::default());
        for line in text.lines().filter(|line| line.starts_with("# HELP")) {
            let (name, help) = line.trim_start_matches("# HELP ").split_once(' ').unwrap();
            assert!(
                name.starts_with("mailroute_") && units.iter().any(|unit| name.ends_with(unit)),
                "{name}"
            );
            assert!(help.ends_with('.'), "{line}");
        }
    }

    #[test]
    fn a_delivery_is_counted_with_outcome_and_reason() {
        let metrics = Metrics::new().unwrap();
        let verdict = Verdict::without_reply(Outcome::RouteFault(Reason::LoginFailed), "");
        let attempt = Attempt { verdict, refused: vec![], met: vec![], host: None };
        metrics.attempted(&attempt, 1, 10, Duration::from_secs(1));
        let text = rendered(&metrics, &Health::default());
        assert!(
            text.contains(r#"mailroute_deliveries_total{outcome="route_fault",reason="LoginFailed"} 1"#),
            "{text}"
        );
        assert!(text.contains("mailroute_delivered_bytes_total 0"));
    }

    #[test]
    fn only_the_reason_in_force_is_shown() {
        let (metrics, mut health) = (Metrics::new().unwrap(), Health::default());
        health.record(&[Met::new(Reason::ConnectFailed, "")], 1);
        rendered(&metrics, &health);
        health.record(&[Met::new(Reason::Connected, "")], 2);
        let text = rendered(&metrics, &health);
        assert!(text.contains(r#"{condition="UpstreamReachable",reason="Connected"} 1"#), "{text}");
        assert!(!text.contains("ConnectFailed"), "{text}");
    }

    #[test]
    fn answers_are_counted_by_class() {
        let metrics = Metrics::new().unwrap();
        let reply = Reply { code: 451, enhanced: None, lines: vec![] };
        metrics.answered(&reply, 5, Duration::from_millis(3));
        let text = rendered(&metrics, &Health::default());
        assert!(text.contains(r#"mailroute_messages_total{result="deferred"} 1"#));
    }
}
