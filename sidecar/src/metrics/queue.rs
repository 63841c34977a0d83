//! The queue in metrics: what was kept and why, what became of it, and what waits.

use std::time::Duration;

use mailroute_metrics::{Families, counter, counters, gauge, histograms};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::Metrics;
use crate::outcome::queued::{QueueExit, QueueFigures, QueueingCause};

/// Upper bounds for what may wait for days, seconds.
const WAITS: &[f64] = &[0.5, 5.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 172_800.0];

/// What is kept.
pub(super) struct Queued {
    messages: IntGauge,
    oldest: IntGauge,
    dead_letters: IntGauge,
    bytes: IntGauge,
    max_bytes: IntGauge,
    corrupt: IntGauge,
    kept: IntCounterVec,
    seconds: HistogramVec,
    removed: IntCounter,
    notifications: IntCounter,
}

impl Queued {
    pub(super) fn register(r: &Families) -> prometheus::Result<Self> {
        let this = Self {
            messages: gauge(
                r,
                "mailroute_queue_messages",
                "Messages accepted and not yet delivered to all.",
            )?,
            oldest: gauge(
                r,
                "mailroute_queue_oldest_age_seconds",
                "For how long the oldest of them has been tried; 0 without any.",
            )?,
            dead_letters: gauge(
                r,
                "mailroute_dead_letter_messages",
                "Stored dead letters: messages given up for some recipients after a 250.",
            )?,
            bytes: gauge(
                r,
                "mailroute_spool_bytes",
                "Bytes on disk of everything stored in the spool, in whole blocks.",
            )?,
            max_bytes: gauge(r, "mailroute_spool_limit_bytes", "How many octets the spool may hold.")?,
            corrupt: gauge(
                r,
                "mailroute_spool_corrupt_messages",
                "Files of the spool that could not be read again, and were set aside.",
            )?,
            kept: counters(
                r,
                "mailroute_queued_messages_total",
                "Messages queued before the upstream had them, by cause.",
                &["cause"],
            )?,
            seconds: histograms(
                r,
                "mailroute_queue_duration_seconds",
                "Time that messages spent in the queue, by how they left it.",
                WAITS,
                &["result"],
            )?,
            removed: counter(
                r,
                "mailroute_dead_letters_removed_total",
                "Dead letters removed because there were more than the limit.",
            )?,
            notifications: counter(
                r,
                "mailroute_notifications_total",
                "Delivery status notifications made for senders.",
            )?,
        };
        for cause in QueueingCause::ALL {
            this.kept.with_label_values(&[cause.as_str()]);
        }
        // The others come when they are met: a histogram is some twenty lines.
        this.seconds.with_label_values(&[QueueExit::Delivered.as_str()]);
        Ok(this)
    }
}

impl Metrics {
    /// The queue as it is now.
    pub fn show_queue(&self, figures: QueueFigures) {
        let QueueFigures { messages, oldest_seconds, dead_letters, corrupt, bytes, max_bytes } = figures;
        let shown = [
            (&self.queued.messages, messages),
            (&self.queued.oldest, oldest_seconds),
            (&self.queued.dead_letters, dead_letters),
            (&self.queued.corrupt, corrupt),
            (&self.queued.bytes, bytes),
            (&self.queued.max_bytes, max_bytes),
        ];
        for (gauge, value) in shown {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// A message was kept.
    pub fn queued(&self, cause: QueueingCause) {
        self.queued.kept.with_label_values(&[cause.as_str()]).inc();
    }

    /// A message left the queue after `age`.
    pub fn left_queue(&self, ended: QueueExit, age: Duration) {
        let seconds: Histogram = self.queued.seconds.with_label_values(&[ended.as_str()]);
        seconds.observe(age.as_secs_f64());
    }

    /// A dead letter was removed to make room for another.
    pub fn dead_letter_removed(&self) {
        self.queued.removed.inc();
    }

    /// A sender is told of a failure.
    pub fn notified(&self) {
        self.queued.notifications.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::health::Health;

    #[test]
    fn the_queue_is_shown_as_it_is() {
        let metrics = Metrics::new().unwrap();
        metrics.show_queue(QueueFigures {
            messages: 3,
            oldest_seconds: 60,
            dead_letters: 1,
            corrupt: 2,
            bytes: 8192,
            max_bytes: 1 << 30,
        });
        metrics.queued(QueueingCause::Limits);
        metrics.left_queue(QueueExit::DeadLetter, Duration::from_secs(90));
        let text = String::from_utf8(metrics.render(&Health::default())).unwrap();
        for line in [
            "mailroute_queue_messages 3",
            "mailroute_queue_oldest_age_seconds 60",
            "mailroute_dead_letter_messages 1",
            "mailroute_spool_corrupt_messages 2",
            "mailroute_spool_bytes 8192",
            "mailroute_spool_limit_bytes 1073741824",
            r#"mailroute_queued_messages_total{cause="limits"} 1"#,
            r#"mailroute_queued_messages_total{cause="slow"} 0"#,
            r#"mailroute_queue_duration_seconds_count{result="dead_letter"} 1"#,
        ] {
            assert!(text.lines().any(|met| met == line), "{line}: {text}");
        }
    }
}
