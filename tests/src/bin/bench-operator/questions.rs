//! Questions to the webhook, as API servers ask them: over TLS, on connections that stay open, at a steady rate whether or
//! not the answers keep up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::replica::asking;
use e2e::replica::stage::Stage;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::crowd::Crowd;

/// Asks at this rate for so many seconds. The time of an answer counts from when the question was due, so that a
/// generator that falls behind hides nothing.
///
/// # Errors
/// When an answer holds no patch.
pub async fn ask(
    stage: &Stage,
    crowd: &Crowd,
    webhook: SocketAddr,
    rate: u32,
    seconds: u32,
) -> Result<Vec<Duration>> {
    let reviewer = stage.reviewer(webhook).await?;
    let count = (rate * seconds) as usize;
    let questions: Vec<_> = (0..count.min(1000))
        .map(|number| Arc::new(asking::review(crowd.namespace(number), &crowd.pod(number))))
        .collect();
    let mut moments = interval(Duration::from_secs(1) / rate);
    moments.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut asking, mut took) = (JoinSet::new(), Vec::with_capacity(count));
    for number in 0..count {
        let due = moments.tick().await;
        let (reviewer, question) = (reviewer.clone(), Arc::clone(&questions[number % questions.len()]));
        asking.spawn(async move {
            asking::ask(&reviewer, &question).await?;
            anyhow::Ok(Instant::now().duration_since(due))
        });
        while let Some(answered) = asking.try_join_next() {
            took.push(answered??);
        }
    }
    while let Some(answered) = asking.join_next().await {
        took.push(answered?.context("a question was not answered")?);
    }
    Ok(took)
}
