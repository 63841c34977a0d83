//! Putting a message into the queue, here or at the gateway, and answering for it: all of mode `Queue`, and the second half of
//! `DeliverOrQueue`.

use std::net::SocketAddr;
use std::time::Duration;

use mailroute_route::file::GatewayUnavailable;
use mailroute_route::text::chain;

use super::{MessageAcceptor, ending, reply};
use crate::attempt::Active;
use crate::clock;
use crate::gateway::client::{Gateways, HandOverError, Offer};
use crate::logging::faults::Due;
use crate::message::body::Body;
use crate::message::envelope::{Envelope, QueueId};
use crate::outcome::AttemptResult;
use crate::outcome::queued::QueueingCause;
use crate::queue::Attempted;
use crate::queue::schedule::{MAX_RESERVATION, later};
use crate::smtp::reply::Reply;
use crate::spool::{Entry, Progress, Shelf, SpoolError};

/// Slowest gateway that is waited for longer when a message is large, octets a second.
const SLOWEST: u64 = 4 * 1024 * 1024;

/// How long a gateway has for a message once the process is about to end.
const LAST: Duration = Duration::from_millis(800);

impl MessageAcceptor {
    /// Keeps a message that was not tried and says 250, or says that there is no room.
    pub(super) async fn enqueue(
        &self,
        active: &Active,
        cause: QueueingCause,
        envelope: Envelope,
        body: &Body,
    ) -> Reply {
        let entry = Entry::message(envelope, clock::timestamp());
        let progress = Progress::fresh(&entry);
        self.keep(active, cause, Attempted { entry, progress, held: false }, body).await
    }

    /// The same for what is left after an attempt: the recipients that still wait. To the others it is answered for.
    pub(super) async fn enqueue_rest(
        &self,
        active: &Active,
        envelope: &Envelope,
        body: &Body,
        attempt: &AttemptResult,
    ) -> Reply {
        let attempted = self.queue.after_attempt(envelope, attempt);
        self.keep(active, QueueingCause::Refused, attempted, body).await
    }

    async fn keep(
        &self,
        active: &Active,
        cause: QueueingCause,
        mut attempted: Attempted,
        body: &Body,
    ) -> Reply {
        let id = attempted.entry.envelope.id.clone();
        let recipients = attempted.entry.envelope.recipients.len();
        if let Some(gateways) = self.gateways(active) {
            let Attempted { entry, progress, .. } = &attempted;
            let offer = Offer { shelf: Shelf::Queue, entry, progress, body };
            match self.hand_over(gateways, offer).await {
                Ok(_) => return self.queued(cause, &id, recipients, "gateway"),
                Err(error) => {
                    if let Some(no) = self.without_gateway(active, &error, &id) {
                        return self.turned_away(no);
                    }
                    // The gateway tries it, if it has it; it is offered again before it is tried here.
                    let reserved = later(clock::timestamp(), MAX_RESERVATION);
                    attempted.progress.reserved_until = gateways.doubt(&id).map(|_| reserved);
                }
            }
        }
        match self.queue.keep_attempted(attempted, body).await {
            Ok(()) => self.queued(cause, &id, recipients, "pod"),
            Err(error) => self.turned_away(not_kept(&error, &id)),
        }
    }

    /// Hands a message over while its application waits: for the time that a gateway has for it, and for a moment only when the process is
    /// about to end.
    pub(super) async fn hand_over(
        &self,
        gateways: &Gateways,
        offer: Offer<'_>,
    ) -> Result<SocketAddr, HandOverError> {
        let time = self.gateway_timeout + Duration::from_secs(offer.body.len() / SLOWEST);
        let too_late = ending::too_late(clock::now() + time, self.shutting_down.clone(), LAST);
        gateways.hand_over_before(offer, too_late).await
    }

    /// What the application is told when no gateway has the message; nothing when the route is content with the pod.
    pub(super) fn without_gateway(
        &self,
        active: &Active,
        error: &HandOverError,
        id: &QueueId,
    ) -> Option<Reply> {
        if let Some(Due { repeated }) = self.gateways.as_ref().and_then(|gateways| gateways.log_line(error)) {
            tracing::error!(queue_id = %id, repeated, error = chain(error), "no gateway has stored the message");
        }
        match active.route.delivery.gateway_unavailable {
            GatewayUnavailable::Refuse => Some(reply::gateway_unavailable(&active.route)),
            GatewayUnavailable::Pod => None,
        }
    }

    /// Counts and logs that a message was kept, and says 250.
    pub(super) fn queued(
        &self,
        cause: QueueingCause,
        id: &QueueId,
        recipients: usize,
        place: &'static str,
    ) -> Reply {
        self.metrics.queued(cause);
        tracing::info!(queue_id = %id, recipients, cause = cause.as_str(), place, "queued");
        reply::queued(id)
    }

    /// Counts that the application has to send a message again, for want of a place to keep it.
    pub(super) fn turned_away(&self, reply: Reply) -> Reply {
        self.metrics.turned_away();
        reply
    }
}

/// The answer when a message could not be made durable.
pub(super) fn not_kept(error: &SpoolError, id: &QueueId) -> Reply {
    tracing::error!(queue_id = %id, %error, source = ?std::error::Error::source(error), "cannot be queued");
    match error {
        SpoolError::Full(_) => reply::spool_full(),
        _ => reply::spool_broken(),
    }
}
