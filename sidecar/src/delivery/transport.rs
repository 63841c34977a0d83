//! Connections that are made ready by a method ([`Connect`]), kept in a pool, and used for one message after the
//! other.
//!
//! Owns when a connection is kept, tried again or given up, and what is said of the conditions met. Refuses to know how
//! one is made ready and what happens to a message that could not be sent.
//!
//! Invariants: a connection on which anything went wrong is never used again; a message is sent again on another
//! connection only while nothing of its content has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::Chunking;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::{Connection, Protection};
use super::error::ConnectionError;
use super::flight::{self, FlightEnd};
use super::pool::{self, Pool, Reusable, Slot};
use super::transaction::{self, DryTransaction, Interruption, TransactionEnd};
use super::{DryRun, Transport};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::message::redact;
use crate::outcome::classify::classify;
use crate::outcome::{
    AttemptResult, DeliveryOutcome, Observation, PartialDelivery, Probe, Verdict, one_line,
};

/// How often kept connections are looked at.
const TEND: Duration = Duration::from_secs(5);

/// Longest wait of a probe for a connection that is not in use: well within what it may take as a whole.
pub(super) const PROBE_WAIT: Duration = Duration::from_secs(30);

/// Makes connections that take mail.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Connects, and proves who we are where the method does so before mail. What was met is added to `observations`,
    /// the failed one last.
    ///
    /// # Errors
    /// The verdict on every message, when there is no connection.
    async fn connect(&self, observations: &mut Vec<Observation>) -> Result<Connection, Verdict>;

    /// What is proven when the upstream accepts a recipient over `connection`.
    fn recognised(&self, connection: &Connection) -> Option<Observation>;

    /// Whether messages may go with BDAT.
    fn chunking(&self) -> Chunking;
}

/// Learns of connections.
pub trait TransportObserver: Send + Sync {
    /// A connection was made.
    fn connected(&self, protection: Protection);
}

/// Sends over connections that `T` makes.
pub struct SmtpTransport<T> {
    connect: T,
    pool: Pool<Connection>,
    observe: Arc<dyn TransportObserver>,
    /// Messages go with DATA: the route says so, or the upstream does not take BDAT although it offers it.
    by_data: AtomicBool,
}

/// What is known about an attempt besides its end.
#[derive(Default)]
struct Course {
    observations: Vec<Observation>,
    host: Option<String>,
}

impl<T: Connect> SmtpTransport<T> {
    /// Over up to `connections` at a time.
    pub fn new(connect: T, connections: usize, observe: Arc<dyn TransportObserver>) -> Self {
        let by_data = AtomicBool::new(connect.chunking() == Chunking::Never);
        Self { connect, pool: Pool::new(connections), observe, by_data }
    }

    async fn connection(&self, observations: &mut Vec<Observation>) -> Result<Connection, Verdict> {
        let connection = self.connect.connect(observations).await?;
        self.observe.connected(connection.protection);
        Ok(connection)
    }

    /// One message; over a new connection if the kept one turns out to be gone, and with DATA if BDAT turns out not to work.
    async fn send(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
        course: &mut Course,
    ) -> TransactionEnd {
        let mut refusal = None;
        loop {
            let kept = self.pool.kept(slot);
            let reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => match self.connection(&mut course.observations).await {
                    Ok(connection) => connection,
                    Err(verdict) => return TransactionEnd::without(verdict),
                },
            };
            course.host = Some(connection.host.clone());
            let outcome = if refusal.is_none() && self.is_flight(&connection, envelope, body, partial) {
                match flight::send(&mut connection, envelope, body, partial).await {
                    Ok(FlightEnd::Ended(ended)) => Ok(ended),
                    Err(interrupted) => Err(interrupted),
                    Ok(FlightEnd::Refused { reply, clean }) => {
                        if clean {
                            self.pool.keep(connection);
                        }
                        refusal = Some(reply);
                        continue;
                    }
                    Ok(FlightEnd::Silent) => {
                        self.use_data("it does not answer");
                        continue;
                    }
                }
            } else {
                transaction::send(&mut connection, envelope, body, partial).await
            };
            let gone = match &outcome {
                Ok(ended) => is_farewell(ended),
                Err(interrupted) => interrupted.repeatable,
            };
            if reused && gone {
                tracing::debug!("the upstream closed the idle connection; connecting again");
                continue;
            }
            let ended = outcome
                .unwrap_or_else(|interrupted: Interruption| TransactionEnd::without(interrupted.verdict()));
            // A message that is refused either way says nothing of BDAT.
            if let Some(reply) = refusal.filter(|_| !ended.verdict.is_final()) {
                self.use_data(&one_line(&reply));
            }
            self.conclude(&ended, &connection, &mut course.observations);
            // What the upstream thinks of us it thinks of the connection: the next one may present something better.
            if ended.clean && doubt(&ended).is_none() {
                connection.used = clock::now();
                self.pool.keep(connection);
            }
            return ended;
        }
    }

    /// Whether a message goes in one flight over this connection.
    fn is_flight(
        &self,
        connection: &Connection,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> bool {
        !self.by_data.load(Ordering::Relaxed)
            && flight::is_possible(connection.capabilities, envelope, body.len(), partial)
    }

    /// The upstream offers BDAT and does not take it: from now on messages go with DATA, until the route changes.
    fn use_data(&self, why: &str) {
        if !self.by_data.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                why,
                "the upstream does not take BDAT, though it offers CHUNKING: messages are sent with DATA from now on"
            );
        }
    }

    /// Adds what the end of a transaction says about the route.
    fn conclude(&self, ended: &TransactionEnd, connection: &Connection, observations: &mut Vec<Observation>) {
        // Recipients of its own the upstream takes from anyone; one that it refused for who we are tells more.
        match doubt(ended) {
            Some((reason, text)) => {
                observations.push(Observation::new(reason, explained(reason, text, connection)))
            }
            None if ended.accepted => observations.extend(self.connect.recognised(connection)),
            None => {}
        }
        let Verdict { outcome, text, .. } = &ended.verdict;
        if *outcome == DeliveryOutcome::Delivered {
            // A message taken also clears what an earlier one met.
            observations.push(connected(connection, "took a message"));
            observations.push(Observation::new(Reason::MailAccepted, text.clone()));
        } else if let Some(reason) = outcome.reason().filter(|&reason| !depends_on_origin(reason)) {
            observations.push(Observation::new(reason, text.clone()));
        }
    }
}

/// What the upstream refused for where we come from and what we presented, if anything.
fn doubt(ended: &TransactionEnd) -> Option<(Reason, &str)> {
    let verdicts = ended.refused.iter().map(|refused| &refused.verdict).chain([&ended.verdict]);
    verdicts
        .filter_map(|it| Some((it.outcome.reason()?, it.text.as_str())))
        .find(|(why, _)| depends_on_origin(*why))
}

#[async_trait]
impl<T: Connect> Transport for SmtpTransport<T> {
    async fn slot(&self, _: &Envelope, _: &Body) -> Result<Slot<'_>, Verdict> {
        self.pool.slot().await.ok_or_else(crowded)
    }

    async fn deliver(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        partial: PartialDelivery,
    ) -> AttemptResult {
        let mut course = Course::default();
        let TransactionEnd { verdict, refused, .. } =
            self.send(slot, envelope, body, partial, &mut course).await;
        let observations = redacted(course.observations, envelope);
        AttemptResult { verdict, refused, observations, host: course.host }
    }

    async fn probe(&self) -> Probe {
        let mut observations = Vec::new();
        // While all are in use, what they meet tells more than a probe could; it then ends without a finding.
        if let Ok(Some(slot)) = timeout(PROBE_WAIT, self.pool.slot()).await
            && let Ok(connection) = self.connection(&mut observations).await
        {
            // The first message after a start finds it ready. One is enough, and the one in use has proven itself.
            match self.pool.kept(&slot) {
                Some(kept) => {
                    self.pool.keep(kept);
                    drop(slot);
                    connection.quit().await;
                }
                None => self.pool.keep(connection),
            }
        }
        Probe { observations }
    }

    async fn dry_run(&self, envelope: &Envelope, dry_run: &mut DryRun) {
        let mut connection = match self.connection(&mut dry_run.observations).await {
            Ok(connection) => connection,
            Err(verdict) => {
                dry_run.stopped = Some(verdict);
                return;
            }
        };
        let DryTransaction { replies, stop, accepted } =
            match transaction::dry_run(&mut connection, envelope).await {
                Ok(tried) => tried,
                Err(error) => {
                    dry_run.stopped = Some(noted(lost(error), &mut dry_run.observations));
                    return;
                }
            };
        let positive = replies.iter().filter(|(_, reply)| reply.is_positive());
        dry_run.answers = positive.map(|(stage, reply)| (*stage, one_line(reply))).collect();
        if accepted {
            dry_run.observations.extend(self.connect.recognised(&connection));
        }
        if let Some(reason) = stop.as_ref().and_then(|stop| stop.outcome.reason()) {
            let text = stop.as_ref().map_or("", |stop| stop.text.as_str());
            dry_run.observations.push(Observation::new(reason, explained(reason, text, &connection)));
        }
        dry_run.stopped = stop;
        connection.quit().await;
    }

    fn resize(&self, connections: usize) {
        self.pool.resize(connections);
    }

    async fn tend(&self, stop: watch::Receiver<bool>) {
        tended(&self.pool, stop).await;
    }
}

/// Looks after the connections of `pool` until `stop`.
pub(super) async fn tended<C: Reusable>(pool: &Pool<C>, mut stop: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(TEND);
    loop {
        let stopping = tokio::select! {
            _ = stop.wait_for(|&stop| stop) => true,
            _ = rounds.tick() => false,
        };
        if stopping {
            return pool.close().await;
        }
        pool.tidy().await;
    }
}

/// Whether the upstream only said goodbye to a connection it no longer wants, before any content.
fn is_farewell(ended: &TransactionEnd) -> bool {
    let reply = ended.verdict.reply.as_ref();
    !ended.clean
        && ended.verdict.outcome == DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable))
        && reply.is_some_and(|reply| reply.code == 421 && reply.enhanced.is_none_or(|code| code.subject == 4))
}

/// The verdict when too many wait already. Says nothing about the upstream.
pub(super) fn crowded() -> Verdict {
    let seconds = pool::WAIT.as_secs();
    let text = format!("no connection to the upstream became free within {seconds} seconds");
    Verdict::without_reply(DeliveryOutcome::Transient(None), text)
}

/// The condition that a connection stands for.
pub(super) fn connected(connection: &Connection, what: &str) -> Observation {
    let (host, protection) = (&connection.host, connection.protection.as_str());
    let observation = match &connection.unprotected {
        None => Observation::new(Reason::Connected, format!("{host} {what} over {protection}")),
        Some(why) => {
            Observation::new(Reason::ConnectedWithoutTls, format!("{host} {what} in plaintext, since {why}"))
        }
    };
    Observation { egress: connection.egress, ..observation }
}

/// Whether the upstream says so because of our address or certificate, rather than of a log-in or a message.
const fn depends_on_origin(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectorMismatch
            | Reason::ConnectorRestricted
            | Reason::DirectSendRejected
            | Reason::EgressAddressBlocked
            | Reason::EgressAddressDeferred
            | Reason::Ipv6Refused
            | Reason::SenderDomainUnverified
    )
}

/// What was met, with what the upstream saw of us where it goes by that.
fn explained(reason: Reason, text: &str, connection: &Connection) -> String {
    if !depends_on_origin(reason) {
        return text.to_owned();
    }
    let from = connection.egress.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
    let shown = match &connection.certificate {
        Some(leaf) => format!("the {leaf}"),
        None => "no certificate".to_owned(),
    };
    format!("{text} (sent from {from} with {shown})")
}

/// What was met, for the operator: who was written to is not for it to know.
pub(super) fn redacted(met: Vec<Observation>, envelope: &Envelope) -> Vec<Observation> {
    let redacted = |it: Observation| Observation { text: redact::recipients(&it.text, envelope), ..it };
    met.into_iter().map(redacted).collect()
}

/// Adds what a verdict says about the route to what was met.
pub(super) fn noted(verdict: Verdict, observations: &mut Vec<Observation>) -> Verdict {
    if let Some(reason) = verdict.outcome.reason() {
        observations.push(Observation::new(reason, verdict.text.clone()));
    }
    verdict
}

/// The verdict when there is no connection, or none any more, before mail.
pub(super) fn lost(error: ConnectionError) -> Verdict {
    let text = error.to_string();
    match (error.reason(), error) {
        (_, ConnectionError::Refused { stage, reply }) => Verdict::of_reply(classify(stage, &reply), reply),
        (
            Some(
                reason @ (Reason::StartTlsMissing
                | Reason::TlsFailed
                | Reason::CaBundleMissing
                | Reason::LoginFailed),
            ),
            _,
        ) => Verdict::without_reply(DeliveryOutcome::RouteFault(reason), text),
        (reason, _) => Verdict::without_reply(DeliveryOutcome::Transient(reason), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::classify::Stage;
    use crate::smtp::reply::Reply;

    #[test]
    fn a_missing_starttls_is_a_fault_and_a_lost_connection_is_not() {
        let fault = lost(ConnectionError::StartTlsMissing("smtp.office365.com".into()));
        assert_eq!(fault.outcome, DeliveryOutcome::RouteFault(Reason::StartTlsMissing));
        let broken = lost(ConnectionError::Broken { stage: Stage::Ehlo, what: "reset".into() });
        assert_eq!(broken.outcome, DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError)));
    }

    #[test]
    fn only_a_plain_goodbye_is_answered_by_connecting_again() {
        let ended = |line: &str| {
            let reply = Reply::parse(line.as_bytes()).unwrap().unwrap().0;
            TransactionEnd::without(Verdict::of_reply(classify(Stage::Mail, &reply), reply))
        };
        assert!(is_farewell(&ended("421 4.4.2 Connection timed out\r\n")));
        assert!(!is_farewell(&ended("421 4.4.2 Message submission rate for this client has exceeded\r\n")));
        assert!(!is_farewell(&ended("421 4.3.2 Service not available\r\n")));
        assert!(!is_farewell(&ended("451 4.7.0 Temporary server error\r\n")));
    }

    #[tokio::test]
    async fn a_connector_that_does_not_match_is_told_what_it_saw() {
        let (connection, _peer) = crate::delivery::connection::tests::connection("mx").await;
        let refusal = "550 5.7.64 TenantAttribution; Relay Access Denied";
        assert_eq!(
            explained(Reason::ConnectorMismatch, refusal, &connection),
            format!("{refusal} (sent from 203.0.113.7 with no certificate)")
        );
        assert_eq!(explained(Reason::TenantBlocked, refusal, &connection), refusal);
    }

    #[tokio::test]
    async fn a_connection_tells_where_the_upstream_sees_us() {
        let (connection, _peer) = crate::delivery::connection::tests::connection("mx").await;
        assert_eq!(connected(&connection, "answered").egress, Some([203, 0, 113, 7].into()));
    }

    /// Hands out connections whose other ends nobody looks at.
    struct Silent;

    #[async_trait]
    impl Connect for Silent {
        async fn connect(&self, observations: &mut Vec<Observation>) -> Result<Connection, Verdict> {
            let (connection, peer) = crate::delivery::connection::tests::connection("mx").await;
            std::mem::forget(peer);
            observations.push(connected(&connection, "answered"));
            Ok(connection)
        }

        fn recognised(&self, _: &Connection) -> Option<Observation> {
            None
        }

        fn chunking(&self) -> Chunking {
            Chunking::Never
        }
    }

    impl TransportObserver for Silent {
        fn connected(&self, _: Protection) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_keeps_its_connection_and_finds_nothing_while_all_are_in_use() {
        let way = SmtpTransport::new(Silent, 1, Arc::new(Silent));
        assert!(way.probe().await.is_well());
        let slot = way.pool.slot().await.unwrap();
        assert!(way.pool.kept(&slot).is_some(), "the next message has it");
        let started = clock::now();
        assert!(way.probe().await.observations.is_empty());
        assert_eq!(started.elapsed(), PROBE_WAIT);
    }
}
