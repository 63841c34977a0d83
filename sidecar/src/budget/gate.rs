//! The budget as tasks share it: a ticket for each message, written down before the message may go.
//!
//! ```text
//!   take ──► budget (lock) ──► ledger (off the async threads) ──► Ticket ──► settle, or drop: counted in full
//! ```
//!
//! Owns the clock's conversion, the ledger's place and the order of those who wait: first come, first served. Where no
//! limit is known nothing is written. A ledger that cannot be written is logged and does not hold mail up: the count in
//! memory goes on, only a restart would forget it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::control::Usage;
use tokio::sync::Notify;

use super::ledger::{self, Ledger};
use super::restraint::Throttle;
use super::{Amount, Budget, Limits, Permit, Spans, Why};
use crate::clock::{self, Instant};

/// Whom it may concern, to count.
pub trait Observe: Send + Sync {
    /// A message has to wait.
    fn waits(&self, why: Why);

    /// The upstream found it too much.
    fn throttled(&self, what: Throttle);
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// When it is worth asking again, unless [`Gate::changed`] comes first.
    pub until: Instant,
    /// Why.
    pub why: Why,
}

/// The shared budget of the mailbox in use.
pub struct Gate {
    directory: PathBuf,
    spans: Spans,
    clock: Clock,
    account: Mutex<Arc<Account>>,
    observe: Arc<dyn Observe>,
    /// Those who wait, in order.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

/// One mailbox.
struct Account {
    subject: String,
    state: Mutex<State>,
    /// Locked before `state` where both are needed.
    ledger: Mutex<Option<Ledger>>,
}

struct State {
    budget: Budget,
    /// Lines for the ledger. Settlements wait here for the next message: until then the full amount stands.
    lines: String,
    last_accepted: Option<Instant>,
}

/// Time that outlives the process and does not run backwards in it.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    since_epoch: Duration,
}

impl Clock {
    fn new() -> Self {
        Self { start: clock::now(), since_epoch: clock::since_epoch() }
    }

    fn now(&self) -> Duration {
        self.since_epoch + self.start.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.start + at.saturating_sub(self.since_epoch)
    }
}

impl Gate {
    /// A gate without limits, until it follows a route. Ledgers are in `directory`.
    pub fn new(directory: &Path, spans: Spans, observe: Arc<dyn Observe>) -> Arc<Self> {
        let limits = Limits { messages: None, recipients: None, connections: 1 };
        Arc::new(Self {
            directory: directory.to_owned(),
            spans,
            clock: Clock::new(),
            account: Mutex::new(Arc::new(Account::new(String::new(), Budget::new(limits, spans)))),
            observe,
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Keeps to the limits of a route from now on; with what its mailbox has used already, by this process or before.
    pub async fn follow(self: &Arc<Self>, route: &RouteFile) {
        let subject = subject(route);
        let (limits, gate) = (Limits::from(&route.limits), Arc::clone(self));
        if tokio::task::spawn_blocking(move || gate.switch(subject, limits)).await.is_err() {
            tracing::error!("the budget could not be set up; the limits before stay in force");
        }
        self.changed.notify_waiters();
    }

    /// Asks for leave to send one message to so many recipients.
    ///
    /// # Errors
    /// Not now.
    pub async fn take(self: &Arc<Self>, recipients: u64) -> Result<Ticket, Denied> {
        self.ask(recipients).await.inspect_err(|denied| self.observe.waits(denied.why))
    }

    /// The same, waiting until `deadline` at most. Those who wait are served in the order in which they came.
    ///
    /// # Errors
    /// Not until then.
    pub async fn take_until(self: &Arc<Self>, recipients: u64, deadline: Instant) -> Result<Ticket, Denied> {
        let denied = match self.turn.try_lock() {
            Ok(_turn) => match self.ask(recipients).await {
                Ok(ticket) => return Ok(ticket),
                Err(denied) => denied,
            },
            Err(_) => Denied { until: clock::now(), why: Why::Pace },
        };
        self.observe.waits(denied.why);
        let mut last = denied;
        let waiting = self.wait_in_turn(recipients, deadline, &mut last);
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last),
        }
    }

    async fn wait_in_turn(
        self: &Arc<Self>,
        recipients: u64,
        deadline: Instant,
        last: &mut Denied,
    ) -> Result<Ticket, Denied> {
        let _turn = self.turn.lock().await;
        loop {
            let changed = self.changed.notified();
            match self.ask(recipients).await {
                Ok(ticket) => return Ok(ticket),
                Err(denied) if denied.until > deadline => return Err(denied),
                Err(denied) => *last = denied,
            }
            tokio::select! {
                () = tokio::time::sleep_until(last.until) => {}
                () = changed => {}
            }
        }
    }

    async fn ask(self: &Arc<Self>, recipients: u64) -> Result<Ticket, Denied> {
        let account = self.account();
        let mut ticket = {
            let (mut state, now) = (account.state(), self.clock.now());
            if state.budget.is_crowded(now) {
                // The end of another message comes first; this is for those who do not wait for it.
                let until = self.clock.instant(now + self.spans.minute / 20);
                return Err(Denied { until, why: Why::Restraint });
            }
            let permit = state.budget.request(now, Amount::message(recipients));
            let permit =
                permit.map_err(|wait| Denied { until: self.clock.instant(wait.until), why: wait.why })?;
            if !state.budget.is_limited() {
                drop(state);
                return Ok(Ticket::new(self, account, permit, true));
            }
            ledger::taken(permit.id(), permit.amount(), &mut state.lines);
            drop(state);
            Ticket::new(self, Arc::clone(&account), permit, false)
        };
        let now = self.clock.now();
        // Fails only when the program ends, and then nothing is sent.
        let _ = tokio::task::spawn_blocking(move || account.write(now)).await;
        ticket.out = true;
        Ok(ticket)
    }

    /// Completes at the next change that may let somebody go who was denied: a settlement, or other limits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Learns that the upstream found it too much.
    pub fn throttled(&self, what: Throttle) {
        self.account().state().budget.throttled(what, self.clock.now());
        self.observe.throttled(what);
    }

    /// How many connections may be used now.
    pub fn connections(&self) -> u32 {
        self.account().state().budget.connections(self.clock.now())
    }

    /// What counts against the limits now.
    pub fn usage(&self) -> Usage {
        self.account().state().budget.usage(self.clock.now())
    }

    /// How much of each limit is used, for metrics.
    pub fn view(&self) -> super::View {
        self.account().state().budget.view(self.clock.now())
    }

    /// When a message was accepted upstream last.
    pub fn last_accepted(&self) -> Option<Instant> {
        self.account().state().last_accepted
    }

    fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Blocks on the disk.
    fn switch(&self, subject: String, limits: Limits) {
        let now = self.clock.now();
        let current = self.account();
        let path = Ledger::path(&self.directory, &subject);
        let account = if current.subject == subject {
            current.state().budget.reconfigure(limits);
            current
        } else {
            let known = Ledger::read(&path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the budget cannot be read; counting starts anew");
                super::Snapshot::default()
            });
            Arc::new(Account::new(subject, Budget::restore(limits, self.spans, &known, now)))
        };
        account.keep(&path, now);
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account;
    }
}

impl Account {
    fn new(subject: String, budget: Budget) -> Self {
        let state = State { budget, lines: String::new(), last_accepted: None };
        Self { subject, state: Mutex::new(state), ledger: Mutex::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to be in the ledger now; lines that wait are part of it.
    fn snapshot(&self, now: Duration) -> super::Snapshot {
        let mut state = self.state();
        state.lines.clear();
        state.budget.snapshot(now)
    }

    /// Has a ledger when there are limits to keep, and none otherwise. Blocks on the disk.
    fn keep(&self, path: &Path, now: Duration) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = self.state().budget.is_limited();
        if !limited {
            *ledger = None;
        } else if ledger.is_none() {
            *ledger = Ledger::create(path, &self.snapshot(now)).map_err(|error| unwritten(&error)).ok();
        }
    }

    /// Writes the lines that wait. When another thread has taken them already, this waits until they are written.
    fn write(&self, now: Duration) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.state().lines);
        let Some(ledger) = ledger.as_mut() else { return };
        let outcome = if ledger.is_long() {
            ledger.renew(&self.snapshot(now)).or_else(|_| ledger.append(&lines))
        } else {
            ledger.append(&lines)
        };
        if let Err(error) = outcome {
            unwritten(&error);
        }
    }
}

fn unwritten(error: &std::io::Error) {
    tracing::warn!(%error, "the budget cannot be written down; a restart would forget what was sent");
}

/// Whose budget it is: the mailbox's, or the route's where the method has none.
fn subject(route: &RouteFile) -> String {
    let mailbox = route.method.mailbox().map(str::to_ascii_lowercase);
    mailbox.unwrap_or_else(|| format!("{}/{}", route.namespace, route.name))
}

/// Leave to send one message. Dropped without a word, it counts in full: nobody knows what the upstream saw.
#[derive(Debug)]
#[must_use = "a ticket that is dropped counts in full"]
pub struct Ticket {
    gate: Arc<Gate>,
    account: Arc<Account>,
    permit: Option<Permit>,
    /// Whether it was handed out. Before that, nothing was sent.
    out: bool,
}

impl Ticket {
    fn new(gate: &Arc<Gate>, account: Arc<Account>, permit: Permit, out: bool) -> Self {
        Self { gate: Arc::clone(gate), account, permit: Some(permit), out }
    }

    /// Gives the ticket back, with what the upstream counts of it, and whether it accepted the message.
    pub fn settle(mut self, used: Amount, accepted: bool) {
        if accepted {
            self.account.state().last_accepted = Some(clock::now());
        }
        self.end(used);
    }

    fn end(&mut self, used: Amount) {
        let Some(permit) = self.permit.take() else { return };
        let (now, id) = (self.gate.clock.now(), permit.id());
        let mut state = self.account.state();
        if state.budget.is_limited() {
            ledger::settled(id, now, used, &mut state.lines);
        }
        state.budget.settle(permit, now, used);
        drop(state);
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let full = self.permit.as_ref().map_or(Amount::NOTHING, Permit::amount);
        self.end(if self.out { full } else { Amount::NOTHING });
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config;

    #[derive(Default)]
    struct Seen {
        waits: AtomicUsize,
        throttles: AtomicUsize,
    }

    impl Observe for Seen {
        fn waits(&self, _: Why) {
            self.waits.fetch_add(1, Ordering::Relaxed);
        }

        fn throttled(&self, _: Throttle) {
            self.throttles.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn route(messages: Option<u32>, recipients: Option<u32>) -> RouteFile {
        let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        (route.limits.messages_per_minute, route.limits.recipients_per_day) = (messages, recipients);
        route
    }

    async fn gate(directory: &Path, route: &RouteFile) -> Arc<Gate> {
        let gate = Gate::new(directory, Spans::default(), Arc::new(Seen::default()));
        gate.follow(route).await;
        gate
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(600)
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_keeps_what_was_sent_and_what_may_have_been() {
        let folder = tempfile::tempdir().unwrap();
        let route = route(Some(30), Some(100));
        {
            let gate = gate(folder.path(), &route).await;
            gate.take(10).await.unwrap().settle(Amount::message(10), true);
            gate.take(20).await.unwrap().settle(Amount::NOTHING, false);
            // As if killed while it is sent: nothing runs any more, not even the drop.
            std::mem::forget(gate.take(30).await.unwrap());
        }
        let gate = gate(folder.path(), &route).await;
        assert_eq!(gate.usage(), Usage { messages_last_minute: 2, recipients_last_24h: 40 });
        assert_eq!(gate.take(61).await.unwrap_err().why, Why::Day);
        assert!(gate.take(60).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_settlement_that_was_not_written_down_is_taken_as_the_full_amount() {
        let folder = tempfile::tempdir().unwrap();
        let route = route(None, Some(100));
        gate(folder.path(), &route).await.take(20).await.unwrap().settle(Amount::NOTHING, false);
        assert_eq!(gate(folder.path(), &route).await.usage().recipients_last_24h, 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_ticket_counts_in_full() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(Some(30), Some(100))).await;
        drop(gate.take(7).await.unwrap());
        assert_eq!(gate.usage(), Usage { messages_last_minute: 1, recipients_last_24h: 7 });
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_served_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(Some(2), None)).await;
        let order = Arc::new(Mutex::new(vec![]));
        let waiting = (0..5).map(|n| {
            let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
            async move {
                let ticket = gate.take_until(1, soon()).await.unwrap();
                order.lock().unwrap().push(n);
                ticket.settle(Amount::message(1), true);
            }
        });
        let started = clock::now();
        futures::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
        assert!(started.elapsed() >= Duration::from_secs(120), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_back_wakes_the_first_who_waits() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(Some(1), None)).await;
        let ticket = gate.take(1).await.unwrap();
        let started = clock::now();
        let (taken, ()) =
            tokio::join!(gate.take_until(1, soon()), async { ticket.settle(Amount::NOTHING, false) });
        assert!(taken.is_ok());
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_served_in_time_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(Some(1), None)).await;
        gate.take(1).await.unwrap().settle(Amount::message(1), true);
        let started = clock::now();
        let denied = gate.take_until(1, started + Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(denied.why, Why::Minute);
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn other_limits_of_the_same_mailbox_keep_the_count_and_another_mailbox_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(Some(30), Some(100))).await;
        let under_way = gate.take(1).await.unwrap();
        gate.take(9).await.unwrap().settle(Amount::message(9), true);
        gate.follow(&route(Some(10), Some(20))).await;
        assert_eq!(gate.usage().recipients_last_24h, 9);

        let mut other = route(Some(30), Some(100));
        if let mailroute_route::file::Method::ClientSubmission(submission) = &mut other.method {
            submission.mailbox = "other@contoso.com".into();
        }
        gate.follow(&other).await;
        under_way.settle(Amount::message(1), true);
        assert_eq!(gate.usage().recipients_last_24h, 0, "it belongs to the mailbox before");
        gate.follow(&route(Some(30), Some(100))).await;
        assert_eq!(gate.usage().recipients_last_24h, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(folder.path(), &route(None, None)).await;
        gate.take(5).await.unwrap().settle(Amount::message(5), true);
        assert_eq!(gate.usage(), Usage { messages_last_minute: 1, recipients_last_24h: 5 });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_cannot_be_written_does_not_hold_mail_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let gate = gate(&file, &route(Some(30), Some(100))).await;
        gate.take(5).await.unwrap().settle(Amount::message(5), true);
        assert_eq!(gate.usage().recipients_last_24h, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_stays_short_however_much_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let route = route(Some(1_000_000), Some(1_000_000));
        let gate = gate(folder.path(), &route).await;
        for _ in 0..3000 {
            gate.take(2).await.unwrap().settle(Amount::message(2), true);
        }
        let ledger = Ledger::path(folder.path(), "noreply@contoso.com");
        assert!(std::fs::metadata(&ledger).unwrap().len() < 70_000);
        assert_eq!(gate.usage().recipients_last_24h, 6000);
        let again = Gate::new(folder.path(), Spans::default(), Arc::new(Seen::default()));
        again.follow(&route).await;
        assert_eq!(again.usage().recipients_last_24h, 6000);
    }

    #[tokio::test(start_paused = true)]
    async fn after_too_many_connections_fewer_are_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let mut route = route(Some(300), None);
        route.limits.connections = 3;
        let gate = gate(folder.path(), &route).await;
        let before = [gate.take(1).await.unwrap(), gate.take(1).await.unwrap()];
        gate.throttled(Throttle::Connections);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(gate.take(1).await.unwrap_err().why, Why::Restraint, "one is allowed, two are under way");
        drop(before);
        let one = gate.take(1).await.unwrap();
        let started = clock::now();
        let (next, ()) =
            tokio::join!(gate.take_until(1, soon()), async { one.settle(Amount::message(1), true) });
        assert!(next.is_ok());
        assert!(started.elapsed() < Duration::from_secs(2), "the end of one lets the next go");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_and_throttles_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Arc::new(Seen::default());
        let gate = Gate::new(folder.path(), Spans::default(), Arc::clone(&seen) as _);
        gate.follow(&route(Some(30), None)).await;
        gate.throttled(Throttle::Rate);
        assert_eq!(gate.take(1).await.unwrap_err().why, Why::Restraint);
        assert_eq!(seen.waits.load(Ordering::Relaxed), 1);
        assert_eq!(seen.throttles.load(Ordering::Relaxed), 1);
        assert!(gate.view().share < 1.0);
    }
}
