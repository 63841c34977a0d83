//! The end of a pod: what cannot be delivered in time is handed over to the gateway, dead letters too.
//!
//! ```text
//!  tried once more ─ `first` ─► handed over, a few at a time ─► nothing left, no session open: the end
//!                               ▲ no gateway: once a second ─┘      attempts under way for too long are cut off, and their
//!                                                                    messages handed over
//! ```
//!
//! A message that a gateway may have, as its answer was lost, is left to gateways for ten seconds; when none has taken it by then, a
//! sidecar tries it, for it has nothing that outlives it. A gateway has: it waits for no upstream, but for attempts that are under way.
//!
//! Owns the order and the times. The deadline may cut a hand-over off: the message is still here then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use super::client::{CONNECTIONS, Gateways};
use super::doubts::DOUBT;
use super::flush::{Flush, Pass};
use crate::clock::{self, Instant};
use crate::queue::Queue;

/// Between two attempts while no gateway can be reached.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest wait for an attempt that is under way before the queue is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// How long a gateway looks for another that does not answer.
const SEARCH: Duration = Duration::from_secs(15);

/// How long a gateway waits for attempts that are under way.
const UNDER_WAY: Duration = Duration::from_secs(20);

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
        if !gateways.is_one_of_them() {
            queue.end_reservations(|_| true);
        }
        return queue.drained(deadline).await;
    }
    let (now, left) = (clock::now(), deadline.saturating_duration_since(clock::now()));
    queue.drained(now + first.min(left / FIRST)).await;
    let cut_off = deadline - left / CUT_OFF;
    let doubts_end = (now + DOUBT).min(cut_off);
    // What another pod is trying by now, a gateway leaves to the next.
    let tried_from = (!gateways.is_one_of_them()).then_some(doubts_end);
    let flush = Flush::new(queue, gateways, CONNECTIONS, tried_from);
    let end = End { queue, gateways, flush, began: now, doubts_end, cut_off };
    let run = async {
        tokio::select! {
            ended = end.run(is_closed) => ended,
            () = end.end_doubts() => Ended::Left,
        }
    };
    let ended = timeout_at(deadline, run).await.unwrap_or_default();
    let (messages, left) = (end.flush.taken(), queue.figures().messages);
    if messages > 0 || left > 0 {
        tracing::info!(messages, left, "handed over to the gateway");
    }
    if ended == Ended::Finished {
        return;
    }
    if gateways.is_one_of_them() {
        // What a gateway has outlives its pod: whoever drains its node need not wait for Microsoft 365. But an attempt that is cut off
        // between the message and the answer may make a second copy of it.
        return queue.finished(deadline.min(clock::now() + UNDER_WAY)).await;
    }
    queue.end_reservations(|_| true);
    queue.drained(deadline).await;
}

struct End<'a> {
    queue: &'a Arc<Queue>,
    gateways: &'a Gateways,
    flush: Flush<'a>,
    began: Instant,
    /// When a sidecar tries what a gateway may have.
    doubts_end: Instant,
    /// When attempts are cut off.
    cut_off: Instant,
}

impl End<'_> {
    /// Hands over what there is until nothing is left. A gateway that reaches no other does not wait long for one: its messages stay on
    /// its volume.
    async fn run(&self, mut is_closed: watch::Receiver<bool>) -> Ended {
        let (_never, never) = watch::channel(false);
        let mut is_cut_off = false;
        loop {
            let mut looks = self.queue.rounds();
            // What comes during the pass is looked at in the next one.
            let is_over = *is_closed.borrow_and_update();
            let may_more_come = !is_over && is_closed.has_changed().is_ok();
            let pass = self.flush.pass(&never).await;
            let is_empty = self.queue.figures().messages == 0;
            let is_away = matches!(pass, Pass::Away | Pass::Alone);
            match pass {
                _ if may_more_come && is_away => sleep(AGAIN).await,
                _ if may_more_come => drop(timeout(AGAIN, is_closed.changed()).await),
                Pass::Complete if is_empty => return Ended::Finished,
                Pass::Complete if !self.flush.has_more() => return Ended::Left,
                // What is left is being tried.
                Pass::Complete => drop(timeout(LOOK, looks.changed()).await),
                // Dead letters alone hold up no end.
                _ if is_empty => return Ended::Finished,
                _ if self.gives_up(pass) => return Ended::Left,
                _ => sleep(AGAIN).await,
            }
            if !is_away && !is_cut_off && !may_more_come && clock::now() >= self.cut_off {
                is_cut_off = true;
                self.queue.cut_off();
            }
        }
    }

    /// Whether a gateway looks for no other any more.
    fn gives_up(&self, pass: Pass) -> bool {
        self.gateways.is_one_of_them() && (pass == Pass::Alone || self.began.elapsed() >= SEARCH)
    }

    /// Has a sidecar try what a gateway may have, once no gateway takes anything, or at the latest when attempts are cut off. Goes on.
    async fn end_doubts(&self) {
        if self.gateways.is_one_of_them() {
            return std::future::pending().await;
        }
        sleep_until(self.doubts_end).await;
        let mut before = None;
        loop {
            let taken = self.flush.taken();
            if clock::now() >= self.cut_off {
                self.queue.end_reservations(|_| true);
            } else if before == Some(taken) {
                self.queue.end_reservations(|id| self.gateways.doubt(id).is_none());
            }
            before = Some(taken);
            sleep(AGAIN).await;
        }
    }
}
