//! When to report again after a report that nobody took. Pure.
//!
//! All sidecars of a cluster may start, or lose the operator, at the same moment. The simulation below shows that they do not keep it
//! from answering: an attempt that is refused costs it nearly as much as one that is taken, so they have to become fewer.

use std::time::Duration;

/// Pause after a report that nobody took; doubles up to the longest.
pub(super) const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);

/// The same while mail waits for an answer. It stays the first for as long as another replica may take to lead, and then doubles, too.
const FIRST_WANTING: Duration = Duration::from_secs(3);
const LONGEST_WANTING: Duration = Duration::from_secs(30);

/// Attempts within the time that a new leader takes after a crash.
const ATTEMPTS_OF_A_CHANGE: u32 = 6;

/// The pause after so many reports in a row that nobody took. `chance` spreads the pods of a cluster.
pub(super) fn retry_pause(failures: u32, chance: f64) -> Duration {
    spread(doubled(FIRST, failures.saturating_sub(1)).min(LONGEST), chance)
}

/// The pause before mail that waits for a lease has it asked for again.
pub(super) fn wanting_pause(failures: u32, chance: f64) -> Duration {
    let pause = doubled(FIRST_WANTING, failures.saturating_sub(ATTEMPTS_OF_A_CHANGE)).min(LONGEST_WANTING);
    retry_pause(failures, chance).min(spread(pause, chance))
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

fn spread(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.75 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound() {
        let seconds = |pause: fn(u32, f64) -> Duration| {
            [1, 2, 3, 6, 7, 8, 9, 10, 100].map(|failures| pause(failures, 0.5).as_secs())
        };
        assert_eq!(seconds(retry_pause), [5, 10, 20, 120, 120, 120, 120, 120, 120]);
        assert_eq!(seconds(wanting_pause), [3, 3, 3, 3, 6, 12, 24, 30, 30]);
    }

    #[test]
    fn a_change_of_leader_is_met_soon() {
        let asked: Duration = (1..=ATTEMPTS_OF_A_CHANGE).map(|failures| wanting_pause(failures, 0.0)).sum();
        assert!((13..20).contains(&asked.as_secs()), "a new leader leads after 15 seconds, {asked:?}");
    }

    /// Sidecars of the cluster.
    const PODS: usize = 50_000;
    /// Length of a step.
    const STEP: Duration = Duration::from_millis(100);
    /// How much a leader works in a step: two processors, less what else it does.
    const WORK: Duration = Duration::from_millis(150);
    /// What a report costs that is taken, as measured; and one that ends after the handshake, or in the middle of it.
    const TAKEN: Duration = Duration::from_micros(1000);
    const REFUSED: Duration = Duration::from_micros(350);
    /// Reports that are being answered at a time; more are refused.
    const AT_ONCE: usize = 512;
    /// How often those that were taken come again.
    const AGAIN: Duration = Duration::from_secs(30);

    /// A generator of chances, the same in each run.
    struct Chances(u64);

    impl Chances {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// What became of the sidecars.
    #[derive(Debug)]
    struct Outcome {
        /// When the last of them was answered for the first time.
        all_answered: Option<Duration>,
        /// Most attempts in a second, from a minute after that on.
        most_afterwards: usize,
    }

    /// All sidecars report for the first time within a second, to a leader that answers from `from` on.
    fn restart(pause: fn(u32, f64) -> Duration, from: Duration, length: Duration) -> Outcome {
        let mut chances = Chances(7);
        let steps = (length.as_millis() / STEP.as_millis()) as usize;
        let step_of = |at: Duration| (at.as_millis() / STEP.as_millis()) as usize;
        let mut due: Vec<VecDeque<(usize, u32)>> = vec![VecDeque::new(); steps + 1];
        for pod in 0..PODS {
            due[step_of(Duration::from_secs_f64(chances.next()))].push_back((pod, 0));
        }
        let (mut answered, mut missing, mut all_answered) = (vec![false; PODS], PODS, None);
        let mut attempts = vec![0; steps];
        for step in 0..steps {
            let now = STEP * step as u32;
            let arrivals = std::mem::take(&mut due[step]);
            attempts[step] = arrivals.len();
            let mut work = if now < from { Duration::ZERO } else { WORK };
            // What comes while all places are taken pushes others out before they are answered: it is paid for first.
            let refused = arrivals.len().saturating_sub(AT_ONCE) as u32;
            work = work.saturating_sub(REFUSED * refused);
            for (pod, failures) in arrivals {
                let is_taken = work >= TAKEN;
                work = work.saturating_sub(if is_taken { TAKEN } else { Duration::ZERO });
                let again = if is_taken { AGAIN } else { pause(failures + 1, chances.next()) };
                if is_taken && !std::mem::replace(&mut answered[pod], true) {
                    missing -= 1;
                    all_answered = (missing == 0).then_some(now);
                }
                if let Some(later) = due.get_mut(step + step_of(again).max(1)) {
                    later.push_back((pod, if is_taken { 0 } else { failures + 1 }));
                }
            }
        }
        let seconds: Vec<usize> = attempts.chunks(10).map(|steps| steps.iter().sum()).collect();
        let calm = all_answered.map_or(usize::MAX, |at| at.as_secs() as usize + 60);
        let most_afterwards = seconds.iter().skip(calm).copied().max().unwrap_or(usize::MAX);
        Outcome { all_answered, most_afterwards }
    }

    #[test]
    fn fifty_thousand_sidecars_that_start_at_once_are_all_answered() {
        for (pause, minutes) in [(retry_pause as fn(u32, f64) -> Duration, 10), (wanting_pause, 10)] {
            let outcome = restart(pause, Duration::ZERO, Duration::from_secs(30 * 60));
            let answered = outcome.all_answered.unwrap_or(Duration::MAX);
            assert!(answered < Duration::from_secs(60 * minutes), "{outcome:?}");
            assert!(outcome.most_afterwards < 2 * PODS / 30, "{outcome:?}");
        }
    }

    #[test]
    fn they_are_after_a_minute_without_an_operator_too() {
        for pause in [retry_pause as fn(u32, f64) -> Duration, wanting_pause] {
            let outcome = restart(pause, Duration::from_secs(60), Duration::from_secs(30 * 60));
            assert!(outcome.all_answered.is_some_and(|at| at < Duration::from_secs(15 * 60)), "{outcome:?}");
        }
    }

    #[test]
    fn sidecars_that_ask_every_three_seconds_would_keep_the_operator_from_answering() {
        let outcome = restart(|_, _| FIRST_WANTING, Duration::ZERO, Duration::from_secs(30 * 60));
        assert_eq!(outcome.all_answered, None, "{outcome:?}");
    }
}
