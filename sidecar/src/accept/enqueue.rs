//! Putting a message into the queue, and answering for it: all of mode `Queue`, and the second half of `DeliverOrQueue`.

use super::{MessageAcceptor, reply};
use crate::message::body::Body;
use crate::message::envelope::{Envelope, QueueId};
use crate::outcome::AttemptResult;
use crate::outcome::queued::QueueingCause;
use crate::smtp::reply::Reply;
use crate::spool::SpoolError;

impl MessageAcceptor {
    /// Keeps a message that was not tried and says 250, or says that there is no room.
    pub(super) async fn enqueue(&self, cause: QueueingCause, envelope: Envelope, body: &Body) -> Reply {
        let (id, recipients) = (envelope.id.clone(), envelope.recipients.len());
        match self.queue.keep(envelope, body).await {
            Ok(()) => self.queued(cause, &id, recipients),
            Err(error) => self.turned_away(not_kept(&error, &id)),
        }
    }

    /// The same for what is left after an attempt: the recipients that still wait. To the others it is answered for.
    pub(super) async fn enqueue_rest(
        &self,
        envelope: &Envelope,
        body: &Body,
        attempt: &AttemptResult,
    ) -> Reply {
        match self.queue.keep_rest(envelope, body, attempt).await {
            Ok(recipients) => self.queued(QueueingCause::Refused, &envelope.id, recipients),
            Err(error) => self.turned_away(not_kept(&error, &envelope.id)),
        }
    }

    /// Counts and logs that a message was kept, and says 250.
    pub(super) fn queued(&self, cause: QueueingCause, id: &QueueId, recipients: usize) -> Reply {
        self.metrics.queued(cause);
        tracing::info!(queue_id = %id, recipients, cause = cause.as_str(), "queued");
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
