//! Questions to the webhook at a steady rate, as API servers ask them, on open connections and on new ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use e2e::replica::asking;
use kube::Client;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Questions a second.
const RATE: u32 = 20;

/// Of so many questions one comes over a connection of its own, as after a restart of an API server.
const FRESH: u32 = 4;

/// An API server waits ten seconds, and then the pod is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time that percentiles are taken over. The median of them is not moved by one pause of the machine.
const SLICE: usize = 5 * RATE as usize;

/// Who is asked what.
pub struct Questions {
    /// On a connection that stays open.
    pub open: Client,
    /// Makes a client with a connection of its own.
    pub fresh: Box<dyn Fn() -> Result<Client> + Send>,
    /// The question.
    pub review: Arc<Value>,
}

/// Asks for so long. The time of an answer counts from when the question was due, so that a generator that falls behind hides
/// nothing; a question without an answer took as long as an API server waits.
///
/// # Errors
/// When there is no client.
pub async fn ask(questions: Questions, window: Duration) -> Result<Vec<Duration>> {
    let mut moments = interval(Duration::from_secs(1) / RATE);
    moments.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut asking, mut took) = (JoinSet::new(), Vec::new());
    for number in 0..RATE * u32::try_from(window.as_secs())? {
        let due = moments.tick().await;
        let client = if number % FRESH == 0 { (questions.fresh)()? } else { questions.open.clone() };
        let review = Arc::clone(&questions.review);
        asking.spawn(async move {
            let answered = timeout(PATIENCE, asking::ask(&client, &review)).await;
            (
                number,
                if matches!(answered, Ok(Ok(()))) { Instant::now().duration_since(due) } else { PATIENCE },
            )
        });
        while let Some(answered) = asking.try_join_next() {
            took.push(answered?);
        }
    }
    while let Some(answered) = asking.join_next().await {
        took.push(answered?);
    }
    took.sort_by_key(|(number, _)| *number);
    Ok(took.into_iter().map(|(_, time)| time).collect())
}

/// The median of the 99th percentiles of each five seconds, milliseconds.
pub fn percentile(took: &[Duration]) -> f64 {
    let slices = took.chunks(SLICE).map(|slice| {
        let mut sorted: Vec<f64> = slice.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (0.99 * sorted.len() as f64).ceil() as usize;
        sorted[rank.saturating_sub(1)]
    });
    let mut all: Vec<f64> = slices.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

#[test]
fn one_pause_of_the_machine_does_not_move_the_percentile_and_a_slow_webhook_does() {
    let quick = Duration::from_millis(5);
    let mut took = vec![quick; 6 * SLICE];
    took[..SLICE].fill(Duration::from_secs(1));
    assert!((percentile(&took) - 5.0).abs() < f64::EPSILON);
    // Two in a hundred, all the time.
    took.iter_mut().step_by(50).for_each(|time| *time = Duration::from_secs(1));
    assert!(percentile(&took) > 900.0);
}
