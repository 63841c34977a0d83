//! Hand-overs in metrics: what is given to a gateway, and what a gateway takes. Shown only where there is one.

use std::time::Duration;

use mailroute_metrics::{Families, counters, gauges, histograms};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::Metrics;
use crate::outcome::queued::{HandOverOutcome, TakeOverOutcome};

/// Upper bounds for what takes a sync of a disk in the cluster, seconds.
const SECONDS: &[f64] = &[0.01, 0.1, 1.0, 5.0, 30.0];

/// Both sides of hand-overs.
pub(super) struct Gateway {
    hand_overs: IntCounterVec,
    seconds: HistogramVec,
    taken: IntCounterVec,
    bytes: IntCounterVec,
    identity_expiry: IntGaugeVec,
}

impl Gateway {
    pub(super) fn register(r: &Families) -> prometheus::Result<Self> {
        Ok(Self {
            hand_overs: counters(
                r,
                "mailroute_handovers_total",
                "Attempts to hand a message over to a gateway, by outcome.",
                &["outcome"],
            )?,
            seconds: histograms(
                r,
                "mailroute_handover_duration_seconds",
                "Duration of attempts to hand a message over to a gateway, by outcome.",
                SECONDS,
                &["outcome"],
            )?,
            taken: counters(
                r,
                "mailroute_gateway_messages_total",
                "Messages handed over to this gateway, by outcome.",
                &["outcome"],
            )?,
            bytes: counters(
                r,
                "mailroute_gateway_received_bytes_total",
                "Octets of messages handed over to this gateway, by outcome.",
                &["outcome"],
            )?,
            identity_expiry: gauges(
                r,
                "mailroute_identity_expiry_timestamp_seconds",
                "When this pod's certificate for the route's gateway ends, seconds since the epoch; 0 without one.",
                &[],
            )?,
        })
    }
}

impl Metrics {
    /// This pod's certificate for the route's gateway ends then, seconds since the epoch.
    pub fn identity(&self, not_after: i64) {
        self.gateway.identity_expiry.with_label_values::<&str>(&[]).set(not_after);
    }

    /// The route has a gateway: a rate of hand-overs needs a start.
    pub fn show_hand_overs(&self) {
        for outcome in HandOverOutcome::ALL {
            self.gateway.hand_overs.with_label_values(&[outcome.as_str()]);
        }
        self.gateway.identity_expiry.with_label_values::<&str>(&[]);
    }

    /// The same for what this gateway takes.
    pub fn show_take_overs(&self) {
        for outcome in TakeOverOutcome::ALL {
            self.gateway.taken.with_label_values(&[outcome.as_str()]);
        }
    }

    /// An attempt to hand a message over ended.
    pub fn handed_over(&self, outcome: HandOverOutcome, took: Duration) {
        self.gateway.hand_overs.with_label_values(&[outcome.as_str()]).inc();
        self.gateway.seconds.with_label_values(&[outcome.as_str()]).observe(took.as_secs_f64());
    }

    /// A message of `bytes` octets was handed over to this gateway.
    pub fn taken_over(&self, outcome: TakeOverOutcome, bytes: u64) {
        self.gateway.taken.with_label_values(&[outcome.as_str()]).inc();
        self.gateway.bytes.with_label_values(&[outcome.as_str()]).inc_by(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::health::Health;

    #[test]
    fn hand_overs_are_counted_on_both_sides() {
        let metrics = Metrics::new().unwrap();
        metrics.show_hand_overs();
        metrics.handed_over(HandOverOutcome::Unreachable, Duration::from_secs(4));
        metrics.taken_over(TakeOverOutcome::Stored, 300);
        metrics.taken_over(TakeOverOutcome::Known, 300);
        let text = String::from_utf8(metrics.render(&Health::default())).unwrap();
        for line in [
            r#"mailroute_handovers_total{outcome="unreachable"} 1"#,
            r#"mailroute_handovers_total{outcome="handed_over"} 0"#,
            r#"mailroute_gateway_messages_total{outcome="known"} 1"#,
            r#"mailroute_gateway_received_bytes_total{outcome="stored"} 300"#,
        ] {
            assert!(text.lines().any(|met| met == line), "{line}: {text}");
        }
    }
}
