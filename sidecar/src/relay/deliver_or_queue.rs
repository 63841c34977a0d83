//! Mode `DeliverOrQueue`: tried at once while the application waits. The upstream's yes and its final no are passed on;
//! whatever is in between, the message is kept.
//!
//! ```text
//!  leave to try at once? ─ no ──► keep ─────────────────────────────────────► 250 queued
//!        │ yes
//!        ▼                  too long   ┌─► keep ─► 250 queued ─► the same attempt goes on, its end settles the message
//!     attempt ─────────────────────────┤
//!        │ in time                     └─► no room: wait for the attempt, then 250, 5yz or 452
//!        ├─► taken: 250    refused for good: 5yz    not now: keep ─► 250 queued
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::keep::{Cause, entry, fresh, not_kept};
use super::{Relay, fits, reply};
use crate::body::Body;
use crate::clock::{self, Instant};
use crate::delivery::outcome::{Attempt, Outcome, Partial};
use crate::dispatch::{Active, Held, Leave, Origin};
use crate::envelope::Envelope;
use crate::queue::fates::is_final;
use crate::smtp::reply::Reply;
use crate::spool::SpoolError;

impl Relay {
    /// Tries at once, and keeps what remains.
    pub(super) async fn deliver_or_queue(
        &self,
        active: &Arc<Active>,
        envelope: Envelope,
        body: Body,
    ) -> Reply {
        if !fits(active, &envelope) {
            return self.keep(Cause::Split, fresh(envelope), &body).await;
        }
        if *self.hurry.borrow() {
            return self.keep(Cause::Stopping, fresh(envelope), &body).await;
        }
        // The application's patience counts from the end of its message, whatever the time goes into.
        let started = clock::now();
        let leave = self.dispatch.leave_for_new(active, envelope.recipients.len() as u64).await;
        let leave = match leave {
            Ok(leave) => leave,
            Err(Held { limits, .. }) => {
                let cause = if limits.is_some() { Cause::Limits } else { Cause::Fault };
                return self.keep(cause, fresh(envelope), &body).await;
            }
        };
        self.attempt(active, leave, Arc::new(envelope), body, started).await
    }

    async fn attempt(
        &self,
        active: &Arc<Active>,
        leave: Leave,
        envelope: Arc<Envelope>,
        body: Body,
        started: Instant,
    ) -> Reply {
        let mut attempt = Box::pin({
            let (dispatch, envelope, body) =
                (Arc::clone(&self.dispatch), Arc::clone(&envelope), body.clone());
            async move {
                let how = (Origin::Live, None);
                dispatch.attempt(leave, &envelope, &body, Partial::UnlessRejected, how).await
            }
        });
        let wait = Duration::from_secs(active.route.delivery.wait_seconds).min(self.patience);
        let cause = tokio::select! {
            attempt = &mut attempt => return self.answer(active, &envelope, &body, &attempt).await,
            cause = self.too_long(wait.saturating_sub(started.elapsed())) => cause,
        };
        // From here on it goes on by itself, whatever becomes of this session.
        let attempt = tokio::spawn(attempt);
        self.slow(active, &envelope, &body, attempt, cause, started + self.patience).await
    }

    async fn too_long(&self, wait: Duration) -> Cause {
        let mut hurry = self.hurry.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => Cause::Slow,
            Ok(_) = hurry.wait_for(|&hurry| hurry) => Cause::Stopping,
        }
    }

    /// The answer to an attempt that ended in time.
    async fn answer(&self, active: &Active, envelope: &Envelope, body: &Body, attempt: &Attempt) -> Reply {
        if is_told_whole(attempt) {
            return reply::of_attempt(attempt, envelope, &active.route);
        }
        self.keep(Cause::Refused, self.rest(envelope, attempt), body).await
    }

    /// Makes a message durable while its attempt goes on. Whichever is known when the answer is due decides it.
    async fn slow(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        attempt: JoinHandle<Attempt>,
        cause: Cause,
        deadline: Instant,
    ) -> Reply {
        let tried = match self.queue.keep_tried(&entry(envelope.clone()), body).await {
            Ok(tried) => tried,
            Err(error) => return self.unkept(active, envelope, body, attempt, &error, deadline).await,
        };
        if !attempt.is_finished() {
            tried.adopt(attempt);
            self.kept(cause, &envelope.id, envelope.recipients.len());
            return reply::queued(&envelope.id);
        }
        match attempt.await {
            Ok(attempt) if is_told_whole(&attempt) => {
                tried.release().await;
                reply::of_attempt(&attempt, envelope, &active.route)
            }
            Ok(attempt) => {
                tried.decide(attempt).await;
                self.kept(cause, &envelope.id, envelope.recipients.len());
                reply::queued(&envelope.id)
            }
            // The attempt panicked; the message goes back into the queue.
            Err(_) => {
                drop(tried);
                reply::queued(&envelope.id)
            }
        }
    }

    /// There is no room for the message: only the attempt can save it.
    async fn unkept(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        mut attempt: JoinHandle<Attempt>,
        error: &SpoolError,
        deadline: Instant,
    ) -> Reply {
        let no = not_kept(error, &envelope.id);
        let ended = tokio::select! {
            ended = tokio::time::timeout_at(deadline, &mut attempt) => ended,
            _ = async { drop(self.hurry.clone().wait_for(|&hurry| hurry).await) } => {
                attempt.abort();
                return self.turned_away(no);
            }
        };
        match ended {
            Ok(Ok(ended)) => self.answer(active, envelope, body, &ended).await,
            Ok(Err(_)) => self.turned_away(no),
            Err(_) => {
                // The application will send it again, so this attempt has to end.
                attempt.abort();
                self.turned_away(no)
            }
        }
    }
}

/// Whether the upstream's answer is the whole answer.
fn is_told_whole(attempt: &Attempt) -> bool {
    let delivered = attempt.verdict.outcome == Outcome::Delivered && attempt.refused.is_empty();
    delivered || is_final(&attempt.verdict)
}
