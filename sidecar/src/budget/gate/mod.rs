//! The budget as tasks share it: a ticket for each message, written down before the message may go.
//!
//! ```text
//!   take ──► budget (lock) ──► ledger (off the async threads) ──► Ticket ──► settle, or drop: counted in full
//! ```
//!
//! Owns the clock's conversion, the ledger's place and which mailbox is in use. Where the operator leases the mailbox's limits, a
//! ticket also needs a lease.
//!
//! * `taking`: who waits, and in which order. `ticket`: what is handed out, and what it counts when it ends.
//! * `account`: one mailbox, in memory and written down. `leases`: what is said to the operator, and its answers.

mod account;
mod leases;
mod taking;
mod ticket;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mailroute_route::RouteFile;
use mailroute_route::control::{Throttled, Usage};
use mailroute_route::file::ControlService;
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::memory;
use super::restraint::Throttle;
use super::stranger;
use super::{Budget, Limits, Spans, Why};
use crate::clock::{Instant, Steady};
use crate::service;
use account::Account;
pub use ticket::Ticket;

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
    clock: Steady,
    account: Mutex<Arc<Account>>,
    observe: Arc<dyn Observe>,
    /// Those who wait, in order.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    /// There is something to say to the operator.
    news: Notify,
}

impl Gate {
    /// A gate without limits, until it follows a route. Ledgers are in `directory`.
    pub fn new(directory: &Path, spans: Spans, observe: Arc<dyn Observe>) -> Arc<Self> {
        let limits = Limits { messages: None, recipients: None, connections: 1 };
        Arc::new(Self {
            directory: directory.to_owned(),
            spans,
            clock: Steady::start(),
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
        let leasing = route.control.clone().filter(|control| control.leases);
        let switch = move || gate.switch(subject, limits, leasing.as_ref());
        if tokio::task::spawn_blocking(switch).await.is_err() {
            tracing::error!("the limits could not be set up; the previous ones stay in force");
        }
        self.changed.notify_waiters();
        self.news.notify_one();
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
    fn switch(&self, subject: String, limits: Limits, leasing: Option<&ControlService>) {
        let now = self.clock.now();
        let current = self.account();
        let path = Ledger::path(&self.directory, &subject);
        let account = if current.subject == subject {
            current.state().budget.reconfigure(limits);
            current
        } else {
            let known = Ledger::read(&path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the record of sent messages cannot be read; counting starts from zero");
                super::Snapshot::default()
            });
            Arc::new(Account::new(subject, Budget::restore(limits, self.spans, &known, now)))
        };
        account.keep(&path, now);
        let uid = leasing.and_then(|control| service::pod_uid(&control.token_file));
        let stranger = uid.and_then(|uid| stranger::turn(&uid, limits, self.spans));
        let memory = memory::path(&self.directory, &account.subject);
        account.lease(leasing.is_some(), stranger, &memory, self.spans, now);
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account;
    }
}

/// Whose budget it is: the mailbox's, or the route's where the method has none.
fn subject(route: &RouteFile) -> String {
    let mailbox = route.method.mailbox().map(str::to_ascii_lowercase);
    mailbox.unwrap_or_else(|| format!("{}/{}", route.namespace, route.name))
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
