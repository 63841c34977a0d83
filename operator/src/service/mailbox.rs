//! One mailbox: its ledger, and when that is read and stored.
//!
//! Reads and writes run in a task of their own, one at a time, so that no client can abort one; requests wait for its end. A failure
//! concerns this mailbox alone. After a write with an unknown outcome the record is read again. If this replica wrote it, the
//! ledger goes on as it is. If another replica did, that one has led meanwhile, and its record replaces the ledger.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_entra::clock::Steady;
use mailroute_operator_core::crd::MailboxUsageSpec;
use mailroute_quota::server::limits::{NO_LIMIT, Namespace, SidecarId};
use mailroute_quota::server::record::LedgerRecord;
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_quota::server::{Ledger, MailboxView};
use mailroute_quota::{Timing, Utilization};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ids::MailboxKey;
use super::ledger_store::{Error, LedgerStore, Stored};
use crate::lock;

/// A read or write that takes longer is given up.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after a failure the next try comes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest list of namespaces in the object, bytes.
const MAX_NAMES: usize = 500;

/// The record of this mailbox cannot be read or stored now. The log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox's usage cannot be read or written")]
pub struct Unwritten;

/// What every mailbox needs.
pub struct MailboxContext {
    /// The protocol's lengths of time.
    pub timing: Timing,
    /// Where records are stored.
    pub store: Arc<dyn LedgerStore>,
    /// The time.
    pub clock: Steady,
}

/// A task for the store.
#[derive(Clone, Copy, Debug)]
pub enum StoreTask {
    /// Read the record, unless that was done.
    Open,
    /// Store a record that allows a grant to this sidecar.
    Write(Option<SidecarId>),
    /// Remove the record if nothing is left to remember.
    Remove,
}

/// One mailbox.
pub struct Mailbox {
    key: MailboxKey,
    /// The namespace whose pod was the first to send as it.
    pub opened_by: Namespace,
    state: Mutex<State>,
    /// Changes when a task ends.
    done: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    ledger: Option<Ledger>,
    /// What is known to be stored; nothing if that is not known.
    stored: Option<Version>,
    /// The text that this replica stored last, and the one that it tried to store.
    own: [Option<String>; 2],
    is_busy: bool,
    has_failed: bool,
    /// No try before then.
    again: Duration,
    /// The mailbox was removed; a request that still has this value has to start again.
    is_retired: bool,
}

/// The stored version; none if nothing is stored.
type Version = Option<String>;

impl Mailbox {
    /// A mailbox whose record was not read yet.
    pub fn new(key: MailboxKey, opened_by: Namespace) -> Arc<Self> {
        Arc::new(Self { key, opened_by, state: Mutex::default(), done: watch::Sender::new(0) })
    }

    /// Calls `what` with the ledger; nothing before it is read.
    pub fn with<T>(&self, what: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        lock(&self.state).ledger.as_mut().map(what)
    }

    /// Whether the ledger was read and need not be read again.
    pub fn is_known(&self) -> bool {
        let state = lock(&self.state);
        state.ledger.is_some() && (state.stored.is_some() || state.is_busy)
    }

    /// Whether a task runs.
    pub fn is_busy(&self) -> bool {
        lock(&self.state).is_busy
    }

    /// Whether the mailbox was removed.
    pub fn is_retired(&self) -> bool {
        lock(&self.state).is_retired
    }

    /// Runs a task, or joins the one that is running, and waits for its end.
    ///
    /// # Errors
    /// When the task failed.
    pub async fn run(
        self: &Arc<Self>,
        context: &Arc<MailboxContext>,
        task: StoreTask,
        running: Vec<RunningSidecar>,
    ) -> Result<(), Unwritten> {
        let mut done = self.begin(context, task, running)?;
        // This mailbox owns the sender.
        let _ = done.changed().await;
        if lock(&self.state).has_failed { Err(Unwritten) } else { Ok(()) }
    }

    /// Starts a task unless one is running. The returned receiver changes at its end.
    ///
    /// # Errors
    /// When the last task failed just now.
    pub fn begin(
        self: &Arc<Self>,
        context: &Arc<MailboxContext>,
        task: StoreTask,
        running: Vec<RunningSidecar>,
    ) -> Result<watch::Receiver<u64>, Unwritten> {
        let mut state = lock(&self.state);
        let done = self.done.subscribe();
        if state.is_busy {
            return Ok(done);
        }
        if context.clock.now() < state.again {
            return Err(Unwritten);
        }
        state.is_busy = true;
        let (mailbox, context) = (Arc::clone(self), Arc::clone(context));
        tokio::spawn(async move {
            let end = EndGuard(&mailbox);
            let outcome = timeout(STORE_TIMEOUT, mailbox.work(&context, task, running)).await;
            mailbox.ended(
                outcome.unwrap_or_else(|_| Err(Error::Late(mailbox.key.as_str().to_owned()))),
                &context,
            );
            drop(end);
        });
        Ok(done)
    }

    async fn work(
        &self,
        context: &MailboxContext,
        task: StoreTask,
        running: Vec<RunningSidecar>,
    ) -> Result<(), Error> {
        if lock(&self.state).stored.is_none() {
            let found = context.store.read(&self.key).await?;
            self.found(found, context, running);
        }
        match task {
            StoreTask::Open => Ok(()),
            StoreTask::Write(asks) => self.write(context, asks).await,
            StoreTask::Remove => self.remove(context).await,
        }
    }

    /// Takes in what the store has.
    fn found(&self, found: Option<Stored>, context: &MailboxContext, running: Vec<RunningSidecar>) {
        let (timing, now) = (context.timing, context.clock.now());
        let mut state = lock(&self.state);
        let text = found.as_ref().and_then(|stored| stored.record.as_deref());
        // Nothing is stored: somebody has removed the record that this replica knows.
        let is_own = found.is_none() || state.own.iter().any(|own| own.is_some() && own.as_deref() == text);
        if state.ledger.is_none() || !is_own {
            let mut ledger = match &found {
                None => Ledger::new(timing),
                Some(_) => match text.and_then(LedgerRecord::parse) {
                    Some(record) => Ledger::restore(timing, &record, now),
                    None => {
                        tracing::error!(
                            mailbox = self.key.as_str(),
                            "the record in this MailboxUsage cannot be read; nothing is sent as the mailbox for two minutes"
                        );
                        Ledger::lost(timing, now)
                    }
                },
            };
            ledger.expect(running, now);
            state.ledger = Some(ledger);
        }
        state.stored = Some(found.map(|stored| stored.version));
    }

    async fn write(&self, context: &MailboxContext, asks: Option<SidecarId>) -> Result<(), Error> {
        let (record, usage, version) = {
            let now = context.clock.now();
            let mut state = lock(&self.state);
            let Some(ledger) = state.ledger.as_mut() else { return Ok(()) };
            let record = ledger.record(asks, now);
            let usage = shown(&ledger.view(now), record.print());
            state.own[1] = Some(usage.record.clone());
            // The version is not known while the record is written.
            (record, usage, state.stored.take().flatten())
        };
        let version = context.store.write(&self.key, version.as_deref(), &self.opened_by, &usage).await?;
        let mut state = lock(&self.state);
        state.stored = Some(Some(version));
        state.own = [state.own[1].take(), None];
        if let Some(ledger) = state.ledger.as_mut() {
            ledger.persisted(&record, context.clock.now());
        }
        Ok(())
    }

    async fn remove(&self, context: &MailboxContext) -> Result<(), Error> {
        let is_empty = |state: &mut State| {
            let now = context.clock.now();
            state.ledger.as_mut().is_none_or(|ledger| ledger.is_empty(now))
        };
        let version = {
            let mut state = lock(&self.state);
            if !is_empty(&mut state) {
                return Ok(());
            }
            state.stored.take().flatten()
        };
        if let Some(version) = version {
            context.store.remove(&self.key, &version).await?;
        }
        let mut state = lock(&self.state);
        state.stored = Some(None);
        state.own = [None, None];
        state.is_retired = is_empty(&mut state);
        Ok(())
    }

    fn ended(&self, outcome: Result<(), Error>, context: &MailboxContext) {
        let mut state = lock(&self.state);
        let mailbox = self.key.as_str();
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut state.has_failed) {
                    tracing::info!(mailbox, "leases of the mailbox are granted again");
                }
                return;
            }
            // The next task reads the record again.
            Err(Error::Overtaken(_)) => {}
            Err(error) => {
                state.again = context.clock.now() + RETRY_AFTER;
                if !state.has_failed {
                    tracing::warn!(mailbox, %error, "no leases of the mailbox are granted; trying again every second");
                }
            }
        }
        state.has_failed = true;
        state.stored = None;
    }
}

/// Marks the end of a task, even of one that panics.
struct EndGuard<'a>(&'a Mailbox);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_busy = false;
        self.0.done.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The object to store, with its columns for people.
fn shown(view: &MailboxView, record: String) -> MailboxUsageSpec {
    let of = |Utilization { used, limit }: Utilization| {
        if limit < NO_LIMIT.into() { format!("{used}/{limit}") } else { used.to_string() }
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut namespaces = String::new();
    for name in &view.namespaces {
        if namespaces.len() + name.len() > MAX_NAMES {
            namespaces.push_str(", …");
            break;
        }
        if !namespaces.is_empty() {
            namespaces.push_str(", ");
        }
        namespaces.push_str(name);
    }
    MailboxUsageSpec {
        messages: of(view.minute),
        recipients: of(view.day),
        sidecars: count(view.sidecars),
        waiting: count(view.waiting),
        namespaces,
        record,
    }
}
