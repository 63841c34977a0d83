//! Some mail of two routes, for panels to show: one that Microsoft takes, and one that it puts off for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mailroute_m365::{Faults, Options, Rule, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::RouteFile;
use mailroute_route::file::DeliveryMode;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::Span;
use crate::alone::Alone;
use crate::inbox::{plain, send};
use crate::prometheus::{Prometheus, Target};

/// Rows of the dashboard about sidecars alone: they need no operator.
pub const ROWS: [&str; 4] = ["Mail", "Queue", "Limits", "The way to Microsoft 365"];

/// The panel in these rows that stays empty without an operator.
pub const LEASES: &str = "Leases";

/// Two sidecars, each with a Microsoft 365 of its own, and a Prometheus that scrapes them.
pub struct Traffic {
    /// It.
    pub prometheus: Prometheus,
    notifications: Alone,
    invoices: Alone,
}

impl Traffic {
    /// Starts all of them.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start() -> Result<Self> {
        let prometheus = Prometheus::start(&json!({"groups": []})).await?;
        let queues = |route: &mut RouteFile| route.delivery.mode = DeliveryMode::DeliverOrQueue;
        let (notifications, invoices) = (sidecar(|_| ()).await?, sidecar(queues).await?);
        let target = |alone: &Alone, route: &str| {
            let labels = [("namespace", "shop"), ("route", route), ("pod", route)];
            let labels: BTreeMap<_, _> = labels.map(|(name, value)| (name.into(), value.into())).into();
            Target { address: alone.admin(), labels, honor_labels: false }
        };
        let targets = [target(&notifications, "notifications"), target(&invoices, "invoices")];
        prometheus.scrape(&targets).await?;
        Ok(Self { prometheus, notifications, invoices })
    }

    /// Sends for some time, in whose second third Microsoft puts off the mail of one route.
    ///
    /// # Errors
    /// When the clock or a reply cannot be used.
    pub async fn flow(&self, length: Duration) -> Result<Span> {
        let (start, begun) = (now()?, Instant::now());
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u32;
        while begun.elapsed() < length {
            ticks.tick().await;
            number += 1;
            let third = begun.elapsed().as_secs_f64() / length.as_secs_f64() * 3.0;
            let faults = if (1.0..2.0).contains(&third) { put_off()? } else { Faults::default() };
            self.invoices.microsoft.set_faults(faults);
            let text =
                plain("Your order has been shipped", &"It is on its way. ".repeat(number as usize % 50));
            // A refusal is a part of what is shown.
            if (number / 40).is_multiple_of(2) || number.is_multiple_of(3) {
                let _ = send(self.notifications.smtp, &["ada@example.com"], &text).await;
            }
            if number.is_multiple_of(4) {
                let _ = send(self.invoices.smtp, &["bob@example.com", "ops@example.org"], &text).await;
            }
            if number.is_multiple_of(30) {
                // No mail address: the sidecar itself refuses it.
                let _ = send(self.notifications.smtp, &["nobody"], &text).await;
            }
        }
        Ok(Span { start, end: now()?, rate_interval: "5s" })
    }

    /// Ends the sidecars.
    pub async fn stop(self) {
        self.notifications.stop().await;
        self.invoices.stop().await;
    }
}

/// A sidecar whose mailbox may send more than Exchange would let it, so that little time shows much.
async fn sidecar(change: impl FnOnce(&mut RouteFile)) -> Result<Alone> {
    let mut options = Options::default();
    options.config.limits.messages_per_minute = 600;
    Alone::start(options, |route| {
        route.limits.messages_per_minute = Some(600);
        route.limits.recipients_per_day = Some(10_000);
        change(route);
    })
    .await
}

fn put_off() -> Result<Faults> {
    let reply = "451 4.3.2 Please try again later".to_owned().try_into()?;
    let rules = vec![Rule::always(Stage::EndOfData, SmtpAction::Reply(reply))];
    Ok(Faults { submission: SubmissionFaults { rules, ..SubmissionFaults::default() }, ..Faults::default() })
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs_f64())
}
