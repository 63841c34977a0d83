//! Whether a gateway can be reached, looked at also while no message needs one: what is in the way shows before an outage of Microsoft
//! 365, and is forgotten when it is gone.
//!
//! ```text
//!  the route names a gateway ─► a certificate? ─► connect, be greeted ─► nothing more until an error is met, or the route changes
//!                                    └──────── an error: again, soon at first, then once a minute ────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use mailroute_route::file::Gateway;
use tokio::sync::watch;
use tokio::time::sleep;

use super::client::Gateways;
use super::identity::Identity;
use crate::clock;

/// When to look.
#[derive(Clone, Copy, Debug)]
pub struct CheckSchedule {
    /// Between two looks, and after the first error. Doubles with each further one.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for CheckSchedule {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), longest: Duration::from_secs(60) }
    }
}

impl CheckSchedule {
    /// The pause after so many errors in a row. `chance` spreads the pods of a deployment.
    fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(0.75 + 0.5 * chance)
    }
}

/// Looks until `stop`.
pub async fn run(
    gateways: Arc<Gateways>,
    identity: Arc<Identity>,
    schedule: CheckSchedule,
    mut stop: watch::Receiver<bool>,
) {
    let mut changes = identity.changes();
    let mut check = Check { gateways: &gateways, identity: &identity, greeted: None, failures: 0 };
    let looks = async {
        loop {
            check.look().await;
            tokio::select! {
                () = changes.next() => {}
                () = sleep(schedule.pause(check.failures, clock::chance())) => {}
            }
        }
    };
    tokio::select! {
        () = looks => {}
        _ = stop.wait_for(|&stop| stop) => {}
    }
}

struct Check<'a> {
    gateways: &'a Gateways,
    identity: &'a Identity,
    /// The gateway that was looked at last, as the route file had it.
    greeted: Option<Gateway>,
    /// Errors in a row.
    failures: u32,
}

impl Check<'_> {
    async fn look(&mut self) {
        let Some(gateway) = self.identity.gateway() else {
            (self.greeted, self.failures) = (None, 0);
            return self.gateways.report(None);
        };
        if let Some(problem) = self.identity.problem() {
            self.failures += 1;
            return self.gateways.report(Some(problem));
        }
        if self.gateways.is_one_of_them() {
            self.failures = 0;
            return self.gateways.report(None);
        }
        let is_new = self.greeted.as_ref() != Some(&gateway);
        // Without a problem the first certificate is on its way.
        if self.identity.ready().is_ok() && (is_new || self.gateways.has_error()) {
            let is_reached = self.gateways.greet().await;
            self.failures = if is_reached { 0 } else { self.failures + 1 };
            self.greeted = Some(gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_looked_at_again_soon_and_then_once_a_minute() {
        let schedule = CheckSchedule::default();
        let pauses = [0, 1, 2, 3, 4, 5, 1000].map(|failures| schedule.pause(failures, 0.5).as_secs());
        assert_eq!(pauses, [5, 5, 10, 20, 40, 60, 60]);
    }
}
