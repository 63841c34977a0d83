//! Walks the way to the log-in without a message, so that status is true without traffic and recovers by itself.
//!
//! At start, after a change of configuration, and while something is wrong, with growing pauses. Never while all is
//! well: mail itself then tells. Trouble that only a message can clear is not probed either.

use std::sync::Arc;
use std::time::Duration;

use mailroute_route::condition::Reason;
use tokio::sync::watch;

use crate::clock;
use crate::delivery::Deliver;
use crate::delivery::outcome::{Met, Probe};
use crate::health::{Board, Health};

/// Longest probe, from token to log-in.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// When to probe again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// First pause; doubles with each probe that finds trouble.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(15), longest: Duration::from_secs(300) }
    }
}

impl Pace {
    /// The pause after `failures` probes in a row found trouble. `chance` spreads the pods of a deployment.
    fn pause(self, failures: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(0.9 + 0.2 * chance)
    }
}

/// Probes `deliver` until `stop`, telling `seen` of each probe before the board learns of it.
pub async fn run(
    deliver: Arc<dyn Deliver>,
    board: Board,
    pace: Pace,
    mut stop: watch::Receiver<bool>,
    seen: impl Fn(&Probe) + Send,
) {
    let mut health = board.subscribe();
    let mut failures = 0;
    loop {
        let probe = tokio::select! {
            probe = bounded(deliver.as_ref()) => probe,
            _ = stop.wait_for(|&stop| stop) => return,
        };
        seen(&probe);
        board.record(&probe.met);
        failures = if probe.is_well() { 0 } else { failures + 1 };
        let next = async {
            if failures > 0 {
                tokio::time::sleep(pace.pause(failures, clock::chance())).await;
            }
            // Mail may meet trouble, or end it, in the meantime.
            let _ = health.wait_for(needs_probe).await;
            if failures == 0 {
                tokio::time::sleep(pace.pause(1, clock::chance())).await;
            }
        };
        tokio::select! {
            () = next => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
    }
}

/// A probe that an upstream which says nothing cannot hold: mail waits for the same connection meanwhile.
async fn bounded(deliver: &dyn Deliver) -> Probe {
    let silent = |_| {
        let text = format!("no log-in within {} seconds", LONGEST_PROBE.as_secs());
        Probe { met: vec![Met::new(Reason::UpstreamUnavailable, text)] }
    };
    tokio::time::timeout(LONGEST_PROBE, deliver.probe()).await.unwrap_or_else(silent)
}

fn needs_probe(health: &Health) -> bool {
    !health.is_well() && !health.waits_for_mail()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::body::Body;
    use crate::delivery::outcome::Attempt;
    use crate::envelope::Envelope;

    /// Probes fail until there were `failures` of them.
    struct Flaky {
        failures: usize,
        at: Mutex<Vec<clock::Instant>>,
    }

    #[async_trait]
    impl Deliver for Flaky {
        async fn deliver(&self, _: &Envelope, _: &Body) -> Attempt {
            unreachable!("a probe sends no mail")
        }

        async fn probe(&self) -> Probe {
            let mut at = self.at.lock().unwrap();
            at.push(clock::now());
            let reason = if at.len() > self.failures { Reason::LoggedIn } else { Reason::ConnectFailed };
            let earlier = (reason == Reason::LoggedIn).then(|| Met::new(Reason::Connected, ""));
            Probe { met: earlier.into_iter().chain([Met::new(reason, "")]).collect() }
        }

        async fn tend(&self, _: watch::Receiver<bool>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn probes_slow_down_while_trouble_lasts_and_end_when_it_does() {
        let flaky = Arc::new(Flaky { failures: 3, at: Mutex::default() });
        let (board, (_keep, stop)) = (Board::default(), watch::channel(false));
        let mut health = board.subscribe();
        let task = tokio::spawn(run(Arc::clone(&flaky) as _, board, Pace::default(), stop, |_| ()));
        health.wait_for(Health::is_well).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let at = flaky.at.lock().unwrap().clone();
        let pauses: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        assert_eq!(pauses.len(), 3, "no probe while all is well");
        for (pause, expected) in pauses.iter().zip([15.0, 30.0, 60.0]) {
            assert!((pause / expected - 1.0).abs() < 0.11, "{pauses:?}");
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_met_by_mail_is_probed() {
        let flaky = Arc::new(Flaky { failures: 0, at: Mutex::default() });
        let (board, (_keep, stop)) = (Board::default(), watch::channel(false));
        let mut health = board.subscribe();
        let task = tokio::spawn(run(Arc::clone(&flaky) as _, board.clone(), Pace::default(), stop, |_| ()));
        health.wait_for(Health::is_well).await.unwrap();
        board.record(&[Met::new(Reason::ConnectFailed, "")]);
        assert!(!health.borrow_and_update().is_well());
        health.wait_for(Health::is_well).await.unwrap();
        assert_eq!(flaky.at.lock().unwrap().len(), 2);
        task.abort();
    }

    #[test]
    fn the_pause_has_a_bound() {
        assert_eq!(Pace::default().pause(40, 0.5), Duration::from_secs(300));
    }
}
