//! One attempt to deliver, with everything that belongs to it, for whoever makes it: the application's session that
//! waits, or the queue.
//!
//! Owns the leave to try (the breaker, what the mailbox may still send) and what is learned, counted and logged from the
//! attempt. Refuses to know who asks and what becomes of a message that was not delivered.
//!
//! Invariant: nothing is sent without a [`Leave`], and each leave is for one transaction.

mod log;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::Usage;
use tokio::sync::watch;

use crate::body::Body;
use crate::breaker::offences::Message;
use crate::breaker::{Breaker, author};
use crate::budget::gate::{Denied, Gate, Ticket};
use crate::budget::{Amount, Spans, Why};
use crate::clock::{self, Instant};
use crate::delivery::Deliver;
use crate::delivery::effect::{Fate, effect, used};
use crate::delivery::outcome::{Attempt, Met, Outcome, Partial, Probe, Verdict};
use crate::envelope::Envelope;
use crate::health::Board;
use crate::metrics::Metrics;
use crate::probe::Traffic;

/// How long a look at the way waits for a connection of the mailbox. Longer, and the mail of the others tells as much.
const ADMISSION: Duration = Duration::from_secs(300);

/// How long a message that has just come waits for a lease before it is kept.
const MOMENT: Duration = Duration::from_secs(2);

/// A route and the way out that it describes.
pub struct Active {
    /// The route.
    pub route: Arc<RouteFile>,
    /// The way out.
    pub deliver: Arc<dyn Deliver>,
}

/// Who makes an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application waits.
    Live,
    /// From the queue, the so-manieth attempt.
    Queue(u32),
    /// The same, because a person asked for it: what is known from before is no reason not to try.
    ByHand(u32),
}

/// Whether mail is known to get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Nothing is known to be wrong.
    Open,
    /// The last that was heard is trouble of the whole route.
    Shut,
}

/// Makes attempts, one route for all.
pub struct Dispatch {
    active: watch::Receiver<Option<Arc<Active>>>,
    breaker: Mutex<Breaker>,
    budget: Arc<Gate>,
    passage: watch::Sender<Passage>,
    /// The queue waits for the mailbox's limits: who comes now goes behind it.
    queue_waits: AtomicBool,
    /// Messages that got through since the start.
    delivered: AtomicU64,
    board: Board,
    metrics: Arc<Metrics>,
}

/// Leave to make one attempt, now.
pub struct Leave {
    active: Arc<Active>,
    ticket: Ticket,
}

impl Leave {
    /// The route to try.
    pub fn route(&self) -> &RouteFile {
        &self.active.route
    }

    /// Gives it back: nothing is sent.
    pub fn unused(self) {
        self.ticket.settle(Amount::NOTHING, false);
    }
}

/// No leave for now.
#[derive(Clone, Debug)]
pub struct Held {
    /// Why, as if it had been tried.
    pub verdict: Verdict,
    /// When to ask again. It may be worth it sooner when [`Dispatch::passage`] changes.
    pub until: Instant,
    /// It is the mailbox's limits that it waits for.
    pub limits: bool,
}

impl Dispatch {
    /// For whatever route is `active`. What the mailbox has sent is written down in `directory` and counted over
    /// `spans`; `pause` is the breaker's unit.
    pub fn new(
        active: watch::Receiver<Option<Arc<Active>>>,
        board: Board,
        metrics: Arc<Metrics>,
        directory: &Path,
        (spans, pause): (Spans, Duration),
    ) -> Arc<Self> {
        Arc::new(Self {
            active,
            breaker: Mutex::new(Breaker::new(pause)),
            budget: Gate::new(directory, spans, Arc::clone(&metrics) as _),
            passage: watch::Sender::new(Passage::Open),
            queue_waits: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            board,
            metrics,
        })
    }

    /// The route in use.
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active.borrow().clone()
    }

    /// Sees the route in use change.
    pub fn routes(&self) -> watch::Receiver<Option<Arc<Active>>> {
        self.active.clone()
    }

    /// Sees the way open and shut.
    pub fn passage(&self) -> watch::Receiver<Passage> {
        self.passage.subscribe()
    }

    /// How many messages have got through since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The mailbox's limits and what is left of them.
    pub const fn budget(&self) -> &Arc<Gate> {
        &self.budget
    }

    /// What was sent so far.
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }

    /// Keeps to the limits of `route` from now on. Before it is in use.
    pub async fn follow(&self, route: &RouteFile) {
        self.budget.follow(route).await;
    }

    /// Starts anew with another configuration.
    pub fn reset(&self) {
        self.breaker().close();
        self.board.reset();
        self.notice(Passage::Open);
    }

    /// Leave to send one message of the route `active` to so many recipients.
    ///
    /// # Errors
    /// While the route is known not to work, or the mailbox may not send more.
    pub async fn leave(&self, active: &Arc<Active>, recipients: u64) -> Result<Leave, Held> {
        self.known_fault()?;
        let ticket = self.budget.take(recipients).await.map_err(|denied| self.beyond_limits(denied))?;
        Ok(Leave { active: Arc::clone(active), ticket })
    }

    /// The same for a message that has just come: it does not overtake what has been waiting for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Dispatch::leave`], and while the queue waits for the limits. A lease that has to be asked for first is waited for
    /// a moment: usually it is there at once.
    pub async fn leave_for_new(&self, active: &Arc<Active>, recipients: u64) -> Result<Leave, Held> {
        if self.queue_waits.load(Ordering::Relaxed) {
            let text = "messages that came earlier wait for the limits of the mailbox";
            let verdict = Verdict::without_reply(Outcome::Quota(Reason::RateExceeded), text);
            return Err(Held { verdict, until: clock::now(), limits: true });
        }
        self.known_fault()?;
        let ticket = match self.budget.take(recipients).await {
            Err(denied) if denied.why == Why::Lease => {
                self.budget.take_until(recipients, clock::now() + MOMENT).await
            }
            outcome => outcome,
        };
        let ticket = ticket.map_err(|denied| self.beyond_limits(denied))?;
        Ok(Leave { active: Arc::clone(active), ticket })
    }

    /// The same for somebody who can wait until `deadline` for the mailbox's limits.
    ///
    /// # Errors
    /// As [`Dispatch::leave`], at `deadline` at the latest.
    pub async fn leave_until(
        &self,
        active: &Arc<Active>,
        recipients: u64,
        deadline: Instant,
    ) -> Result<Leave, Held> {
        self.known_fault()?;
        let ticket = self.budget.take_until(recipients, deadline).await;
        let ticket = ticket.map_err(|denied| self.beyond_limits(denied))?;
        let leave = Leave { active: Arc::clone(active), ticket };
        // It may have turned out meanwhile.
        match self.known_fault() {
            Ok(()) => Ok(leave),
            Err(held) => {
                leave.unused();
                Err(held)
            }
        }
    }

    fn known_fault(&self) -> Result<(), Held> {
        let now = clock::now();
        let breaker = self.breaker();
        match (breaker.blocks(now), breaker.until()) {
            (Some(verdict), Some(until)) => Err(Held { verdict: verdict.clone(), until, limits: false }),
            _ => Ok(()),
        }
    }

    /// What is told when the budget says no. A day that is used up is trouble that people should see, though Microsoft
    /// was not asked; the smoothing of a burst is none.
    fn beyond_limits(&self, denied: Denied) -> Held {
        let text = format!("the mailbox's limits are used up for now ({})", denied.why.as_str());
        if denied.why == Why::Day {
            self.board.record(&[Met::new(Reason::DailyQuotaExceeded, text.clone())]);
        }
        let reason = denied.why.reason().unwrap_or(Reason::RateExceeded);
        let verdict = Verdict::without_reply(Outcome::Quota(reason), text);
        Held { verdict, until: denied.until, limits: true }
    }

    /// Says whether the queue waits for the mailbox's limits.
    pub fn queue_waits(&self, waits: bool) {
        self.queue_waits.store(waits, Ordering::Relaxed);
    }

    /// Makes one attempt, cut off after `patience` where somebody waits for it. Dropped, it leaves the fate of the
    /// message unknown.
    pub async fn attempt(
        &self,
        leave: Leave,
        envelope: &Envelope,
        body: &Body,
        partial: Partial,
        (origin, patience): (Origin, Option<Duration>),
    ) -> Attempt {
        let started = clock::now();
        let author = self.author(body).await;
        let (mailbox, recipients) =
            (leave.active.route.method.mailbox().map(str::to_owned), &envelope.recipients);
        let (mailbox, reverse_path) = (mailbox.as_deref(), envelope.reverse_path.address());
        let mut message = Message { mailbox, reverse_path, author: author.as_deref(), recipients };
        let foreseen = self.breaker().foresees(&message, clock::now());
        if let Some(attempt) = foreseen.filter(|_| !matches!(origin, Origin::ByHand(_))) {
            return self.spared(leave, envelope, body, attempt, origin);
        }
        // Fewer for a while after Exchange counted too many.
        leave.active.deliver.resize(usize::try_from(self.budget.connections()).unwrap_or(usize::MAX));
        let delivery = leave.active.deliver.deliver(envelope, body, partial);
        let impatience = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        let attempt = tokio::select! {
            biased;
            attempt = delivery => attempt,
            () = impatience => cut_off(&format!("no verdict from the upstream within {} seconds", patience.unwrap_or_default().as_secs())),
            () = self.budget.overdue(&leave.ticket) => cut_off("the operator that shares out the mailbox's limits was not reached for too long"),
        };
        let took = started.elapsed();
        // Read only where it matters: at the first refusal that may be about it.
        let denied = attempt.verdict.outcome == Outcome::RejectMessage(Some(Reason::SendAsDenied));
        let late = if denied && author.is_none() { author::of(body).await } else { None };
        message.author = author.as_deref().or(late.as_deref());
        self.learn(&attempt, &message, body, took);
        log::attempt(&leave.active.route, envelope, body, &attempt, (origin, took));
        let delivered = attempt.verdict.outcome == Outcome::Delivered;
        leave.ticket.settle(used(&attempt, recipients.len() as u64), delivered);
        attempt
    }

    /// Whom the message says it is from, while that makes a difference.
    async fn author(&self, body: &Body) -> Option<String> {
        let matters = self.breaker().watches_authors();
        if matters { author::of(body).await } else { None }
    }

    /// An attempt that is not made, since what will come of it is known.
    fn spared(
        &self,
        leave: Leave,
        envelope: &Envelope,
        body: &Body,
        attempt: Attempt,
        origin: Origin,
    ) -> Attempt {
        self.board.record(&attempt.met);
        self.metrics.failed_fast();
        log::attempt(&leave.active.route, envelope, body, &attempt, (origin, Duration::ZERO));
        leave.unused();
        attempt
    }

    fn learn(&self, attempt: &Attempt, message: &Message<'_>, body: &Body, took: Duration) {
        let (outcome, now) = (attempt.verdict.outcome, clock::now());
        {
            let mut breaker = self.breaker();
            breaker.learn(&attempt.verdict, now);
            breaker.learn_message(message, attempt, now);
        }
        self.board.record(&attempt.met);
        self.metrics.attempted(attempt, accepted(attempt, message.recipients.len()), body.len(), took);
        if outcome == Outcome::Delivered {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(throttle) = effect(outcome).throttle {
            self.budget.throttled(throttle);
        }
        self.notice(if concerns_the_route(outcome) { Passage::Shut } else { Passage::Open });
    }

    /// The way, as it was met last.
    fn notice(&self, met: Passage) {
        self.passage.send_if_modified(|passage| std::mem::replace(passage, met) != met);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Traffic for Dispatch {
    async fn admit(&self) -> Option<Ticket> {
        self.budget.admit(ADMISSION).await
    }

    fn probed(&self, probe: &Probe) {
        self.metrics.probed(probe.is_well());
        self.breaker().learn_met(&probe.met);
        if probe.is_well() {
            self.notice(Passage::Open);
        }
        log::probe(probe);
    }

    fn last_delivery(&self) -> Option<Instant> {
        self.budget.last_accepted()
    }
}

/// Whether an outcome says that no message of the route gets through now, rather than something about this one.
pub fn concerns_the_route(outcome: Outcome) -> bool {
    match outcome {
        _ if effect(outcome).fate == Fate::Hold => true,
        // What stands between here and the log-in. A connection that broke in a message may be that message's fault.
        Outcome::Transient(Some(reason)) => {
            reason != Reason::UpstreamProtocolError && reason.condition() != ConditionType::SendersAccepted
        }
        _ => false,
    }
}

/// How many recipients the upstream took the message for.
fn accepted(attempt: &Attempt, recipients: usize) -> u64 {
    let delivered = (0..recipients).filter(|at| attempt.fate(*at).outcome == Outcome::Delivered);
    delivered.count() as u64
}

/// The attempt that was cut off. Its connection ended with it, so it goes no further.
fn cut_off(why: &str) -> Attempt {
    let text = format!("{why}; whether the message was accepted is unknown");
    let reason = Reason::UpstreamUnavailable;
    let met = vec![Met::new(reason, text.clone())];
    let verdict = Verdict::without_reply(Outcome::Transient(Some(reason)), text);
    Attempt { verdict, refused: vec![], met, host: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::outcome::Refused;
    use crate::smtp::reply::Reply;

    fn attempt(outcome: Outcome, line: Option<&str>) -> Attempt {
        let verdict = match line {
            Some(line) => {
                let reply = Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0;
                Verdict::of_reply(outcome, reply)
            }
            None => Verdict::without_reply(outcome, ""),
        };
        Attempt { verdict, refused: vec![], met: vec![], host: None }
    }

    #[test]
    fn trouble_on_the_way_to_mail_concerns_the_route_and_a_broken_message_does_not() {
        for outcome in [
            Outcome::RouteFault(Reason::LoginFailed),
            Outcome::Quota(Reason::DailyQuotaExceeded),
            Outcome::Transient(Some(Reason::ConnectFailed)),
            Outcome::Transient(Some(Reason::TokenServiceThrottled)),
        ] {
            assert!(concerns_the_route(outcome), "{outcome:?}");
        }
        for outcome in [
            Outcome::Delivered,
            Outcome::RejectRecipient,
            Outcome::Transient(None),
            Outcome::Transient(Some(Reason::UpstreamProtocolError)),
        ] {
            assert!(!concerns_the_route(outcome), "{outcome:?}");
        }
    }

    #[test]
    fn recipients_that_were_refused_do_not_count() {
        let mut partial = attempt(Outcome::Delivered, Some("250 2.0.0 OK"));
        let verdict = attempt(Outcome::RejectRecipient, Some("550 5.1.1 unknown")).verdict;
        partial.refused.push(Refused { recipient: 1, verdict });
        assert_eq!(accepted(&partial, 3), 2);
    }
}
