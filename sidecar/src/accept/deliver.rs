//! Mode `Deliver`: a message is offered to the upstream while the application waits, and nothing outlives the answer.

use std::time::Duration;

use super::{MessageAcceptor, fits, reply};
use crate::attempt::{Active, Attempt, Attempts, Origin};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::PartialDelivery;
use crate::smtp::reply::Reply;

impl MessageAcceptor {
    /// Delivers, or says no.
    pub(super) async fn deliver(
        &self,
        attempts: &Attempts,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
    ) -> Reply {
        if !fits(active, envelope) {
            return reply::too_many_recipients();
        }
        let (started, recipients) = (clock::now(), envelope.recipients.len() as u64);
        // A burst is smoothed rather than turned away, as long as the application may be expected to wait.
        let wait = Duration::from_secs(active.route.delivery.wait_seconds).min(self.reply_timeout);
        let permit = match attempts.permit_until(recipients, started + wait).await {
            Ok(permit) => permit,
            Err(denied) => {
                self.metrics.failed_fast();
                return reply::of_verdict(&denied.verdict(), &active.route);
            }
        };
        let timeout = Some(self.reply_timeout.saturating_sub(started.elapsed()));
        let (partial, origin) = (PartialDelivery::Never, Origin::Live);
        let attempt = Attempt { envelope, body, partial, origin, timeout };
        let result = attempts.make(active, permit, attempt).await;
        reply::of_attempt(&result, envelope, &active.route)
    }
}
