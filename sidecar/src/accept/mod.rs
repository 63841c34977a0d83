//! What a 250 means, for each of the route's delivery modes.
//!
//! * `deliver`: 250 only when the upstream has the message.
//! * `deliver_or_queue`: tried at once; kept where the upstream neither takes it nor refuses it for good.
//! * `enqueue`: kept first, delivered later. Where the route says so, a gateway keeps it ([`Gateways`]).
//!
//! What the transport can never carry is refused in every mode, while the application can be told.
//!
//! Owns what happens between the end of a message's data and the answer. Refuses to know the method, how attempts are
//! made ([`Lanes`]), what becomes of a kept message ([`Queue`]), and the words ([`reply`]).
//!
//! Invariant: 250 only when the upstream has taken the message, or it is durable where the route wants it, for every recipient.

mod deliver;
mod deliver_or_queue;
mod ending;
mod enqueue;
mod followed;
pub mod reply;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::file::{DeliveryMode, Durability};
use tokio::sync::watch;

use crate::attempt::Active;
use crate::attempt::lanes::Lanes;
use crate::gateway::client::Gateways;
use crate::listener::Accept;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::metrics::Metrics;
use crate::outcome::queued::QueueingCause;
use crate::queue::{Queue, split};
use crate::smtp::reply::Reply;

/// Takes messages from applications.
pub struct MessageAcceptor {
    lanes: Arc<Lanes>,
    queue: Arc<Queue>,
    /// None in a gateway itself: its own spool is what the route means.
    gateways: Option<Arc<Gateways>>,
    metrics: Arc<Metrics>,
    /// How long an application waits at most.
    reply_timeout: Duration,
    /// How long it waits for a gateway at most.
    gateway_timeout: Duration,
    /// The process is about to end: nobody may wait any longer.
    shutting_down: watch::Receiver<bool>,
}

impl MessageAcceptor {
    /// For whatever route is in use. An application waits `reply_timeout` at most, and for a gateway `gateway_timeout`; when
    /// `shutting_down` becomes true, no longer than it takes to keep the message.
    pub fn new(
        lanes: Arc<Lanes>,
        queue: Arc<Queue>,
        gateways: Option<Arc<Gateways>>,
        metrics: Arc<Metrics>,
        (reply_timeout, gateway_timeout): (Duration, Duration),
        shutting_down: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self { lanes, queue, gateways, metrics, reply_timeout, gateway_timeout, shutting_down })
    }

    /// The gateways, where messages that wait have to be with one before the 250.
    fn gateways(&self, active: &Active) -> Option<&Arc<Gateways>> {
        self.gateways.as_ref().filter(|_| active.route.delivery.durability == Durability::Gateway)
    }
}

#[async_trait]
impl Accept for MessageAcceptor {
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply {
        let attempts = self.lanes.of(envelope.mailbox.as_ref());
        let Some(active) = attempts.active() else {
            return reply::without_route();
        };
        if let Some(verdict) = active.transport.refusal(&envelope, &body).await {
            tracing::warn!(queue_id = %envelope.id, sender = %envelope.reverse_path, reply = verdict.text, "refused");
            return reply::of_verdict(&verdict, &active.route);
        }
        match active.route.delivery.mode {
            DeliveryMode::Deliver => self.deliver(attempts, &active, &envelope, &body).await,
            DeliveryMode::DeliverOrQueue => self.deliver_or_queue(attempts, &active, envelope, body).await,
            DeliveryMode::Queue => self.enqueue(&active, QueueingCause::Mode, envelope, &body).await,
        }
    }
}

/// Whether one transaction can have all recipients.
fn fits(active: &Active, envelope: &Envelope) -> bool {
    split::fits(&active.route, &envelope.recipients)
}
