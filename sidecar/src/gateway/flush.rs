//! One pass over what waits in a pod: each message, and each dead letter, is offered to the gateways once.
//!
//! Owns which messages are left out. A message is removed here when a gateway has answered for it, so a kill at any moment loses
//! nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use mailroute_route::text::chain;

use super::client::{Gateways, Offer};
use super::doubts::DOUBT;
use super::error::ErrorScope;
use crate::clock;
use crate::lock;
use crate::logging::faults::Due;
use crate::message::envelope::QueueId;
use crate::queue::Queue;
use crate::spool::Kept;

/// Most messages that are remembered as refused. More of them are offered again in each pass.
const MAX_REFUSED: usize = 10_000;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// A gateway has taken everything that nobody was trying, or refused it for good.
    Complete,
    /// A gateway is there, and does not take some of the messages now.
    Deferred,
    /// No gateway takes anything.
    Away,
}

/// What came of one offer.
enum Offered {
    Taken,
    LeftOut,
    Away,
}

/// Hands over what waits in a queue, pass by pass.
pub(super) struct Flush<'a> {
    queue: &'a Arc<Queue>,
    gateways: &'a Gateways,
    /// Messages handed over at a time.
    at_once: usize,
    left_out: Mutex<LeftOut>,
    taken: AtomicU64,
}

#[derive(Default)]
struct LeftOut {
    /// Messages that no gateway takes.
    refused: HashSet<QueueId>,
    /// Those, and messages that a gateway does not take in this pass, for want of room for example. Others may be smaller.
    in_pass: HashSet<QueueId>,
}

impl<'a> Flush<'a> {
    /// Nothing was offered yet.
    pub fn new(queue: &'a Arc<Queue>, gateways: &'a Gateways, at_once: usize) -> Self {
        Self { queue, gateways, at_once, left_out: Mutex::default(), taken: AtomicU64::new(0) }
    }

    /// How many messages a gateway has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether there is a message that no gateway has refused, also one that is being tried.
    pub fn has_more(&self) -> bool {
        self.queue.has_other_than(&lock(&self.left_out).refused)
    }

    /// Offers everything once that nobody is trying.
    pub async fn pass(&self) -> Pass {
        {
            let mut left_out = lock(&self.left_out);
            left_out.in_pass = left_out.refused.clone();
        }
        let is_away = AtomicBool::new(false);
        self.queued(&is_away).await;
        self.dead_letters(&is_away).await;
        if is_away.into_inner() {
            return Pass::Away;
        }
        let left_out = lock(&self.left_out);
        if left_out.in_pass.len() > left_out.refused.len() { Pass::Deferred } else { Pass::Complete }
    }

    async fn queued(&self, is_away: &AtomicBool) {
        let work = || async {
            while !is_away.load(Ordering::Relaxed) {
                let leaving = self.queue.leaving(&lock(&self.left_out).in_pass);
                let Some(leaving) = leaving else { break };
                let Some(kept) = leaving.load().await else {
                    // One that cannot be read is not looked at again.
                    if let Some(id) = leaving.id() {
                        self.leave_out(id, ErrorScope::Message);
                    }
                    continue;
                };
                let offered = self.offer(&kept).await;
                if matches!(offered, Offered::Taken) {
                    leaving.gone(age(kept.entry.accepted)).await;
                    continue;
                }
                // A gateway may have it: while it can still answer, it is not tried here either.
                if self.gateways.doubt(&kept.entry.envelope.id).is_some() {
                    leaving.put_off(DOUBT);
                }
                if matches!(offered, Offered::Away) {
                    is_away.store(true, Ordering::Relaxed);
                }
            }
        };
        join_all((0..self.at_once).map(|_| work())).await;
    }

    async fn dead_letters(&self, is_away: &AtomicBool) {
        let dead = Mutex::new(self.queue.list_dead().into_iter());
        let work = || async {
            while !is_away.load(Ordering::Relaxed) {
                let next = lock(&dead).next();
                let Some(id) = next else { break };
                if lock(&self.left_out).refused.contains(&id) {
                    continue;
                }
                let Some(kept) = self.queue.dead_letter(&id).await else { continue };
                match self.offer(&kept).await {
                    Offered::Taken => self.queue.dead_letter_gone(&id).await,
                    Offered::LeftOut => {}
                    Offered::Away => is_away.store(true, Ordering::Relaxed),
                }
            }
        };
        join_all((0..self.at_once).map(|_| work())).await;
    }

    async fn offer(&self, kept: &Kept) -> Offered {
        let (queue_id, message_id) = (&kept.entry.envelope.id, &kept.entry.envelope.message_id);
        let error = match self.gateways.hand_over(Offer::from(kept)).await {
            Ok(gateway) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%queue_id, message_id, %gateway, "handed over");
                return Offered::Taken;
            }
            Err(error) => error,
        };
        let scope = error.scope();
        if let Some(Due { repeated }) = self.gateways.log_line(&error) {
            tracing::warn!(%queue_id, message_id, repeated, error = chain(&error), "not handed over");
        }
        self.leave_out(queue_id, scope);
        if scope == ErrorScope::Gateways { Offered::Away } else { Offered::LeftOut }
    }

    fn leave_out(&self, id: &QueueId, scope: ErrorScope) {
        let mut left_out = lock(&self.left_out);
        if scope != ErrorScope::Gateways {
            left_out.in_pass.insert(id.clone());
        }
        if scope == ErrorScope::Message && left_out.refused.len() < MAX_REFUSED {
            left_out.refused.insert(id.clone());
        }
    }
}

fn age(accepted: Timestamp) -> Duration {
    Duration::try_from(clock::timestamp().duration_since(accepted)).unwrap_or_default()
}
