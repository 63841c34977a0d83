//! One pass over what waits in a pod: each message, and each dead letter, is offered to the gateways once.
//!
//! Owns which messages are left out. A message is removed here when a gateway has answered for it, so a kill at any moment loses
//! nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use mailroute_route::text::chain;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::client::{Gateways, Offer};
use super::doubts::DOUBT;
use super::error::ErrorScope;
use crate::clock::{self, Instant};
use crate::lock;
use crate::logging::faults::Due;
use crate::message::envelope::QueueId;
use crate::queue::Queue;
use crate::spool::Kept;

/// Most messages that are remembered as refused. More of them are offered again in each pass.
const MAX_REFUSED: usize = 10_000;

/// Least time for an offer.
const MOMENT: Duration = Duration::from_secs(2);

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// A gateway has taken everything that nobody was trying, or refused it for good.
    Complete,
    /// A gateway is there, and does not take some of the messages now.
    Deferred,
    /// No gateway takes anything.
    Away,
    /// The route has no other gateway at present.
    Alone,
}

/// What came of one offer.
enum Offered {
    Taken,
    LeftOut,
    /// No gateway takes anything; with what the pass has come to.
    Away(Pass),
}

/// Hands over what waits in a queue, pass by pass.
pub(super) struct Flush<'a> {
    queue: &'a Arc<Queue>,
    gateways: &'a Gateways,
    /// Messages handed over at a time.
    at_once: usize,
    /// From then on this pod tries messages that a gateway may have.
    tried_from: Option<Instant>,
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

/// What ends a pass early.
struct Course {
    stop: watch::Receiver<bool>,
    /// No gateway takes anything.
    away: Mutex<Option<Pass>>,
}

impl Course {
    fn goes_on(&self) -> bool {
        !*self.stop.borrow() && lock(&self.away).is_none()
    }

    fn is_away(&self, pass: Pass) {
        *lock(&self.away) = Some(pass);
    }

    /// Completes when the pass is to end.
    async fn stopped(&self) {
        drop(self.stop.clone().wait_for(|&stop| stop).await);
    }
}

impl<'a> Flush<'a> {
    /// Nothing was offered yet. A pod that from `tried_from` on tries messages that a gateway may have waits until then for an offer of
    /// one of these, and later for a moment only.
    pub fn new(
        queue: &'a Arc<Queue>,
        gateways: &'a Gateways,
        at_once: usize,
        tried_from: Option<Instant>,
    ) -> Self {
        let (left_out, taken) = (Mutex::default(), AtomicU64::new(0));
        Self { queue, gateways, at_once, tried_from, left_out, taken }
    }

    /// How many messages a gateway has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether there is a message that no gateway has refused, also one that is being tried.
    pub fn has_more(&self) -> bool {
        self.queue.has_other_than(&lock(&self.left_out).refused)
    }

    /// Offers everything once that nobody is trying. Ends once `stop` is true; a gateway may have what is on its way then.
    pub async fn pass(&self, stop: &watch::Receiver<bool>) -> Pass {
        {
            let mut left_out = lock(&self.left_out);
            left_out.in_pass = left_out.refused.clone();
        }
        let course = Course { stop: stop.clone(), away: Mutex::default() };
        self.queued(&course).await;
        self.dead_letters(&course).await;
        if let Some(away) = *lock(&course.away) {
            return away;
        }
        let left_out = lock(&self.left_out);
        if left_out.in_pass.len() > left_out.refused.len() { Pass::Deferred } else { Pass::Complete }
    }

    async fn queued(&self, course: &Course) {
        let work = || async {
            while course.goes_on() {
                let leaving = self.queue.leaving(&lock(&self.left_out).in_pass);
                let Some(leaving) = leaving else { break };
                let Some(kept) = leaving.load().await else {
                    // One that cannot be read is not looked at again.
                    if let Some(id) = leaving.id() {
                        self.leave_out(id, ErrorScope::Message);
                    }
                    continue;
                };
                let limit = self.tried_from.filter(|_| leaving.is_reserved());
                let offered = self.offer_until(&kept, course, limit).await;
                if matches!(offered, Offered::Taken) {
                    leaving.gone(age(kept.entry.accepted)).await;
                    continue;
                }
                let is_late = self.tried_from.is_some_and(|time| time <= clock::now());
                if leaving.is_reserved() && is_late {
                    leaving.stay();
                } else if self.gateways.doubt(&kept.entry.envelope.id).is_some() {
                    // A gateway may have it: while it can still answer, it is not tried here either.
                    leaving.put_off(DOUBT);
                }
                if let Offered::Away(pass) = offered {
                    course.is_away(pass);
                }
            }
        };
        join_all((0..self.at_once).map(|_| work())).await;
    }

    async fn dead_letters(&self, course: &Course) {
        let dead = Mutex::new(self.queue.list_dead().into_iter());
        let work = || async {
            while course.goes_on() {
                let next = lock(&dead).next();
                let Some(id) = next else { break };
                if lock(&self.left_out).refused.contains(&id) {
                    continue;
                }
                let Some(leaving) = self.queue.leaving_dead(&id) else { continue };
                let Some(kept) = leaving.load().await else { continue };
                match self.offer_until(&kept, course, None).await {
                    Offered::Taken => leaving.gone().await,
                    Offered::LeftOut => {}
                    Offered::Away(pass) => course.is_away(pass),
                }
            }
        };
        join_all((0..self.at_once).map(|_| work())).await;
    }

    /// Offers a message until the pass is to end, or until `limit`, but for [`MOMENT`] at least.
    async fn offer_until(&self, kept: &Kept, course: &Course, limit: Option<Instant>) -> Offered {
        let too_late = async {
            match limit {
                Some(limit) => sleep_until(limit.max(clock::now() + MOMENT)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            offered = self.offer(kept) => offered,
            () = too_late => Offered::Away(Pass::Away),
            () = course.stopped() => Offered::Away(Pass::Away),
        }
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
        match scope {
            ErrorScope::Gateways if error.is_nobody() => Offered::Away(Pass::Alone),
            ErrorScope::Gateways => Offered::Away(Pass::Away),
            _ => Offered::LeftOut,
        }
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
