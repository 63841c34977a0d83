//! Walks the way to the log-in without a message, so that status is true without traffic and recovers by itself.
//!
//! At start, after a change of configuration, and while something is wrong, with growing pauses; trouble that only a
//! message can clear is not worth those. Besides that only after a long time without a message taken, so that what broke
//! overnight shows before the first mail of the day. With mail, mail itself tells.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use tokio::sync::watch;

use crate::attempt::Attempts;
use crate::budget::Amount;
use crate::budget::limiter::SendPermit;
use crate::clock::{self, Instant};
use crate::delivery::Transport;
use crate::outcome::health::{Health, SharedHealth};
use crate::outcome::{Observation, Probe};

/// Longest probe, from token to log-in.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// How long a look at the way waits for a connection of the mailbox. Longer, and the mail of the others tells as much.
const ADMISSION: Duration = Duration::from_secs(300);

/// When to probe again.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSchedule {
    /// First pause; doubles with each probe that finds trouble.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// Time without a delivery after which to look whether the way is still open.
    pub idle: Duration,
}

impl Default for ProbeSchedule {
    fn default() -> Self {
        // An idle probe takes one of the mailbox's three connections for a second or two, so hundreds of pods may share
        // a mailbox.
        Self {
            first: Duration::from_secs(15),
            longest: Duration::from_secs(300),
            idle: Duration::from_secs(900),
        }
    }
}

impl ProbeSchedule {
    /// The pause after `failures` probes in a row found trouble. `chance` spreads the pods of a deployment.
    fn pause(self, failures: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(0.9 + 0.2 * chance)
    }

    /// How long nothing must have been delivered before a probe, spread wider: pods of a deployment start together.
    fn idle(self, chance: f64) -> Duration {
        self.idle.mul_f64(0.75 + 0.5 * chance)
    }
}

/// The mail that goes the same way.
#[async_trait]
pub trait Traffic: Send + Sync {
    /// Permission to use a connection for a probe, kept while it goes on; none while mail has them all.
    async fn admit(&self) -> Option<SendPermit>;

    /// A probe ended.
    fn probed(&self, probe: &Probe);

    /// When the upstream took a message last.
    fn last_delivery(&self) -> Option<Instant>;
}

#[async_trait]
impl Traffic for Attempts {
    async fn admit(&self) -> Option<SendPermit> {
        self.budget().admit(ADMISSION).await
    }

    fn probed(&self, probe: &Probe) {
        Self::probed(self, probe);
    }

    fn last_delivery(&self) -> Option<Instant> {
        self.budget().last_accepted()
    }
}

/// Probes `transport` until `stop`, telling `traffic` of each probe before the shared health learns of it. `wake` asks for a probe
/// without a pause.
pub async fn run(
    transport: Arc<dyn Transport>,
    shared: SharedHealth,
    pace: ProbeSchedule,
    mut wake: watch::Receiver<()>,
    mut stop: watch::Receiver<bool>,
    traffic: Arc<dyn Traffic>,
) {
    let mut health = shared.subscribe();
    let mut failures = 0;
    loop {
        let probe = tokio::select! {
            probe = admitted(transport.as_ref(), traffic.as_ref()) => probe,
            _ = stop.wait_for(|&stop| stop) => return,
        };
        traffic.probed(&probe);
        shared.record(&probe.observations);
        failures = if probe.is_well() { 0 } else { failures + 1 };
        let next = async {
            if failures > 0 {
                tokio::time::sleep(pace.pause(failures, clock::chance())).await;
            }
            // Mail may meet trouble, or end it, in the meantime.
            let trouble = async {
                drop(health.wait_for(needs_probe).await);
                if failures == 0 {
                    tokio::time::sleep(pace.pause(1, clock::chance())).await;
                }
            };
            tokio::select! {
                () = trouble => {}
                () = idle(traffic.as_ref(), pace.idle(clock::chance())) => {}
            }
        };
        tokio::select! {
            () = next => {}
            () = woken(&mut wake) => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
    }
}

/// Completes when a probe is asked for; never when nobody is left to ask.
async fn woken(wake: &mut watch::Receiver<()>) {
    if wake.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A probe with a permit. Without one it ends without a finding: what the mail of others meets tells more.
async fn admitted(transport: &dyn Transport, traffic: &dyn Traffic) -> Probe {
    let Some(permit) = traffic.admit().await else { return Probe { observations: vec![] } };
    let probe = bounded(transport).await;
    permit.settle(Amount::NOTHING, false);
    probe
}

/// A probe that an upstream which says nothing cannot hold: mail waits for the same connection meanwhile.
async fn bounded(transport: &dyn Transport) -> Probe {
    let silent = |_| {
        let text = format!("no log-in within {} seconds", LONGEST_PROBE.as_secs());
        Probe { observations: vec![Observation::new(Reason::UpstreamUnavailable, text)] }
    };
    tokio::time::timeout(LONGEST_PROBE, transport.probe()).await.unwrap_or_else(silent)
}

/// Completes once nothing has been delivered, nor probed, for `long`.
async fn idle(traffic: &dyn Traffic, long: Duration) {
    let mut since = clock::now();
    loop {
        tokio::time::sleep_until(since + long).await;
        match traffic.last_delivery() {
            Some(last) if last > since => since = last,
            _ => return,
        }
    }
}

fn needs_probe(health: &Health) -> bool {
    !health.is_well() && !health.waits_for_mail()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use mailroute_quota::Timing;
    use tokio::task::JoinSet;

    use super::*;
    use crate::budget::limiter::RateLimiter;
    use crate::delivery::DryRun;
    use crate::delivery::pool::Slot;
    use crate::message::body::Body;
    use crate::message::envelope::Envelope;
    use crate::metrics::Metrics;
    use crate::outcome::{AttemptResult, PartialDelivery, Verdict};

    /// Probes fail until there were `failures` of them.
    #[derive(Default)]
    struct Flaky {
        failures: usize,
        at: Mutex<Vec<Instant>>,
    }

    impl Flaky {
        fn pauses(&self) -> Vec<f64> {
            self.at.lock().unwrap().windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
        }
    }

    /// Mail that is delivered every `every` until `until`.
    struct Mail {
        start: Instant,
        every: Duration,
        until: Duration,
    }

    impl Mail {
        fn none() -> Arc<dyn Traffic> {
            Arc::new(Self { start: clock::now(), every: Duration::MAX, until: Duration::ZERO })
        }
    }

    #[async_trait]
    impl Traffic for Mail {
        async fn admit(&self) -> Option<SendPermit> {
            let limiter =
                RateLimiter::new(Path::new("nowhere"), Timing::default(), Arc::new(Metrics::new().unwrap()));
            limiter.admit(Duration::ZERO).await
        }

        fn probed(&self, _: &Probe) {}

        fn last_delivery(&self) -> Option<Instant> {
            let times = self.start.elapsed().min(self.until).as_secs().checked_div(self.every.as_secs())?;
            (times > 0).then(|| self.start + self.every * u32::try_from(times).unwrap())
        }
    }

    #[async_trait]
    impl Transport for Flaky {
        async fn slot(&self, _: &Envelope, _: &Body) -> Result<Slot<'_>, Verdict> {
            unreachable!("a probe sends no mail")
        }

        async fn deliver(&self, _: &Slot<'_>, _: &Envelope, _: &Body, _: PartialDelivery) -> AttemptResult {
            unreachable!("a probe sends no mail")
        }

        async fn probe(&self) -> Probe {
            let mut at = self.at.lock().unwrap();
            at.push(clock::now());
            let reason = if at.len() > self.failures { Reason::LoggedIn } else { Reason::ConnectFailed };
            let earlier = (reason == Reason::LoggedIn).then(|| Observation::new(Reason::Connected, ""));
            Probe { observations: earlier.into_iter().chain([Observation::new(reason, "")]).collect() }
        }

        async fn dry_run(&self, _: &Envelope, _: &mut DryRun) {}

        async fn tend(&self, _: watch::Receiver<bool>) {}
    }

    /// A way that is looked at until this is dropped.
    struct Looked {
        flaky: Arc<Flaky>,
        health: SharedHealth,
        wake: watch::Sender<()>,
        _stop: watch::Sender<bool>,
        _task: JoinSet<()>,
    }

    impl Looked {
        fn at(failures: usize, mail: Arc<dyn Traffic>) -> Self {
            let flaky = Arc::new(Flaky { failures, ..Flaky::default() });
            let ((stop, stopped), (wake, woken)) = (watch::channel(false), watch::channel(()));
            let (health, mut task) = (SharedHealth::default(), JoinSet::new());
            task.spawn(run(
                Arc::clone(&flaky) as _,
                health.clone(),
                ProbeSchedule::default(),
                woken,
                stopped,
                mail,
            ));
            Self { flaky, health, wake, _stop: stop, _task: task }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn probes_slow_down_while_trouble_lasts_and_rest_when_it_ends() {
        let looked = Looked::at(3, Mail::none());
        looked.health.subscribe().wait_for(Health::is_well).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let pauses = looked.flaky.pauses();
        assert_eq!(pauses.len(), 3, "no probe soon after all is well");
        for (pause, expected) in pauses.iter().zip([15.0, 30.0, 60.0]) {
            assert!((pause / expected - 1.0).abs() < 0.11, "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_way_is_looked_at_now_and_then() {
        let looked = Looked::at(0, Mail::none());
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        let pauses = looked.flaky.pauses();
        assert!((19..=32).contains(&pauses.len()), "{pauses:?}");
        assert!(pauses.iter().all(|pause| (675.0..=1125.1).contains(pause)), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_way_is_not_probed() {
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let mail = Mail { start: clock::now(), every: Duration::from_secs(60), until: hours(6) };
        let looked = Looked::at(0, Arc::new(mail));
        tokio::time::sleep(hours(6)).await;
        assert_eq!(looked.flaky.at.lock().unwrap().len(), 1, "the one at the start");
        tokio::time::sleep(hours(1)).await;
        let pause = looked.flaky.pauses()[0];
        assert!(
            (675.0..=1125.1).contains(&(pause - 6.0 * 3600.0)),
            "idle counts from the last message: {pause}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_met_by_mail_is_probed() {
        let looked = Looked::at(0, Mail::none());
        let mut health = looked.health.subscribe();
        health.wait_for(Health::is_well).await.unwrap();
        looked.health.record(&[Observation::new(Reason::ConnectFailed, "")]);
        assert!(!health.borrow_and_update().is_well());
        health.wait_for(Health::is_well).await.unwrap();
        let pauses = looked.flaky.pauses();
        assert!(pauses.len() == 1 && pauses[0] < 17.0, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_asked_for_does_not_wait() {
        let looked = Looked::at(9, Mail::none());
        tokio::time::sleep(Duration::from_secs(1)).await;
        looked.wake.send_replace(());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pauses = looked.flaky.pauses();
        assert!(pauses.len() == 1 && pauses[0] < 1.5, "{pauses:?}");
    }

    #[test]
    fn the_pause_has_a_bound() {
        assert_eq!(ProbeSchedule::default().pause(40, 0.5), Duration::from_secs(300));
    }
}
