//! The end of a pod: what cannot be delivered in time is handed over to the gateway, dead letters too.
//!
//! ```text
//!  tried once more ─ `first` ─► handed over, a few at a time ─► nothing left: the end
//!                               ▲ no gateway: once a second ─┘      attempts under way for too long are cut off, and their
//!                                                                    messages handed over
//! ```
//!
//! Owns the order and the times. A message is removed here when a gateway has answered for it, so a kill at any moment loses nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use mailroute_route::text::chain;
use tokio::time::{timeout, timeout_at};

use super::client::{CONNECTIONS, DOUBT, Gateways, HandOverError, Offer};
use crate::clock::{self, Instant};
use crate::lock;
use crate::message::envelope::QueueId;
use crate::queue::{Leaving, Queue};
use crate::spool::Kept;

/// Between two attempts while no gateway can be reached.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest wait for an attempt that is under way before the queue is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// The part of the time that is left for messages whose attempt had to be cut off.
const CUT_OFF: u32 = 4;

/// Completes when nothing is left, when nothing more can be done before `deadline`, or then; in a gateway when no other takes what is
/// left. For as long as `first` messages are only tried.
pub async fn drained(queue: &Arc<Queue>, gateways: &Gateways, first: Duration, deadline: Instant) {
    if !gateways.is_there() {
        return queue.drained(deadline).await;
    }
    let now = clock::now();
    queue.drained(deadline.min(now + first)).await;
    let cut_off = deadline - deadline.saturating_duration_since(now) / CUT_OFF;
    let end = End {
        queue,
        gateways,
        refused: Mutex::default(),
        deferred: Mutex::default(),
        gone: AtomicU64::new(0),
    };
    // A drain that ends too soon is harmless, one that is cut off in the middle of a message is, too: it is still here.
    let finished = timeout_at(deadline, end.run(cut_off)).await.unwrap_or_default();
    let (messages, left) = (end.gone.load(Ordering::Relaxed), queue.figures().messages);
    if messages > 0 || left > 0 {
        tracing::info!(messages, left, "handed over to the gateway");
    }
    // What a gateway has outlives its pod: whoever drains its node need not wait for Microsoft 365.
    if !finished && !gateways.is_one_of_them() {
        queue.drained(deadline).await;
    }
    let _ = timeout(LOOK, gateways.close()).await;
}

struct End<'a> {
    queue: &'a Arc<Queue>,
    gateways: &'a Gateways,
    /// Messages that no gateway takes.
    refused: Mutex<HashSet<QueueId>>,
    /// Messages that a gateway does not take in this round, for want of room for example. Others may be smaller.
    deferred: Mutex<HashSet<QueueId>>,
    /// How many a gateway has taken.
    gone: AtomicU64,
}

impl End<'_> {
    /// Hands over what there is until nothing is left, and says so. A gateway that reaches no other does not wait for one: its
    /// messages stay on its volume.
    async fn run(&self, cut_off: Instant) -> bool {
        let (mut is_cut_off, mut is_reached) = (false, false);
        loop {
            if is_reached && !is_cut_off && clock::now() >= cut_off {
                is_cut_off = true;
                self.queue.cut_off();
            }
            let mut looks = self.queue.rounds();
            lock(&self.deferred).clear();
            is_reached = self.queued().await && self.dead_letters().await;
            let is_all_taken = is_reached && lock(&self.deferred).is_empty();
            if is_all_taken && !self.queue.has_other_than(&lock(&self.refused)) {
                return self.queue.figures().messages == 0;
            }
            match is_all_taken {
                // What is left is being tried.
                true => drop(timeout(LOOK, looks.changed()).await),
                false if self.gateways.is_one_of_them() => return false,
                // Dead letters alone hold up no end.
                false if self.queue.figures().messages == 0 => return true,
                false => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Hands over what waits and is not being tried. False when no gateway takes anything now.
    async fn queued(&self) -> bool {
        let is_reached = AtomicBool::new(true);
        let work = || async {
            while is_reached.load(Ordering::Relaxed) {
                let but = lock(&self.refused).union(&lock(&self.deferred)).cloned().collect();
                let Some(leaving) = self.queue.leaving(&but) else { break };
                if !self.one(leaving).await {
                    is_reached.store(false, Ordering::Relaxed);
                }
            }
        };
        join_all((0..CONNECTIONS).map(|_| work())).await;
        is_reached.into_inner()
    }

    /// Hands one message over. False when no gateway takes anything now.
    async fn one(&self, leaving: Leaving) -> bool {
        // One that cannot be read is not looked at again.
        let Some(kept) = leaving.load().await else {
            lock(&self.refused).extend(leaving.id().cloned());
            return true;
        };
        match self.hand_over(&kept).await {
            Ok(()) => {
                leaving.gone(age(kept.entry.accepted)).await;
                true
            }
            Err(error) => {
                if self.gateways.doubt(&kept.entry.envelope.id).is_some() {
                    leaving.put_off(DOUBT);
                }
                error.is_of_message() || error.is_deferral()
            }
        }
    }

    async fn dead_letters(&self) -> bool {
        let dead = Mutex::new(self.queue.list_dead().into_iter());
        let is_reached = AtomicBool::new(true);
        let work = || async {
            while is_reached.load(Ordering::Relaxed) {
                let Some(id) = lock(&dead).next() else { break };
                if lock(&self.refused).contains(&id) {
                    continue;
                }
                let Some(kept) = self.queue.dead_letter(&id).await else { continue };
                match self.hand_over(&kept).await {
                    Ok(()) => self.queue.dead_letter_gone(&id).await,
                    Err(error) if error.is_of_message() || error.is_deferral() => {}
                    Err(_) => is_reached.store(false, Ordering::Relaxed),
                }
            }
        };
        join_all((0..CONNECTIONS).map(|_| work())).await;
        is_reached.into_inner()
    }

    async fn hand_over(&self, kept: &Kept) -> Result<(), HandOverError> {
        let (queue_id, message_id) = (&kept.entry.envelope.id, &kept.entry.envelope.message_id);
        match self.gateways.hand_over(Offer::from(kept)).await {
            Ok(gateway) => {
                self.gone.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%queue_id, message_id, %gateway, "handed over");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%queue_id, message_id, error = chain(&error), "not handed over");
                if error.is_of_message() {
                    lock(&self.refused).insert(queue_id.clone());
                } else if error.is_deferral() {
                    lock(&self.deferred).insert(queue_id.clone());
                }
                Err(error)
            }
        }
    }
}

fn age(accepted: Timestamp) -> Duration {
    Duration::try_from(clock::timestamp().duration_since(accepted)).unwrap_or_default()
}
