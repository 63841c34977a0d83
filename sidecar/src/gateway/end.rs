//! The end of a pod: what cannot be delivered in time is handed over to the gateway, dead letters too.
//!
//! ```text
//!  tried once more ─ `first` ─► handed over, a few at a time ─► nothing left, no session open: the end
//!                               ▲ no gateway: once a second ─┘      attempts under way for too long are cut off, and their
//!                                                                    messages handed over
//! ```
//!
//! Owns the order and the times. The deadline may cut a hand-over off: the message is still here then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::client::{CONNECTIONS, Gateways};
use super::flush::{Flush, Pass};
use crate::clock::{self, Instant};
use crate::queue::Queue;

/// Between two attempts while no gateway can be reached.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest wait for an attempt that is under way before the queue is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// The part of the time in which messages are only tried, at most.
const FIRST: u32 = 8;

/// The part of the time that is left for messages whose attempt had to be cut off.
const CUT_OFF: u32 = 4;

/// What handing over has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ended {
    /// Nothing is left that could be delivered or handed over.
    Finished,
    /// Messages are left, which may still be delivered.
    #[default]
    Left,
}

/// Completes when nothing is left, when nothing more can be done before `deadline`, or then; in a gateway when no other takes what is
/// left. Not before `is_closed`, since until then messages may still come; what waits is handed over meanwhile. At first messages are
/// only tried, for as long as `first`.
pub async fn drained(
    queue: &Arc<Queue>,
    gateways: &Gateways,
    first: Duration,
    deadline: Instant,
    mut is_closed: watch::Receiver<bool>,
) {
    if !gateways.is_there() {
        drop(timeout_at(deadline, is_closed.wait_for(|&closed| closed)).await);
        return queue.drained(deadline).await;
    }
    let (now, left) = (clock::now(), deadline.saturating_duration_since(clock::now()));
    queue.drained(now + first.min(left / FIRST)).await;
    let cut_off = deadline - left / CUT_OFF;
    let end = End { queue, gateways, flush: Flush::new(queue, gateways, CONNECTIONS) };
    let ended = timeout_at(deadline, end.run(cut_off, is_closed)).await.unwrap_or_default();
    let (messages, left) = (end.flush.taken(), queue.figures().messages);
    if messages > 0 || left > 0 {
        tracing::info!(messages, left, "handed over to the gateway");
    }
    // What a gateway has outlives its pod: whoever drains its node need not wait for Microsoft 365.
    if ended == Ended::Left && !gateways.is_one_of_them() {
        queue.drained(deadline).await;
    }
}

struct End<'a> {
    queue: &'a Arc<Queue>,
    gateways: &'a Gateways,
    flush: Flush<'a>,
}

impl End<'_> {
    /// Hands over what there is until nothing is left. A gateway that reaches no other does not wait for one: its messages stay on its
    /// volume.
    async fn run(&self, cut_off: Instant, mut is_closed: watch::Receiver<bool>) -> Ended {
        let mut is_cut_off = false;
        loop {
            let mut looks = self.queue.rounds();
            // What comes during the pass is looked at in the next one.
            let is_over = *is_closed.borrow_and_update();
            let may_more_come = !is_over && is_closed.has_changed().is_ok();
            let pass = self.flush.pass().await;
            let is_empty = self.queue.figures().messages == 0;
            match pass {
                _ if may_more_come => drop(timeout(AGAIN, is_closed.changed()).await),
                Pass::Complete if is_empty => return Ended::Finished,
                Pass::Complete if !self.flush.has_more() => return Ended::Left,
                // What is left is being tried.
                Pass::Complete => drop(timeout(LOOK, looks.changed()).await),
                Pass::Deferred | Pass::Away if self.gateways.is_one_of_them() => return Ended::Left,
                // Dead letters alone hold up no end.
                Pass::Deferred | Pass::Away if is_empty => return Ended::Finished,
                Pass::Deferred | Pass::Away => tokio::time::sleep(AGAIN).await,
            }
            if pass != Pass::Away && !is_cut_off && !may_more_come && clock::now() >= cut_off {
                is_cut_off = true;
                self.queue.cut_off();
            }
        }
    }
}
