//! Keeping a message, and answering for it: all of mode `Queue`, and the second half of `DeliverOrQueue`.

use super::{Relay, reply};
use crate::body::Body;
use crate::clock;
use crate::delivery::outcome::Attempt;
use crate::envelope::Envelope;
use crate::queue::fates;
use crate::queue::schedule::{After, later};
use crate::smtp::reply::Reply;
use crate::spool::{Entry, Fate, Kind, Progress, SpoolError};

/// Why a message is kept rather than delivered while the application waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The route says so.
    Mode,
    /// It has more recipients than one transaction may have.
    Split,
    /// The mailbox may not send more now.
    Limits,
    /// The route is known not to work.
    Fault,
    /// The upstream said "not now", or could not be reached.
    Refused,
    /// The upstream takes long.
    Slow,
    /// The process is about to end.
    Stopping,
}

impl Cause {
    /// Every value.
    pub const ALL: [Self; 7] =
        [Self::Mode, Self::Split, Self::Limits, Self::Fault, Self::Refused, Self::Slow, Self::Stopping];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Split => "split",
            Self::Limits => "limits",
            Self::Fault => "fault",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Stopping => "stopping",
        }
    }
}

/// A message as it is about to be kept.
pub(super) struct Fresh {
    entry: Entry,
    progress: Progress,
    held: bool,
}

/// A message that was not tried yet.
pub(super) fn fresh(envelope: Envelope) -> Fresh {
    let entry = entry(envelope);
    Fresh { progress: Progress::fresh(&entry), entry, held: false }
}

/// A message as it came in.
pub(super) fn entry(envelope: Envelope) -> Entry {
    Entry { envelope, kind: Kind::Message, accepted: clock::timestamp() }
}

impl Relay {
    /// What is left of a message after an attempt: the recipients that still wait. To the others it is answered for.
    pub(super) fn rest(&self, envelope: &Envelope, attempt: &Attempt) -> Fresh {
        let whole = entry(envelope.clone());
        let (mut progress, now) = (Progress::fresh(&whole), whole.accepted);
        let all: Vec<usize> = (0..progress.fates.len()).collect();
        let after = fates::apply(&mut progress, &all, attempt, now).after.unwrap_or(After::Again);
        progress.next =
            self.queue.pace().next(after, progress.attempts, now, later(now, MAX_PAUSE), clock::chance());
        let held = after == After::Hold;
        // To whom it was delivered is answered for with this reply. Whom it will not reach must not be forgotten.
        if progress.fates.iter().any(|fate| matches!(fate, Fate::Failed(_))) {
            return Fresh { entry: whole, progress, held };
        }
        let envelope = fates::part(&whole, &fates::waiting(&progress));
        let entry = Entry { envelope, ..whole };
        let progress = Progress { fates: Progress::fresh(&entry).fates, ..progress };
        Fresh { entry, progress, held }
    }

    /// Keeps a message and says 250, or says that there is no room.
    pub(super) async fn keep(&self, cause: Cause, fresh: Fresh, body: &Body) -> Reply {
        let Fresh { entry, progress, held } = fresh;
        let (id, recipients) = (entry.envelope.id.clone(), entry.envelope.recipients.len());
        match self.queue.keep(entry, body, progress, held).await {
            Ok(()) => {
                self.kept(cause, &id, recipients);
                reply::queued(&id)
            }
            Err(error) => self.turned_away(not_kept(&error, &id)),
        }
    }

    /// Counts that the application has to send a message again, for want of a place to keep it.
    pub(super) fn turned_away(&self, reply: Reply) -> Reply {
        self.metrics.turned_away();
        reply
    }

    /// Counts and logs that a message was kept.
    pub(super) fn kept(&self, cause: Cause, id: &crate::envelope::QueueId, recipients: usize) {
        self.metrics.queued(cause);
        tracing::info!(queue_id = %id, recipients, cause = cause.as_str(), "queued");
    }
}

/// Longest pause after a first attempt, whatever the route's `maxAge`: the queue knows that better.
const MAX_PAUSE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The answer when a message could not be made durable.
pub(super) fn not_kept(error: &SpoolError, id: &crate::envelope::QueueId) -> Reply {
    tracing::error!(queue_id = %id, %error, source = ?std::error::Error::source(error), "cannot be queued");
    match error {
        SpoolError::Full(_) => reply::spool_full(),
        _ => reply::spool_broken(),
    }
}
