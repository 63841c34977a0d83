//! Every metric, each with its one line of help; `events` has what is counted when.
//!
//! Names are `mailroute_<thing>_<unit>[_total]`. Label values come from closed sets only: outcomes, reasons, conditions,
//! refusals. Never an address, a host or a text.

mod budget;
mod events;
mod gateway;
mod queue;

use mailroute_metrics::{Families, Family, counter, counters, gauge, gauges, histogram};
use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::delivery::connection::Protection;
use crate::listener::Refusal;
use crate::outcome::health::Health;

/// Upper bounds for what takes a few round trips to Microsoft, seconds; five seconds is Exchange's tarpit.
const SECONDS: &[f64] = &[0.01, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0, 120.0];

/// The metrics of one sidecar.
pub struct Metrics {
    registry: Registry,
    received: Received,
    sent: Sent,
    state: State,
    queued: queue::Queued,
    gateway: gateway::Gateway,
    budgeted: budget::Budgeted,
    /// Token requests that fail, as the log has them.
    token_faults: std::sync::Mutex<crate::logging::faults::FaultLog>,
}

/// What became of a report, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportResult {
    /// Taken.
    Taken,
    /// No replica took it.
    Failed,
}

impl ReportResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// All metrics, registered, the labelled ones with every value that they can have.
    ///
    /// # Errors
    /// When two metrics have one name, which is a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let this = Self::register(&Families::default())?;
        this.show_closed_sets();
        Ok(this)
    }

    /// Every metric family, for the reference.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn families() -> prometheus::Result<Vec<Family>> {
        let families = Families::default();
        Self::register(&families)?;
        Ok(families.into_list())
    }

    fn register(r: &Families) -> prometheus::Result<Self> {
        let build = gauges(r, "mailroute_build_info", "The program that runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            received: Received::register(r)?,
            sent: Sent::register(r)?,
            state: State::register(r)?,
            queued: queue::Queued::register(r)?,
            gateway: gateway::Gateway::register(r)?,
            budgeted: budget::Budgeted::register(r)?,
            token_faults: std::sync::Mutex::default(),
            registry: r.registry(),
        })
    }

    /// Makes the values of closed sets visible before they are first counted, so that a rate has a start.
    fn show_closed_sets(&self) {
        let is_special = |it: &&Refusal| Refusal::OF_NETWORK.contains(it) || Refusal::OF_RULES.contains(it);
        for refusal in Refusal::ALL.iter().filter(|refusal| !is_special(refusal)) {
            self.received.refusals.with_label_values(&[refusal.as_str()]);
        }
        for result in ["accepted", "deferred", "refused"] {
            self.received.messages.with_label_values(&[result]);
        }
        for outcome in ["delivered", "transient", "reject_recipient", "reject_message"] {
            self.sent.deliveries.with_label_values(&[outcome, "none"]);
        }
        for result in [ReportResult::Taken, ReportResult::Failed] {
            self.state.reports.with_label_values(&[result.as_str()]);
        }
        for protection in Protection::ALL {
            self.sent.connections.with_label_values(&[protection.as_str()]);
        }
        for result in ["well", "trouble"] {
            self.sent.probes.with_label_values(&[result]);
        }
    }

    /// The text for Prometheus.
    pub fn render(&self, health: &Health) -> Vec<u8> {
        self.state.conditions.reset();
        for observation in health.observations() {
            let labels = [observation.condition.as_str(), observation.reason.as_str()];
            self.state.conditions.with_label_values(&labels).set(1);
        }
        if let Some(bytes) = resident_bytes() {
            self.state.resident_bytes.set(bytes);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot print the metrics");
        }
        text
    }
}

/// What applications send to the local server.
struct Received {
    sessions: IntGauge,
    sessions_total: IntCounter,
    refusals: IntCounterVec,
    messages: IntCounterVec,
    bytes: IntCounter,
    encoded_fields: IntCounter,
    rule_actions: IntCounterVec,
    accept_seconds: Histogram,
    logins: IntCounterVec,
    /// Without a label; only a gateway has it.
    certificate_expiry: IntGaugeVec,
}

impl Received {
    fn register(r: &Families) -> prometheus::Result<Self> {
        Ok(Self {
            sessions: gauge(r, "mailroute_sessions_open", "SMTP sessions open now.")?,
            sessions_total: counter(r, "mailroute_sessions_total", "SMTP sessions opened.")?,
            refusals: counters(
                r,
                "mailroute_refusals_total",
                "Sessions, commands and messages that the local server refused itself, by reason.",
                &["reason"],
            )?,
            messages: counters(
                r,
                "mailroute_messages_total",
                "Messages received completely, by what the application was answered.",
                &["result"],
            )?,
            bytes: counter(r, "mailroute_received_bytes_total", "Octets of messages received completely.")?,
            encoded_fields: counter(
                r,
                "mailroute_encoded_header_fields_total",
                "Header fields with raw UTF-8 that were written as encoded words.",
            )?,
            rule_actions: counters(
                r,
                "mailroute_rule_actions_total",
                "What rules of the route (recipients, archive, headers) did to messages, by action.",
                &["action"],
            )?,
            accept_seconds: histogram(
                r,
                "mailroute_accept_duration_seconds",
                "Time from the end of a message's data to the application's answer.",
                SECONDS,
            )?,
            logins: counters(
                r,
                "mailroute_logins_total",
                "Logins of SMTP clients of a gateway, by result.",
                &["result"],
            )?,
            certificate_expiry: gauges(
                r,
                "mailroute_smtp_certificate_expiry_timestamp_seconds",
                "When the certificate ends that a gateway shows to SMTP clients, seconds since the epoch; 0 without one.",
                &[],
            )?,
        })
    }
}

/// What goes to Microsoft.
struct Sent {
    deliveries: IntCounterVec,
    /// Not by outcome: a histogram is some fifteen lines of each scrape.
    delivery_seconds: Histogram,
    recipients: IntCounter,
    bytes: IntCounter,
    fast_failures: IntCounter,
    probes: IntCounterVec,
    connections: IntCounterVec,
    token_exchanges: IntCounterVec,
    token_expiry: IntGauge,
    certificate_expiry: IntGauge,
}

impl Sent {
    fn register(r: &Families) -> prometheus::Result<Self> {
        Ok(Self {
            deliveries: counters(
                r,
                "mailroute_deliveries_total",
                "Attempts to deliver a message to the upstream, by outcome and reason.",
                &["outcome", "reason"],
            )?,
            delivery_seconds: histogram(
                r,
                "mailroute_delivery_duration_seconds",
                "Duration of attempts to deliver, waiting for the connection included.",
                SECONDS,
            )?,
            recipients: counter(
                r,
                "mailroute_delivered_recipients_total",
                "Recipients of messages that the upstream accepted.",
            )?,
            bytes: counter(
                r,
                "mailroute_delivered_bytes_total",
                "Octets of messages that the upstream accepted.",
            )?,
            fast_failures: counter(
                r,
                "mailroute_fast_failures_total",
                "Messages answered 451 without an attempt, as the route is known not to work.",
            )?,
            probes: counters(
                r,
                "mailroute_probes_total",
                "Walks to the log-in without a message, by result.",
                &["result"],
            )?,
            connections: counters(
                r,
                "mailroute_upstream_connections_total",
                "Connections made to the upstream, by what protects them.",
                &["protection"],
            )?,
            token_exchanges: counters(
                r,
                "mailroute_token_exchanges_total",
                "Exchanges at the token endpoint, by reason.",
                &["reason"],
            )?,
            token_expiry: gauge(
                r,
                "mailroute_token_expiry_timestamp_seconds",
                "When the access token in use ends, seconds since the epoch; 0 without one.",
            )?,
            certificate_expiry: gauge(
                r,
                "mailroute_route_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, seconds since the epoch; 0 without one.",
            )?,
        })
    }
}

/// The sidecar's own state.
struct State {
    conditions: IntGaugeVec,
    config_generation: IntGauge,
    config_valid: IntGauge,
    config_errors: IntCounter,
    reports: IntCounterVec,
    resident_bytes: IntGauge,
}

impl State {
    fn register(r: &Families) -> prometheus::Result<Self> {
        Ok(Self {
            conditions: gauges(
                r,
                "mailroute_condition_status",
                "Conditions as this sidecar met them last: 1 for the reason in force, by condition and reason.",
                &["condition", "reason"],
            )?,
            config_generation: gauge(
                r,
                "mailroute_config_generation_number",
                "Generation of the route in use; 0 before the first.",
            )?,
            config_valid: gauge(
                r,
                "mailroute_config_valid_status",
                "1 when the newest route file is the one in use.",
            )?,
            config_errors: counter(
                r,
                "mailroute_config_errors_total",
                "Route files that could not be used.",
            )?,
            reports: counters(
                r,
                "mailroute_reports_total",
                "Reports to the control service, by result.",
                &["result"],
            )?,
            resident_bytes: gauge(
                r,
                "mailroute_resident_memory_bytes",
                "Memory of the process that is in RAM.",
            )?,
        })
    }
}

/// Resident memory, from `/proc/self/statm` (pages of 4 KiB on every platform we build for).
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<i64>().ok().map(|pages| pages * 4096)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mailroute_route::condition::Reason;

    use super::*;
    use crate::outcome::queued::QueueExit;
    use crate::outcome::{AttemptResult, DeliveryOutcome, Observation, Verdict};

    fn rendered(metrics: &Metrics, health: &Health) -> String {
        String::from_utf8(metrics.render(health)).unwrap()
    }

    #[test]
    fn every_name_has_the_prefix_a_unit_and_help() {
        let metrics = Metrics::new().unwrap();
        let units =
            ["_total", "_seconds", "_bytes", "_open", "_status", "_number", "_messages", "_ratio", "_info"];
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
    fn a_scrape_has_fewer_than_200_lines_and_says_which_program_runs() {
        let metrics = Metrics::new().unwrap();
        for outcome in [
            DeliveryOutcome::Delivered,
            DeliveryOutcome::Transient(Some(Reason::ConnectFailed)),
            DeliveryOutcome::RouteFault(Reason::LoginFailed),
            DeliveryOutcome::Quota(Reason::RateExceeded),
            DeliveryOutcome::RejectRecipient,
            DeliveryOutcome::RejectMessage(None),
        ] {
            let verdict = Verdict::without_reply(outcome, "");
            let attempt = AttemptResult { verdict, refused: vec![], observations: vec![], host: None };
            metrics.attempted(&attempt, 1, 10, Duration::from_secs(1));
        }
        for exit in [QueueExit::Delivered, QueueExit::DeadLetter, QueueExit::Dropped] {
            metrics.left_queue(exit, Duration::from_secs(1));
        }
        let text = rendered(&metrics, &Health::default());
        assert!(text.lines().count() < 200, "{}\n{text}", text.lines().count());
        let build = format!("mailroute_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
    }

    #[test]
    fn only_the_reason_in_force_is_shown() {
        let (metrics, mut health) = (Metrics::new().unwrap(), Health::default());
        health.record(&[Observation::new(Reason::ConnectFailed, "")], 1);
        rendered(&metrics, &health);
        health.record(&[Observation::new(Reason::Connected, "")], 2);
        let text = rendered(&metrics, &health);
        assert!(text.contains(r#"{condition="UpstreamReachable",reason="Connected"} 1"#), "{text}");
        assert!(!text.contains("ConnectFailed"), "{text}");
    }
}
