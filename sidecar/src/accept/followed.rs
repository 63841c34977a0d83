//! A message that a gateway has while its first attempt is still under way here: what comes of the attempt is told to the gateway.
//!
//! The message is reserved for [`MAX_RESERVATION`]: whatever happens at the gateway, it does not try before that time is over. When it
//! cannot be told in time, it tries then, and a message that the upstream took may arrive a second time (decision 002).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mailroute_route::text::chain;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::deliver_or_queue::is_told_whole;
use super::{MessageAcceptor, ending};
use crate::clock::{self, Instant};
use crate::gateway::client::{Gateways, HandOverError, Offer};
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::AttemptResult;
use crate::queue::Queue;
use crate::queue::schedule::{MAX_RESERVATION, later};
use crate::spool::{Entry, Progress, RecipientStatus, Shelf};

/// How long an attempt may go on once the message was offered to a gateway.
const ATTEMPT: Duration = MAX_RESERVATION.saturating_sub(MARGIN);

/// How long it may go on once the process is about to end.
const LAST: Duration = Duration::from_secs(2);

/// How much later the gateway tries by itself: for telling it, and for clocks that differ.
const MARGIN: Duration = Duration::from_secs(60);

/// Pause before a gateway that could not be told is told again: the first, doubled each time, and the longest.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// A message whose attempt is under way, at a gateway.
pub(super) struct Followed {
    queue: Arc<Queue>,
    gateways: Arc<Gateways>,
    gateway: SocketAddr,
    entry: Entry,
    /// When the attempt has to end, [`MARGIN`] before the gateway tries by itself.
    deadline: Instant,
}

impl MessageAcceptor {
    /// Hands a message over that is being tried.
    pub(super) async fn hand_over_tried(
        &self,
        gateways: &Arc<Gateways>,
        envelope: &Envelope,
        body: &Body,
    ) -> Result<Followed, HandOverError> {
        let entry = Entry::message(envelope.clone(), clock::timestamp());
        let (next, deadline) = (later(entry.accepted, MAX_RESERVATION), clock::now() + ATTEMPT);
        let progress = Progress { next, reserved_until: Some(next), ..Progress::fresh(&entry) };
        let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body };
        let gateway = self.hand_over(gateways, offer).await?;
        let (queue, gateways) = (Arc::clone(&self.queue), Arc::clone(gateways));
        Ok(Followed { queue, gateways, gateway, entry, deadline })
    }
}

impl Followed {
    /// Lets the attempt go on, and tells the gateway what came of it. When the process is about to end it is cut off soon, and the gateway
    /// tries.
    pub fn adopt(self, attempt: JoinHandle<AttemptResult>, shutting_down: watch::Receiver<bool>) {
        let following = self.gateways.follow();
        tokio::spawn(async move {
            let _following = following;
            let too_long = ending::too_late(self.deadline, shutting_down, LAST);
            match ending::ended(attempt, too_long).await {
                Ok(attempt) => self.tell(&attempt).await,
                Err(error) => {
                    if !error.is_cancelled() {
                        tracing::error!(%error, "an attempt ended abnormally");
                    }
                    self.give_up().await;
                }
            }
        });
    }

    /// Nobody knows what came of the attempt: the gateway tries now.
    async fn give_up(self) {
        let progress = Progress { next: clock::timestamp(), ..Progress::fresh(&self.entry) };
        self.told(&progress).await;
    }

    /// Tells the gateway what came of the attempt. Where the application is told the upstream's words, nobody waits any more.
    async fn tell(self, attempt: &AttemptResult) {
        let mut progress = self.queue.after_attempt_for_all(self.entry.clone(), attempt).progress;
        progress.next = progress.next.max(clock::timestamp());
        self.told(&progress).await;
    }

    /// Takes the message from the gateway: the application was told the upstream's last word.
    async fn release(self) {
        let mut progress = Progress::fresh(&self.entry);
        progress.statuses.fill(RecipientStatus::Delivered);
        self.told(&progress).await;
    }

    /// What an attempt that has ended means for the gateway. Does not hold up the application.
    pub fn decide(self, attempt: AttemptResult) {
        let following = self.gateways.follow();
        tokio::spawn(async move {
            let _following = following;
            if is_told_whole(&attempt) { self.release().await } else { self.tell(&attempt).await }
        });
    }

    /// Tells the gateway, again and again while it cannot be reached, until it tries by itself. Those who do so at a time are no more
    /// than attempts were under way when the gateway went.
    async fn told(&self, progress: &Progress) {
        let (id, gateway) = (&self.entry.envelope.id, self.gateway);
        let mut pause = AGAIN;
        loop {
            let Err(error) = self.gateways.update(gateway, id, progress).await else { return };
            tracing::warn!(queue_id = %id, %gateway, error = chain(&error), "the gateway could not be told what came of an attempt");
            if error.is_of_message() || clock::now() + pause >= self.deadline + MARGIN {
                return;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST);
        }
    }
}
