//! What a 250 means, for each of the route's delivery modes.
//!
//! * `deliver`: 250 only when the upstream has the message.
//! * `deliver_or_queue`: tried at once; kept where the upstream neither takes it nor refuses it for good.
//! * `keep`: kept first, delivered later.
//!
//! Owns what happens between the end of a message's data and the answer. Refuses to know the method, how attempts are
//! made ([`Attempts`]), what becomes of a kept message ([`Queue`]), and the words ([`reply`]).
//!
//! Invariant: 250 only when the upstream has taken the message, or it is durable here, for every recipient.

mod deliver;
mod deliver_or_queue;
mod enqueue;
pub mod reply;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::file::DeliveryMode;
use tokio::sync::watch;

use crate::attempt::{Active, Attempts};
use crate::listener::Accept;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::metrics::Metrics;
use crate::outcome::queued::QueueingCause;
use crate::queue::{Queue, split};
use crate::smtp::reply::Reply;

/// Takes messages from applications.
pub struct MessageAcceptor {
    attempts: Arc<Attempts>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// How long an application waits at most.
    reply_timeout: Duration,
    /// The process is about to end: nobody may wait any longer.
    shutting_down: watch::Receiver<bool>,
}

impl MessageAcceptor {
    /// A relay for whatever route is in use. An application waits `reply_timeout` at most; when `shutting_down` becomes true, no
    /// longer than it takes to keep the message.
    pub fn new(
        attempts: Arc<Attempts>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        reply_timeout: Duration,
        shutting_down: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self { attempts, queue, metrics, reply_timeout, shutting_down })
    }
}

#[async_trait]
impl Accept for MessageAcceptor {
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply {
        let Some(active) = self.attempts.active() else {
            return reply::without_route();
        };
        match active.route.delivery.mode {
            DeliveryMode::Deliver => self.deliver(&active, &envelope, &body).await,
            DeliveryMode::DeliverOrQueue => self.deliver_or_queue(&active, envelope, body).await,
            DeliveryMode::Queue => self.enqueue(QueueingCause::Mode, envelope, &body).await,
        }
    }
}

/// Whether one transaction can have all recipients.
fn fits(active: &Active, envelope: &Envelope) -> bool {
    let most = usize::try_from(active.route.limits.max_recipients).unwrap_or(usize::MAX);
    split::fits(&envelope.recipients, most)
}
