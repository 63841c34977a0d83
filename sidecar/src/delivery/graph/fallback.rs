//! The second way of a Graph route: client submission of the same mailbox, for what Graph cannot carry.
//!
//! Owns the choice between the two. What is wrong with the second way alone concerns the messages that need it: it does not
//! hold the others, and no condition of the route tells of it.

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use tokio::sync::watch;

use super::GraphTransport;
use crate::delivery::pool::Slot;
use crate::delivery::{DryRun, Transport};
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::{
    AttemptResult, DeliveryOutcome, Observation, PartialDelivery, Probe, RefusedRecipient, Verdict,
};

/// Most connections of client submission that Exchange allows a mailbox at a time.
pub const SUBMISSION_CONNECTIONS: usize = 3;

/// Graph, and client submission where Graph will not do.
pub struct WithFallback<T> {
    graph: GraphTransport,
    submission: T,
}

impl<T: Transport> WithFallback<T> {
    /// Sends by `graph`, and by `submission` what that cannot carry.
    pub const fn new(graph: GraphTransport, submission: T) -> Self {
        Self { graph, submission }
    }

    async fn submit(&self, envelope: &Envelope, body: &Body, partial: PartialDelivery) -> AttemptResult {
        let slot = match self.submission.slot().await {
            Ok(slot) => slot,
            Err(verdict) => {
                return AttemptResult { verdict, refused: vec![], observations: vec![], host: None };
            }
        };
        let mut result = self.submission.deliver(&slot, envelope, body, partial).await;
        result.verdict = of_message(result.verdict);
        result.refused = result
            .refused
            .into_iter()
            .map(|RefusedRecipient { recipient, verdict }| RefusedRecipient {
                recipient,
                verdict: of_message(verdict),
            })
            .collect();
        result.observations = match result.verdict.outcome {
            DeliveryOutcome::Delivered => {
                result.observations.into_iter().filter(|met| met.reason == Reason::MailAccepted).collect()
            }
            outcome => outcome
                .reason()
                .map(|why| Observation::new(why, result.verdict.text.clone()))
                .into_iter()
                .collect(),
        };
        result
    }
}

/// What is the matter with the second way as something that only the messages meet which need it.
fn of_message(verdict: Verdict) -> Verdict {
    let fault = match verdict.outcome {
        DeliveryOutcome::RefreshToken | DeliveryOutcome::RouteFault(_) => verdict.outcome.reason(),
        DeliveryOutcome::Transient(reason) => reason,
        _ => None,
    };
    match fault {
        None => verdict,
        Some(fault) => Verdict {
            outcome: DeliveryOutcome::Transient(Some(Reason::GraphCannotCarry)),
            text: format!("the fallback to client submission does not work: {fault}: {}", verdict.text),
            ..verdict
        },
    }
}

#[async_trait]
impl<T: Transport> Transport for WithFallback<T> {
    async fn slot(&self) -> Result<Slot<'_>, Verdict> {
        self.graph.slot().await
    }

    async fn deliver(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> AttemptResult {
        if self.graph.refusal(envelope, body).await.is_some() {
            return self.submit(envelope, body, partial).await;
        }
        let result = self.graph.deliver(slot, envelope, body, partial).await;
        match result.verdict.outcome {
            // Graph's own edge is lower than the route says.
            DeliveryOutcome::RejectMessage(Some(Reason::GraphCannotCarry)) => {
                self.submit(envelope, body, partial).await
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
