//! The fallback of a Graph route: client submission of the same mailbox, for what Graph cannot carry.
//!
//! Owns the choice between the two. A fault of the fallback alone concerns the messages that need it: it does not hold the others,
//! and no condition of the route tells of it.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use tokio::sync::watch;

use super::GraphTransport;
use crate::clock::{self, Instant};
use crate::delivery::pool::Slot;
use crate::delivery::transport::noted;
use crate::delivery::{DryRun, Transport};
use crate::lock;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::effect::is_uncounted;
use crate::outcome::{AttemptResult, DeliveryOutcome, PartialDelivery, Probe, Verdict};

/// Most connections of client submission that Exchange allows a mailbox at a time.
pub const SUBMISSION_CONNECTIONS: usize = 3;

/// How long the fallback is left alone after a fault of its own: it is tried with one message and not with all that wait.
const PAUSE: Duration = Duration::from_secs(120);

/// Graph, and client submission where Graph will not do.
pub struct WithFallback<T> {
    graph: GraphTransport,
    submission: T,
    /// The fault that the fallback met last, and when.
    fault: Mutex<Option<(Instant, Verdict)>>,
}

impl<T: Transport> WithFallback<T> {
    /// Sends by `graph`, and by `submission` what that cannot carry.
    pub const fn new(graph: GraphTransport, submission: T) -> Self {
        Self { graph, submission, fault: Mutex::new(None) }
    }

    /// A slot of client submission, unless that does not work.
    async fn submission_slot(&self, envelope: &Envelope, body: &Body) -> Result<Slot<'_>, Verdict> {
        let met = lock(&self.fault).clone().filter(|(at, _)| at.elapsed() < PAUSE);
        match met {
            Some((_, verdict)) => Err(verdict),
            None => self.submission.slot(envelope, body).await.map_err(of_message),
        }
    }

    async fn submit(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> AttemptResult {
        let mut result = self.submission.deliver(slot, envelope, body, partial).await;
        result.verdict = of_message(result.verdict);
        let has_failed = result.verdict.outcome.reason() == Some(Reason::FallbackFailed);
        *lock(&self.fault) = has_failed.then(|| (clock::now(), result.verdict.clone()));
        for refused in &mut result.refused {
            refused.verdict = of_message(refused.verdict.clone());
        }
        if result.verdict.outcome == DeliveryOutcome::Delivered {
            result.observations.retain(|met| met.reason == Reason::MailAccepted);
        } else {
            result.observations.clear();
            result.verdict = noted(result.verdict, &mut result.observations);
        }
        result
    }
}

/// A fault of the fallback as one of the message alone, as only messages that need the fallback meet it.
fn of_message(verdict: Verdict) -> Verdict {
    let fault = match verdict.outcome {
        DeliveryOutcome::RefreshToken
        | DeliveryOutcome::RouteFault(_)
        // The connections of client submission, not those to Graph.
        | DeliveryOutcome::Quota(Reason::ConnectionsExceeded) => verdict.outcome.reason(),
        DeliveryOutcome::Transient(reason) => reason,
        _ => None,
    };
    match fault {
        None => verdict,
        Some(fault) => Verdict {
            outcome: DeliveryOutcome::Transient(Some(Reason::FallbackFailed)),
            text: format!("the fallback to client submission does not work: {fault}: {}", verdict.text),
            is_unsent: is_uncounted(&verdict),
            ..verdict
        },
    }
}

#[async_trait]
impl<T: Transport> Transport for WithFallback<T> {
    /// For a message that needs the fallback a slot of that, so that it holds up no other.
    async fn slot(&self, envelope: &Envelope, body: &Body) -> Result<Slot<'_>, Verdict> {
        match self.graph.refusal(envelope, body).await {
            Some(_) => self.submission_slot(envelope, body).await,
            None => self.graph.slot(envelope, body).await,
        }
    }

    async fn deliver(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> AttemptResult {
        if !self.graph.gave(slot) {
            return self.submit(slot, envelope, body, partial).await;
        }
        let result = self.graph.deliver(slot, envelope, body, partial).await;
        match result.verdict.outcome {
            // Graph's own edge is lower than the route says.
            DeliveryOutcome::RejectMessage(Some(Reason::GraphCannotCarry)) => {
                match self.submission_slot(envelope, body).await {
                    Ok(slot) => self.submit(&slot, envelope, body, partial).await,
                    Err(verdict) => AttemptResult { verdict, ..result },
                }
            }
            _ => result,
        }
    }

    async fn probe(&self) -> Probe {
        self.graph.probe().await
    }

    async fn dry_run(&self, envelope: &Envelope, dry_run: &mut DryRun) {
        self.graph.dry_run(envelope, dry_run).await;
    }

    fn resize(&self, connections: usize) {
        self.graph.resize(connections);
        self.submission.resize(connections.min(SUBMISSION_CONNECTIONS));
    }

    async fn tend(&self, stop: watch::Receiver<bool>) {
        tokio::join!(self.graph.tend(stop.clone()), self.submission.tend(stop));
    }
}
