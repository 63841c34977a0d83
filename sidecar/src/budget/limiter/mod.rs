//! The mailbox's limits as tasks share them: a permit for each message, written down before the message is sent.
//!
//! ```text
//!   take ──► quota (lock) ──► journal (off the async threads) ──► SendPermit ──► settle, or drop: counted in full
//! ```
//!
//! Owns the clock's conversion, the place of the files, and which mailbox is in use.
//!
//! * `requests`: who waits, and in which order. `permit`: what is handed out, and what it counts when it ends.
//! * `account`: one mailbox, in memory and on disk. `exchange`: claims to the operator, and its answers.

mod account;
mod exchange;
mod permit;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mailroute_quota::RouteLimits;
use mailroute_quota::Timing;
use mailroute_quota::client::budget::{Budget, BudgetSnapshot, BudgetView};
use mailroute_quota::client::wait::WaitReason;
use mailroute_quota::wire::{Throttled, TimeSlots};
use mailroute_route::RouteFile;
use mailroute_route::control::Usage;
use mailroute_route::file::ControlService;
use tokio::sync::Notify;

use super::journal::Journal;
use super::saved_leases;
use crate::clock::{Instant, Steady};
use crate::lock;
use crate::net::control_service;
use account::Account;
pub use permit::SendPermit;

/// An observer that counts.
pub trait Observe: Send + Sync {
    /// A message has to wait.
    fn waits(&self, why: WaitReason);

    /// The upstream throttled the mailbox.
    fn throttled(&self, what: Throttled);
}

/// No permit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// When to ask again, unless [`RateLimiter::changed`] comes first.
    pub until: Instant,
    /// What it waits for.
    pub why: WaitReason,
}

/// Keeps all tasks to the limits of the mailbox in use.
pub struct RateLimiter {
    directory: PathBuf,
    timing: Timing,
    clock: Steady,
    account: Mutex<Arc<Account>>,
    observe: Arc<dyn Observe>,
    /// Held by the first task that waits; the others queue for it.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
    /// There is something to report to the operator.
    news: Notify,
}

impl RateLimiter {
    /// A limiter without limits, until it follows a route. Journals are in `directory`.
    pub fn new(directory: &Path, timing: Timing, observe: Arc<dyn Observe>) -> Arc<Self> {
        let limits = RouteLimits::NONE;
        Arc::new(Self {
            directory: directory.to_owned(),
            timing,
            clock: Steady::start(),
            account: Mutex::new(Arc::new(Account::new(String::new(), Budget::new(limits, timing)))),
            observe,
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            news: Notify::new(),
        })
    }

    /// Keeps to the limits of a route from now on. What its mailbox has used counts, by this process or an earlier one.
    pub async fn follow(self: &Arc<Self>, route: &RouteFile) {
        let subject = subject(route);
        let (limits, limiter) = (route_limits(route), Arc::clone(self));
        let leasing = route.control.clone().filter(|control| control.leases);
        let switch = move || limiter.switch(subject, limits, leasing.as_ref());
        if tokio::task::spawn_blocking(switch).await.is_err() {
            tracing::error!("the limits could not be set up; the previous ones stay in force");
        }
        self.changed.notify_waiters();
        self.news.notify_one();
    }

    /// Has no mailbox from now on. What is out already is settled where it was taken.
    pub fn rest(&self) {
        let nobody = Account::new(String::new(), Budget::new(RouteLimits::NONE, self.timing));
        *lock(&self.account) = Arc::new(nobody);
        self.changed.notify_waiters();
        self.news.notify_one();
    }

    /// Notes that the upstream throttled the mailbox.
    pub fn throttled(&self, what: Throttled) {
        self.account().state().quota.throttled(what, self.clock.now());
        self.news.notify_one();
        self.observe.throttled(what);
    }

    /// What keeps everything from being sent now, permits included that are out already: Microsoft throttled the mailbox a moment
    /// ago.
    pub fn pause(&self) -> Option<Denied> {
        let until = self.account().state().quota.budget.pause(self.clock.now())?;
        Some(Denied { until: self.clock.instant(until), why: WaitReason::Restraint })
    }

    /// How many connections may be used now.
    pub fn connections(&self) -> u32 {
        self.account().state().quota.budget.connections(self.clock.now())
    }

    /// What was sent in the last minute and the last day.
    pub fn usage(&self) -> Usage {
        let used = self.account().state().quota.budget.usage(self.clock.now());
        Usage { messages_last_minute: used.messages, recipients_last_24h: used.recipients }
    }

    /// How much of each limit is used, for metrics.
    pub fn view(&self) -> BudgetView {
        self.account().state().quota.budget.view(self.clock.now())
    }

    /// When a message was accepted upstream last.
    pub fn last_accepted(&self) -> Option<Instant> {
        self.account().state().last_accepted
    }

    fn account(&self) -> Arc<Account> {
        Arc::clone(&lock(&self.account))
    }

    /// Blocks on the disk.
    fn switch(&self, subject: String, limits: RouteLimits, leasing: Option<&ControlService>) {
        let now = self.clock.now();
        let current = self.account();
        let path = Journal::path(&self.directory, &subject);
        let account = if current.subject == subject {
            current.state().quota.budget.reconfigure(limits);
            current
        } else {
            let known = Journal::read(&path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the record of sent messages cannot be read; counting starts from zero");
                BudgetSnapshot::default()
            });
            Arc::new(Account::new(subject, Budget::restore(limits, self.timing, &known, now)))
        };
        account.open_journal(&path, now);
        if let Some(control) = leasing {
            let uid = control_service::pod_uid(&control.token_file);
            let slots = uid.and_then(|uid| TimeSlots::of_unregistered(&uid, limits, self.timing));
            let saved = saved_leases::path(&self.directory, &account.subject);
            account.use_leases(slots, &saved, self.timing, now);
        } else {
            account.state().quota.leases = None;
        }
        *lock(&self.account) = account;
    }
}

/// The limits that a route names.
fn route_limits(route: &RouteFile) -> RouteLimits {
    RouteLimits {
        messages: route.limits.messages_per_minute,
        messages_per_hour: route.limits.messages_per_hour,
        recipients: route.limits.recipients_per_day,
        connections: route.limits.connections.max(1),
    }
}

/// Whose quota it is: the mailbox's, or the route's where the method has none.
fn subject(route: &RouteFile) -> String {
    let mailbox = route.method.mailbox().map(str::to_ascii_lowercase);
    mailbox.unwrap_or_else(|| format!("{}/{}", route.namespace, route.name))
}

impl std::fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimiter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
