//! The budget in metrics: how much of the mailbox's limits is used, who waits for them, and what Microsoft found too much.

use mailroute_metrics::{Families, counters, ratio, ratios};
use prometheus::{Gauge, GaugeVec, IntCounterVec};

use super::Metrics;
use crate::budget::restraint::Throttle;
use crate::budget::{View, Why, gate};

/// What is sent, against what may be.
pub(super) struct Budgeted {
    share: Gauge,
    used: GaugeVec,
    waits: IntCounterVec,
    throttles: IntCounterVec,
}

impl Budgeted {
    pub(super) fn register(r: &Families) -> prometheus::Result<Self> {
        let this = Self {
            share: ratio(
                r,
                "mailroute_budget_share_ratio",
                "The share of the limits that is kept to: below 1 for some minutes after the upstream found it too much.",
            )?,
            used: ratios(
                r,
                "mailroute_budget_used_ratio",
                "How much of a limit of the mailbox is used, by limit; 0 where none is known.",
                &["limit"],
            )?,
            waits: counters(
                r,
                "mailroute_budget_waits_total",
                "Messages that could not go at once for the limits of the mailbox, by what they wait for.",
                &["limit"],
            )?,
            throttles: counters(
                r,
                "mailroute_budget_throttles_total",
                "Replies of the upstream that it was too much, by kind.",
                &["kind"],
            )?,
        };
        for why in Why::ALL {
            this.waits.with_label_values(&[why.as_str()]);
        }
        for throttle in [Throttle::Rate, Throttle::Connections] {
            this.throttles.with_label_values(&[throttle.as_str()]);
        }
        Ok(this)
    }
}

impl gate::Observe for Metrics {
    fn waits(&self, why: Why) {
        self.budgeted.waits.with_label_values(&[why.as_str()]).inc();
    }

    fn throttled(&self, what: Throttle) {
        self.budgeted.throttles.with_label_values(&[what.as_str()]).inc();
        tracing::warn!(
            kind = what.as_str(),
            "Microsoft 365 throttled the mailbox; sending is slowed for now"
        );
    }
}

impl Metrics {
    /// The budget as it is now.
    pub fn show_budget(&self, view: View) {
        for (limit, used) in [("minute", view.minute), ("day", view.day)] {
            self.budgeted.used.with_label_values(&[limit]).set(used.map_or(0.0, fraction));
        }
        self.budgeted.share.set(view.share);
    }
}

/// Far below the numbers that a float cannot hold.
#[expect(clippy::cast_precision_loss)]
fn fraction((used, limit): (u64, u64)) -> f64 {
    used as f64 / limit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::gate::Observe;
    use super::*;
    use crate::health::Health;

    #[test]
    fn the_use_of_each_limit_is_shown_and_an_unknown_one_is_not_used() {
        let metrics = Metrics::new().unwrap();
        metrics.show_budget(View { minute: Some((15, 30)), day: None, share: 0.5 });
        metrics.waits(Why::Day);
        metrics.throttled(Throttle::Connections);
        let text = String::from_utf8(metrics.render(&Health::default())).unwrap();
        for line in [
            r#"mailroute_budget_used_ratio{limit="minute"} 0.5"#,
            r#"mailroute_budget_used_ratio{limit="day"} 0"#,
            "mailroute_budget_share_ratio 0.5",
            r#"mailroute_budget_waits_total{limit="day"} 1"#,
            r#"mailroute_budget_waits_total{limit="pace"} 0"#,
            r#"mailroute_budget_throttles_total{kind="connections"} 1"#,
        ] {
            assert!(text.lines().any(|met| met == line), "{line}: {text}");
        }
    }
}
