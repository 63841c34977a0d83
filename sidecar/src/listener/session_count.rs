//! How many local sessions are open: what a polite stop waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::listener::{Observer, Refusal};
use crate::smtp::reply::Reply;

/// Counts open sessions and passes everything on to the metrics.
pub struct SessionCount {
    open: watch::Sender<usize>,
    metrics: Arc<dyn Observer>,
}

impl SessionCount {
    /// None open yet.
    pub fn new(metrics: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(0), metrics })
    }

    /// Sees the count change.
    pub fn subscribe(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }
}

impl Observer for SessionCount {
    fn session_opened(&self) {
        self.open.send_modify(|open| *open += 1);
        self.metrics.session_opened();
    }

    fn session_closed(&self, lasted: Duration) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
        self.metrics.session_closed(lasted);
    }

    fn refused(&self, reason: Refusal) {
        self.metrics.refused(reason);
    }

    fn header_encoded(&self, fields: u32) {
        self.metrics.header_encoded(fields);
    }

    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration) {
        self.metrics.answered(reply, bytes, elapsed);
    }
}
