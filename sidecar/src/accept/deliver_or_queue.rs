//! Mode `DeliverOrQueue`: tried at once while the application waits. The upstream's yes and its final no are passed on;
//! whatever is in between, the message is kept.
//!
//! ```text
//!  permit to try at once? ─ no ──► keep ─────────────────────────────────────► 250 queued
//!        │ yes
//!        ▼                  too long   ┌─► keep ─► 250 queued ─► the same attempt goes on, its end settles the message
//!     attempt ─────────────────────────┤
//!        │ in time                     └─► no room: wait for the attempt, then 250, 5yz or 452
//!        ├─► taken: 250    refused for good: 5yz    not now: keep ─► 250 queued
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::enqueue::not_kept;
use super::followed::Followed;
use super::{MessageAcceptor, ending, fits, reply};
use crate::attempt::{Active, Attempt, Attempts, Origin, SendPermit};
use crate::clock::{self, Instant};
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::queued::QueueingCause;
use crate::outcome::{AttemptResult, DeliveryOutcome, PartialDelivery};
use crate::smtp::reply::Reply;

impl MessageAcceptor {
    /// Tries at once, and keeps what remains.
    pub(super) async fn deliver_or_queue(
        &self,
        attempts: &Arc<Attempts>,
        active: &Arc<Active>,
        envelope: Envelope,
        body: Body,
    ) -> Reply {
        if !fits(active, &envelope) {
            return self.enqueue(active, QueueingCause::Split, envelope, &body).await;
        }
        if *self.shutting_down.borrow() {
            return self.enqueue(active, QueueingCause::Stopping, envelope, &body).await;
        }
        // The time that the application waits counts from the end of its message, whatever it goes into.
        let started = clock::now();
        match attempts.permit_for_new(envelope.recipients.len() as u64).await {
            Ok(permit) => {
                self.try_at_once((attempts, active), permit, Arc::new(envelope), body, started).await
            }
            Err(denied) => {
                let cause = if denied.is_limit() { QueueingCause::Limits } else { QueueingCause::Fault };
                self.enqueue(active, cause, envelope, &body).await
            }
        }
    }

    async fn try_at_once(
        &self,
        (attempts, active): (&Arc<Attempts>, &Arc<Active>),
        permit: SendPermit,
        envelope: Arc<Envelope>,
        body: Body,
        started: Instant,
    ) -> Reply {
        let mut attempt = Box::pin({
            let (attempts, active, envelope, body) =
                (Arc::clone(attempts), Arc::clone(active), Arc::clone(&envelope), body.clone());
            async move {
                let (partial, origin) = (PartialDelivery::UnlessRejected, Origin::Live);
                let attempt = Attempt { envelope: &envelope, body: &body, partial, origin, timeout: None };
                attempts.make(&active, permit, attempt).await
            }
        });
        let wait = Duration::from_secs(active.route.delivery.wait_seconds).min(self.reply_timeout);
        let cause = tokio::select! {
            result = &mut attempt => return self.answer(active, &envelope, &body, &result).await,
            cause = self.too_long(wait.saturating_sub(started.elapsed())) => cause,
        };
        // From here on it goes on by itself, whatever becomes of this session.
        let attempt = tokio::spawn(attempt);
        self.slow(active, &envelope, &body, attempt, cause, started + self.reply_timeout).await
    }

    async fn too_long(&self, wait: Duration) -> QueueingCause {
        let mut shutting_down = self.shutting_down.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => QueueingCause::Slow,
            Ok(_) = shutting_down.wait_for(|&shutting_down| shutting_down) => QueueingCause::Stopping,
        }
    }

    /// The answer to an attempt that ended in time.
    async fn answer(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        attempt: &AttemptResult,
    ) -> Reply {
        if is_told_whole(attempt) {
            return reply::of_attempt(attempt, envelope, &active.route);
        }
        self.enqueue_rest(active, envelope, body, attempt).await
    }

    /// Makes a message durable while its attempt goes on. Whichever is known when the answer is due decides it.
    async fn slow(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        attempt: JoinHandle<AttemptResult>,
        cause: QueueingCause,
        deadline: Instant,
    ) -> Reply {
        if let Some(gateways) = self.gateways(active) {
            match self.hand_over_tried(gateways, envelope, body).await {
                Ok(followed) => {
                    return self.slow_at_gateway(active, envelope, followed, attempt, cause).await;
                }
                Err(error) => {
                    if let Some(no) = self.without_gateway(active, &error, &envelope.id) {
                        return self.unkept(active, envelope, body, attempt, no, deadline).await;
                    }
                }
            }
        }
        let tried = match self.queue.keep_tried(envelope, body).await {
            Ok(tried) => tried,
            Err(error) => {
                let no = not_kept(&error, &envelope.id);
                return self.unkept(active, envelope, body, attempt, no, deadline).await;
            }
        };
        if !attempt.is_finished() {
            tried.adopt(attempt);
            return self.queued(cause, &envelope.id, envelope.recipients.len(), "pod");
        }
        match attempt.await {
            Ok(attempt) if is_told_whole(&attempt) => {
                tried.release().await;
                reply::of_attempt(&attempt, envelope, &active.route)
            }
            Ok(attempt) => {
                tried.decide(attempt).await;
                self.queued(cause, &envelope.id, envelope.recipients.len(), "pod")
            }
            // The attempt panicked; the message goes back into the queue.
            Err(_) => {
                drop(tried);
                reply::queued(&envelope.id)
            }
        }
    }

    /// The same once a gateway has the message.
    async fn slow_at_gateway(
        &self,
        active: &Active,
        envelope: &Envelope,
        followed: Followed,
        attempt: JoinHandle<AttemptResult>,
        cause: QueueingCause,
    ) -> Reply {
        let queued = || self.queued(cause, &envelope.id, envelope.recipients.len(), "gateway");
        if !attempt.is_finished() {
            followed.adopt(attempt, self.shutting_down.clone());
            return queued();
        }
        match attempt.await {
            Ok(attempt) => {
                let is_told_whole = is_told_whole(&attempt);
                let reply = reply::of_attempt(&attempt, envelope, &active.route);
                followed.decide(attempt);
                if is_told_whole { reply } else { queued() }
            }
            // The attempt panicked; the gateway tries the message.
            Err(_) => queued(),
        }
    }

    /// There is no place for the message, and the answer is `no`: only the attempt can save it.
    async fn unkept(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        attempt: JoinHandle<AttemptResult>,
        no: Reply,
        deadline: Instant,
    ) -> Reply {
        // The application will send it again, so the attempt has to end by then.
        let too_late = ending::too_late(deadline, self.shutting_down.clone(), Duration::ZERO);
        match ending::ended(attempt, too_late).await {
            Ok(ended) => self.answer(active, envelope, body, &ended).await,
            Err(_) => self.turned_away(no),
        }
    }
}

/// Whether the upstream's answer is the whole answer.
pub(super) fn is_told_whole(attempt: &AttemptResult) -> bool {
    let delivered = attempt.verdict.outcome == DeliveryOutcome::Delivered && attempt.refused.is_empty();
    delivered || attempt.verdict.is_final()
}
