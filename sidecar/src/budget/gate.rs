//! The budget as tasks share it: a ticket for each message, written down before the message may go.
//!
//! ```text
//!   take ──► budget (lock) ──► ledger (off the async threads) ──► Ticket ──► settle, or drop: counted in full
//! ```
//!
//! Owns the clock's conversion, the ledger's place and the order of those who wait: first come, first served. Where the
//! operator leases the mailbox's limits, a ticket also needs a lease, and whoever exchanges words with the operator asks here
//! what to say ([`Gate::claim`]) and brings the answer. Where no limit is known nothing is written. A ledger that cannot be written is logged and does not hold mail up: the count in
//! memory goes on, only a restart would forget it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::control::{Allotment, Claim, Throttled, Usage};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::holding::{Holding, Source};
use super::ledger::{self, Ledger};
use super::memory;
use super::restraint::Throttle;
use super::{Amount, Budget, Limits, Permit, Spans, Wait, Why};
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
    /// There is something to say to the operator.
    news: Notify,
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
    /// What the operator leases; nothing where it does not.
    holding: Option<Holding>,
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
            news: Notify::new(),
        })
    }

    /// Keeps to the limits of a route from now on; with what its mailbox has used already, by this process or before.
    pub async fn follow(self: &Arc<Self>, route: &RouteFile) {
        let subject = subject(route);
        let (limits, gate) = (Limits::from(&route.limits), Arc::clone(self));
        let leased = route.control.as_ref().is_some_and(|control| control.leases);
        let switch = move || gate.switch(subject, limits, leased);
        if tokio::task::spawn_blocking(switch).await.is_err() {
            tracing::error!("the budget could not be set up; the limits before stay in force");
        }
        self.changed.notify_waiters();
        self.news.notify_one();
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
            let amount = Amount::message(recipients);
            let until = |wait: Wait| Denied { until: self.clock.instant(wait.until), why: wait.why };
            state.budget.may(now, amount).map_err(until)?;
            if let Some(holding) = &mut state.holding {
                holding.may(now, amount).map_err(until).inspect_err(|_| self.news.notify_one())?;
            }
            let permit = state.budget.request(now, amount).map_err(until)?;
            let source = state.holding.as_mut().and_then(|holding| holding.take(now, amount));
            if !state.budget.is_limited() {
                drop(state);
                return Ok(Ticket::new(self, account, Some(permit), source, true));
            }
            ledger::taken(permit.id(), permit.amount(), &mut state.lines);
            drop(state);
            Ticket::new(self, Arc::clone(&account), Some(permit), source, false)
        };
        let now = self.clock.now();
        // Fails only when the program ends, and then nothing is sent.
        let written = Arc::clone(&account);
        let _ = tokio::task::spawn_blocking(move || written.write(now)).await;
        if matches!(ticket.source, Some(Source::Turn(_))) {
            self.remember(account).await;
        }
        ticket.out = true;
        Ok(ticket)
    }

    /// Completes at the next change that may let somebody go who was denied: a settlement, a lease, or other limits. Counts
    /// from this call on.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Leave to look at the way without a message, which takes one of the mailbox's connections. Without any word from the
    /// operator it is given after a while: then it is the look that matters. None within `patience` while others send.
    pub async fn admit(self: &Arc<Self>, patience: Duration) -> Option<Ticket> {
        let deadline = clock::now() + patience;
        loop {
            let changed = self.changed();
            let account = self.account();
            let until = {
                let (mut state, now) = (account.state(), self.clock.now());
                let Some(holding) = &mut state.holding else {
                    drop(state);
                    return Some(Ticket::new(self, account, None, None, true));
                };
                let may = holding.may(now, Amount::NOTHING);
                let source = holding.take(now, Amount::NOTHING);
                if may.is_ok() || holding.is_cut_off(now) {
                    drop(state);
                    return Some(Ticket::new(self, account, None, source, true));
                }
                self.news.notify_one();
                self.clock.instant(now + self.spans.minute / 20)
            };
            if clock::now() >= deadline {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(deadline)) => {}
                () = changed => {}
            }
        }
    }

    /// What to say to the operator now about leases, and when it was said; nothing where it leases none.
    pub fn claim(&self) -> Option<(Claim, Duration)> {
        let account = self.account();
        let (mut state, now) = (account.state(), self.clock.now());
        let claim = Claim { mailbox: account.subject.clone(), ..state.holding.as_mut()?.claim(now) };
        drop(state);
        Some((claim, now))
    }

    /// The operator has answered what was said at `sent`.
    pub async fn answered(self: &Arc<Self>, sent: Duration, allotment: &Allotment) {
        let account = self.account();
        if let Some(holding) = &mut account.state().holding {
            holding.answered(sent, self.clock.now(), allotment);
        }
        self.remember(account).await;
        self.changed.notify_waiters();
    }

    /// The operator was not reached; it will be tried again after `pause`.
    pub fn unanswered(&self, pause: Duration) {
        let now = self.clock.now();
        if let Some(holding) = &mut self.account().state().holding {
            holding.unanswered(now + pause);
        }
    }

    /// Whether anybody waits for a lease.
    pub fn is_wanting(&self) -> bool {
        let now = self.clock.now();
        self.account().state().holding.as_ref().is_some_and(|holding| holding.is_wanted(now))
    }

    /// Completes when it is time to speak to the operator about leases; never where there are none.
    pub async fn due(&self) {
        loop {
            let news = self.news.notified();
            let now = self.clock.now();
            let due = self.account().state().holding.as_mut().map(|holding| holding.due(now));
            match due {
                None => news.await,
                Some(due) if due <= now => return,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.instant(due)) => {}
                    () = news => {}
                },
            }
        }
    }

    /// Completes when what is sent by this ticket has to be cut off: the operator was not reached for so long that it counts on
    /// nothing being under way.
    pub async fn overdue(&self, ticket: &Ticket) {
        let Some(source) = ticket.source else { return std::future::pending().await };
        loop {
            let now = self.clock.now();
            let cut = ticket.account.state().holding.as_ref().map(|holding| holding.cut_at(source));
            match cut {
                None => return std::future::pending().await,
                Some(cut) if cut <= now => return,
                Some(cut) => tokio::time::sleep_until(self.clock.instant(cut)).await,
            }
        }
    }

    /// Writes down what of the leases has to outlive the process, when it has changed.
    async fn remember(&self, account: Arc<Account>) {
        let now = self.clock.now();
        let changed = account.state().holding.as_mut().and_then(|holding| holding.memory(now));
        if let Some(memory) = changed {
            let path = memory::path(&self.directory, &account.subject);
            // Fails only when the program ends.
            let _ = tokio::task::spawn_blocking(move || memory::write(&path, &memory)).await;
        }
    }

    /// Learns that the upstream found it too much.
    pub fn throttled(&self, what: Throttle) {
        {
            let account = self.account();
            let mut state = account.state();
            state.budget.throttled(what, self.clock.now());
            if let Some(holding) = &mut state.holding {
                holding.throttled(match what {
                    Throttle::Rate => Throttled::Rate,
                    Throttle::Connections => Throttled::Connections,
                });
            }
        }
        self.news.notify_one();
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
    fn switch(&self, subject: String, limits: Limits, leased: bool) {
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
        account.lease(leased, &memory::path(&self.directory, &account.subject), self.spans, now);
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account;
    }
}

impl Account {
    fn new(subject: String, budget: Budget) -> Self {
        let state = State { budget, holding: None, lines: String::new(), last_accepted: None };
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

    /// Needs leases from now on, or does not. Blocks on the disk.
    fn lease(&self, leased: bool, path: &Path, spans: Spans, now: Duration) {
        let is_leased = self.state().holding.is_some();
        if !leased {
            self.state().holding = None;
        } else if !is_leased {
            let mut holding = Holding::new(spans, &memory::read(path), now);
            if let Some(memory) = holding.memory(now) {
                memory::write(path, &memory);
            }
            self.state().holding = Some(holding);
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
    /// By what leave of the operator's.
    source: Option<Source>,
    /// Whether it was handed out. Before that, nothing was sent.
    out: bool,
}

impl Ticket {
    fn new(
        gate: &Arc<Gate>,
        account: Arc<Account>,
        permit: Option<Permit>,
        source: Option<Source>,
        out: bool,
    ) -> Self {
        Self { gate: Arc::clone(gate), account, permit, source, out }
    }

    /// Gives the ticket back, with what the upstream counts of it, and whether it accepted the message.
    pub fn settle(mut self, used: Amount, accepted: bool) {
        if accepted {
            self.account.state().last_accepted = Some(clock::now());
        }
        self.end(used);
    }

    fn end(&mut self, used: Amount) {
        let now = self.gate.clock.now();
        let mut state = self.account.state();
        if let (Some(source), Some(holding)) = (self.source.take(), state.holding.as_mut()) {
            holding.settle(source, now, used);
            self.gate.news.notify_one();
        }
        let Some(permit) = self.permit.take() else { return };
        if state.budget.is_limited() {
            ledger::settled(permit.id(), now, used, &mut state.lines);
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
#[path = "gate_tests.rs"]
mod tests;
