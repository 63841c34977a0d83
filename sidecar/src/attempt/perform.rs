//! Making one attempt: cut off when it takes too long, and what it teaches passed on to all who learn from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::file::Method;

use super::rejection_cache::MessageParties;
use super::{Active, Attempts, NoPermit, RouteState, author, log};
use crate::budget::limiter::SendPermit;
use crate::clock;
use crate::logging::faults::{self, Due};
use crate::message::body::Body;
use crate::message::envelope::Envelope;
use crate::outcome::effect::{concerns_route, effect, used};
use crate::outcome::{AttemptResult, DeliveryOutcome, Observation, PartialDelivery, Verdict};
use crate::smtp::rule_action::RuleAction;

/// Who makes an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application waits.
    Live,
    /// The queue; the attempt's number.
    Queue(u32),
    /// The queue, because a person asked for it: what is known from before is no reason not to try.
    Command(u32),
}

/// One attempt to be made: what is sent to whom, and for whom.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// From whom to whom.
    pub envelope: &'a Envelope,
    /// What is sent.
    pub body: &'a Body,
    /// What happens when some recipients are refused.
    pub partial: PartialDelivery,
    /// Who makes it.
    pub origin: Origin,
    /// How long whoever makes it can wait; nothing for as long as it takes.
    pub timeout: Option<Duration>,
}

impl Attempts {
    /// Makes one attempt by the route `active`. Dropped, it leaves the fate of the message unknown.
    pub async fn make(&self, active: &Active, permit: SendPermit, attempt: Attempt<'_>) -> AttemptResult {
        let Attempt { envelope, body, partial, origin, timeout } = attempt;
        let started = clock::now();
        let author = if self.breaker().watches_authors() { author::of(body).await } else { None };
        let mut parties = MessageParties {
            mailbox: active.route.method.mailbox(),
            reverse_path: match active.route.method {
                // Graph never sees the envelope's.
                Method::Graph(_) => None,
                _ => envelope.reverse_path.address(),
            },
            author: author.as_deref(),
            recipients: envelope.own_recipients(),
        };
        let foreseen = self.breaker().foresees(&parties, clock::now());
        if let Some(result) = foreseen.filter(|_| !matches!(origin, Origin::Command(_))) {
            return self.untried(active, permit, &attempt, result);
        }
        // Fewer for a while after Exchange counted too many.
        active.transport.resize(usize::try_from(self.budget.connections()).unwrap_or(usize::MAX));
        // Until what was met is learned, so that whoever waits for the connection knows it.
        let mut held = None;
        let delivery = async {
            let slot = match active.transport.slot(envelope, body).await {
                Ok(slot) => held.insert(slot),
                Err(verdict) => return Ok(without_connection(verdict)),
            };
            match self.obstruction() {
                Some(met) => Err(met),
                None => Ok(active.transport.deliver(slot, envelope, body, partial).await),
            }
        };
        let result = match self.cut_short(delivery, &active.route.method, &permit, timeout).await {
            Ok(result) => result,
            Err(met) => return self.untried(active, permit, &attempt, without_connection(met.verdict())),
        };
        let took = started.elapsed();
        // Read only where it matters: at the first refusal that may be about it.
        let late = if is_refused(&result) && author.is_none() { author::of(body).await } else { None };
        parties.author = author.as_deref().or(late.as_deref());
        self.learn(&result, &parties, attempt, took);
        self.note_archive(&result, envelope, partial);
        let due = self.fault_line(result.verdict.outcome);
        log::attempt(&active.route, &attempt, &result, took, due);
        let delivered = result.verdict.outcome == DeliveryOutcome::Delivered;
        permit.settle(used(&result, envelope.recipients.len() as u64), delivered);
        result
    }

    /// Counts and logs an archive copy that the upstream has refused, where nobody else tells: the application is not told.
    fn note_archive(&self, result: &AttemptResult, envelope: &Envelope, partial: PartialDelivery) {
        let Some(at) = envelope.archive_position() else { return };
        let Some(refused) = result.refused.iter().find(|refused| refused.recipient == at) else { return };
        let is_sent = result.verdict.outcome == DeliveryOutcome::Delivered || envelope.recipients.len() == 1;
        // Without a queue it is not tried again.
        if is_sent && (refused.verdict.is_final() || partial == PartialDelivery::Never) {
            self.metrics.rule_applied(RuleAction::ArchiveRefused, 1);
            let (id, to) = (&envelope.id, &envelope.recipients[at]);
            tracing::error!(queue_id = %id, archive = %to, reply = refused.verdict.text, "the archive copy was refused");
        }
    }

    /// What comes of a message that is not tried, because what was met before says enough. Nothing is learned from it.
    fn untried(
        &self,
        active: &Active,
        permit: SendPermit,
        attempt: &Attempt<'_>,
        result: AttemptResult,
    ) -> AttemptResult {
        self.health.record(&result.observations);
        self.metrics.failed_fast();
        log::attempt(&active.route, attempt, &result, Duration::ZERO, None);
        permit.unused();
        result
    }

    /// What comes of a delivery that ends when nobody waits for it any longer, or the permit for it is over.
    async fn cut_short(
        &self,
        delivery: impl Future<Output = Result<AttemptResult, NoPermit>>,
        method: &Method,
        permit: &SendPermit,
        timeout: Option<Duration>,
    ) -> Result<AttemptResult, NoPermit> {
        let timed_out = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = delivery => result,
            () = timed_out => Ok(cut_off(method, &format!("no verdict from the upstream within {} seconds", timeout.unwrap_or_default().as_secs()))),
            () = self.budget.overdue(permit) => Ok(cut_off(method, "the operator that shares out the mailbox's limits was not reached for too long")),
        }
    }

    /// Whether it is time to write of the fault that this outcome tells, and that others are over where it tells none.
    fn fault_line(&self, outcome: DeliveryOutcome) -> Option<Due> {
        let (mut faults, now) = (self.faults(), clock::now());
        match outcome.reason().filter(|_| concerns_route(outcome)) {
            Some(reason) => faults.met(reason, now),
            None if outcome == DeliveryOutcome::Delivered => {
                faults::write(faults.works(now));
                None
            }
            None => None,
        }
    }

    fn learn(
        &self,
        result: &AttemptResult,
        parties: &MessageParties<'_>,
        attempt: Attempt<'_>,
        took: Duration,
    ) {
        let (outcome, now) = (result.verdict.outcome, clock::now());
        {
            let mut breaker = self.breaker();
            breaker.learn(&result.verdict, now);
            breaker.learn_message(parties, result, now);
        }
        self.health.record(&result.observations);
        let accepted = accepted(result, attempt.envelope.recipients.len());
        self.metrics.attempted(result, accepted, attempt.body.len(), took);
        if outcome == DeliveryOutcome::Delivered {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(throttle) = effect(outcome).throttle {
            self.budget.throttled(throttle);
        }
        self.notice(if concerns_route(outcome) { RouteState::Blocked } else { RouteState::Open });
    }
}

/// Whether the sender or a recipient was refused for good.
fn is_refused(attempt: &AttemptResult) -> bool {
    let refused = attempt.refused.iter().map(|refused| refused.verdict.outcome);
    refused.chain([attempt.verdict.outcome]).any(|outcome| {
        matches!(
            outcome,
            DeliveryOutcome::RejectRecipient | DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied))
        )
    })
}

/// How many recipients the upstream took the message for.
fn accepted(attempt: &AttemptResult, recipients: usize) -> u64 {
    let delivered =
        (0..recipients).filter(|at| attempt.verdict_for(*at).outcome == DeliveryOutcome::Delivered);
    delivered.count() as u64
}

/// The attempt that ended before there was a connection.
fn without_connection(verdict: Verdict) -> AttemptResult {
    AttemptResult { verdict, refused: vec![], observations: vec![], host: None }
}

/// The attempt that was cut off. Its connection ended with it, so by SMTP it goes no further. Graph may go on with a request that
/// it has.
fn cut_off(method: &Method, why: &str) -> AttemptResult {
    let text = format!("{why}; whether the message was accepted is unknown");
    let reason = match method {
        Method::Graph(_) => Reason::GraphResultUnknown,
        _ => Reason::UpstreamUnavailable,
    };
    let observations = vec![Observation::new(reason, text.clone())];
    let verdict = Verdict::without_reply(DeliveryOutcome::Transient(Some(reason)), text);
    AttemptResult { verdict, refused: vec![], observations, host: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use mailroute_quota::Timing;
    use tokio::sync::watch;

    use super::*;
    use crate::config;
    use crate::delivery::connection::Connection;
    use crate::delivery::pool::{Pool, Slot};
    use crate::delivery::{DryRun, Transport};
    use crate::message::envelope::{Address, BodyType, QueueId, ReversePath};
    use crate::metrics::Metrics;
    use crate::outcome::health::SharedHealth;
    use crate::outcome::{Probe, RefusedRecipient};

    /// One connection, on which everything is throttled.
    struct Throttling {
        pool: Pool<Connection>,
        tried: AtomicUsize,
    }

    #[async_trait]
    impl Transport for Throttling {
        async fn slot(&self, _: &Envelope, _: &Body) -> Result<Slot<'_>, Verdict> {
            Ok(self.pool.slot().await.unwrap())
        }

        async fn deliver(&self, _: &Slot<'_>, _: &Envelope, _: &Body, _: PartialDelivery) -> AttemptResult {
            self.tried.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let text = "421 4.4.2 Message submission rate for this client has exceeded the configured limit";
            let outcome = DeliveryOutcome::Quota(Reason::RateExceeded);
            without_connection(Verdict::without_reply(outcome, text))
        }

        async fn probe(&self) -> Probe {
            Probe { observations: vec![] }
        }

        async fn dry_run(&self, _: &Envelope, _: &mut DryRun) {}

        async fn tend(&self, _: watch::Receiver<bool>) {}
    }

    #[tokio::test]
    async fn who_waits_for_a_connection_when_the_mailbox_is_throttled_is_not_tried() {
        let directory = tempfile::tempdir().unwrap();
        let (metrics, (_active, active)) = (Arc::new(Metrics::new().unwrap()), watch::channel(None));
        let (quota, pause) = (Timing::default(), Duration::from_secs(1));
        let attempts = Attempts::new(
            active,
            SharedHealth::default(),
            Arc::clone(&metrics),
            directory.path(),
            quota,
            pause,
        );
        let throttling = Arc::new(Throttling { pool: Pool::new(1), tried: AtomicUsize::new(0) });
        let route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        let active = Active { route: Arc::new(route), transport: Arc::clone(&throttling) as _ };
        let envelope = Envelope {
            id: QueueId::new(clock::timestamp(), 1),
            message_id: "<1@contoso.com>".into(),
            client_name: "app".into(),
            reverse_path: ReversePath::Null,
            recipients: vec![Address::parse("ann@fabrikam.com").unwrap()],
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
            archive: None,
            mailbox: None,
        };
        let body = Body::new("", "Subject: x\r\n\r\n");
        let made = (0..10).map(|_| async {
            let permit = attempts.permit(1).await.unwrap();
            tokio::task::yield_now().await;
            let (partial, origin) = (PartialDelivery::Always, Origin::Queue(1));
            let attempt = Attempt { envelope: &envelope, body: &body, partial, origin, timeout: None };
            attempts.make(&active, permit, attempt).await.verdict.outcome
        });
        let outcomes = futures::future::join_all(made).await;
        assert_eq!(outcomes, [DeliveryOutcome::Quota(Reason::RateExceeded); 10]);
        assert_eq!(throttling.tried.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_fault_that_is_met_again_with_another_configuration_has_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let (metrics, (_active, active)) = (Metrics::new().unwrap().into(), watch::channel(None));
        let (quota, pause) = (Timing::default(), Duration::from_secs(1));
        let attempts =
            Attempts::new(active, SharedHealth::default(), metrics, directory.path(), quota, pause);
        let fault = DeliveryOutcome::RouteFault(Reason::MailboxFull);
        assert!(attempts.fault_line(fault).is_some() && attempts.fault_line(fault).is_none());
        attempts.reset();
        assert!(attempts.fault_line(fault).is_some());
    }

    #[test]
    fn recipients_that_were_refused_do_not_count() {
        let verdict = |outcome| Verdict::without_reply(outcome, "");
        let refused =
            vec![RefusedRecipient { recipient: 1, verdict: verdict(DeliveryOutcome::RejectRecipient) }];
        let partial = AttemptResult {
            verdict: verdict(DeliveryOutcome::Delivered),
            refused,
            observations: vec![],
            host: None,
        };
        assert_eq!(accepted(&partial, 3), 2);
    }
}
