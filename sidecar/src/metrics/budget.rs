//! The budget in metrics: how much of the mailbox's limits is used, who waits for them, and what Microsoft found too much.

use mailroute_metrics::{Families, counters, ratio, ratios};
use mailroute_quota::Utilization;
use mailroute_quota::client::budget::BudgetView;
use mailroute_quota::client::wait::WaitReason;
use mailroute_quota::wire::Throttled;
use prometheus::{Gauge, GaugeVec, IntCounterVec};

use super::Metrics;
use crate::budget::limiter;

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
                "Share of the limits in use: below 1 for some minutes after the upstream throttled.",
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
        for why in WaitReason::ALL {
            this.waits.with_label_values(&[why.as_str()]);
        }
        for throttle in Throttled::ALL {
            this.throttles.with_label_values(&[throttle.as_str()]);
        }
        Ok(this)
    }
}

impl limiter::Observe for Metrics {
    fn waits(&self, why: WaitReason) {
        self.budgeted.waits.with_label_values(&[why.as_str()]).inc();
    }

    fn throttled(&self, what: Throttled) {
        self.budgeted.throttles.with_label_values(&[what.as_str()]).inc();
    }
}

impl Metrics {
    /// The budget as it is now.
    pub fn show_budget(&self, view: BudgetView) {
        for (limit, used) in [("minute", view.minute), ("hour", view.hour), ("day", view.day)] {
            self.budgeted.used.with_label_values(&[limit]).set(used.map_or(0.0, fraction));
        }
        self.budgeted.share.set(view.share);
    }
}

/// Far below the numbers that a float cannot hold.
#[expect(clippy::cast_precision_loss)]
fn fraction(Utilization { used, limit }: Utilization) -> f64 {
    used as f64 / limit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::limiter::Observe;
    use super::*;
    use crate::outcome::health::Health;

    #[test]
    fn the_use_of_each_limit_is_shown_and_an_unknown_one_is_not_used() {
        let metrics = Metrics::new().unwrap();
        metrics.show_budget(BudgetView {
            minute: Some(Utilization { used: 15, limit: 30 }),
            hour: None,
            day: None,
            share: 0.5,
        });
        metrics.waits(WaitReason::Day);
        metrics.throttled(Throttled::Connections);
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
