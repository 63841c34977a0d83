//! A message whose first attempt is under way while it is stored: the attempt's result decides what becomes of it.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::delivery_task::ClaimedMessage;
use crate::outcome::AttemptResult;
use crate::spool::{Entry, Progress};

/// A message that was being tried when it was stored.
pub struct KeptAttempt {
    taken: ClaimedMessage,
    entry: Entry,
    progress: Progress,
}

impl KeptAttempt {
    pub(super) const fn new(taken: ClaimedMessage, entry: Entry, progress: Progress) -> Self {
        Self { taken, entry, progress }
    }

    /// Lets the attempt that is under way decide, whenever it ends. Its end settles the message as one from the queue.
    pub fn adopt(self, attempt: JoinHandle<AttemptResult>) {
        let queue = Arc::clone(self.taken.queue());
        // Cut off with the queue: what is found in the spool at the next start must not be under way still.
        let mut attempt = AbortOnDrop(attempt);
        queue.spawn(async move {
            let ended = match self.taken.unless_cut_off(&mut attempt.0).await {
                Some(ended) => ended,
                None => {
                    attempt.0.abort();
                    // It may have ended by itself meanwhile.
                    (&mut attempt.0).await
                }
            };
            match ended {
                Ok(attempt) => self.settle(attempt).await,
                // The message is given back as this ends.
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "an attempt ended abnormally"),
            }
        });
    }

    /// Settles the message as the attempt says. Does not wait for a disk that refuses.
    pub async fn decide(self, attempt: AttemptResult) {
        let queue = Arc::clone(self.taken.queue());
        queue.finish(self.settle(attempt)).await;
    }

    /// Takes the message out again: somebody else answers for it. Does not wait for a disk that refuses.
    pub async fn release(self) {
        let queue = Arc::clone(self.taken.queue());
        queue.finish(self.taken.clear_away(None)).await;
    }

    async fn settle(self, attempt: AttemptResult) {
        let Self { taken, entry, progress } = self;
        taken.attempted(entry, progress, &attempt).await;
    }
}

/// A task that does not outlive its handle.
struct AbortOnDrop(JoinHandle<AttemptResult>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
