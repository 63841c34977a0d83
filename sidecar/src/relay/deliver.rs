//! Mode `Deliver`: a message is offered to the upstream while the application waits, and nothing outlives the answer.

use std::sync::Arc;
use std::time::Duration;

use super::{Relay, fits, reply};
use crate::body::Body;
use crate::clock;
use crate::delivery::outcome::Partial;
use crate::dispatch::{Active, Origin};
use crate::envelope::Envelope;
use crate::smtp::reply::Reply;

impl Relay {
    /// Delivers, or says no.
    pub(super) async fn deliver(&self, active: &Arc<Active>, envelope: &Envelope, body: &Body) -> Reply {
        if !fits(active, envelope) {
            return reply::too_many_recipients();
        }
        let (started, recipients) = (clock::now(), envelope.recipients.len() as u64);
        // A burst is smoothed rather than turned away, as long as the application may be expected to wait.
        let wait = Duration::from_secs(active.route.delivery.wait_seconds).min(self.patience);
        let leave = match self.dispatch.leave_until(active, recipients, started + wait).await {
            Ok(leave) => leave,
            Err(held) => {
                self.metrics.failed_fast();
                return reply::of_verdict(&held.verdict, &active.route);
            }
        };
        let left = self.patience.saturating_sub(started.elapsed());
        let how = (Origin::Live, Some(left));
        let attempt = self.dispatch.attempt(leave, envelope, body, Partial::Never, how).await;
        reply::of_attempt(&attempt, envelope, &active.route)
    }
}
