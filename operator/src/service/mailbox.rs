//! One mailbox: its ledger, and when that is read and written.
//!
//! Reads and writes run in a task of their own, one at a time, so that no client can cut one off; whoever needs it waits for its
//! end. What goes wrong is this mailbox's alone. After a write of which nobody knows what became, the record is read again: when
//! it is one of this replica's own, the ledger goes on as it is; when it is another's, that one has led meanwhile, and its record
//! is taken in place of the ledger. Decides nothing about limits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_entra::clock::Steady;
use mailroute_operator_core::crd::MailboxUsageSpec;
use mailroute_quota::server::limits::{Namespace, SidecarId};
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
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing is tried again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest list of namespaces for people, bytes.
const MAX_NAMES: usize = 500;

/// The ledger of this mailbox cannot be read or written at present. What went wrong is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox's usage cannot be read or written")]
pub struct Unwritten;

/// What every mailbox needs.
pub struct Desk {
    /// All lengths of time.
    pub timing: Timing,
    /// Where records are.
    pub store: Arc<dyn LedgerStore>,
    /// The time.
    pub clock: Steady,
}

/// What to do with the record.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Read it, where that has not been done.
    Open,
    /// Write it, so that it allows for this sidecar.
    Write(Option<SidecarId>),
    /// Remove it, when nothing is left to remember.
    Remove,
}

/// One mailbox.
pub struct Mailbox {
    key: MailboxKey,
    /// The namespace whose pod was the first to send as it.
    pub opened_by: Namespace,
    state: Mutex<State>,
    /// Changes at the end of each job.
    done: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    ledger: Option<Ledger>,
    /// What is known to be stored; nothing when that is not known.
    stored: Option<Version>,
    /// The texts that this replica wrote last, and that it tried to write.
    own: [Option<String>; 2],
    is_busy: bool,
    has_failed: bool,
    /// Nothing is tried before.
    again: Duration,
    /// It was removed, and whoever still holds it has to ask anew.
    is_retired: bool,
}

/// The version that is stored; none when nothing is.
type Version = Option<String>;

impl Mailbox {
    /// A mailbox of which nothing is known yet.
    pub fn new(key: MailboxKey, opened_by: Namespace) -> Arc<Self> {
        Arc::new(Self { key, opened_by, state: Mutex::default(), done: watch::Sender::new(0) })
    }

    /// Does something with the ledger; nothing when it is not read.
    pub fn with<T>(&self, what: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        lock(&self.state).ledger.as_mut().map(what)
    }

    /// Whether its ledger is read, and nothing has happened since that would have it read again.
    pub fn is_known(&self) -> bool {
        let state = lock(&self.state);
        state.ledger.is_some() && (state.stored.is_some() || state.is_busy)
    }

    /// Whether a job is under way.
    pub fn is_busy(&self) -> bool {
        lock(&self.state).is_busy
    }

    /// Whether it was removed.
    pub fn is_retired(&self) -> bool {
        lock(&self.state).is_retired
    }

    /// Has a job done, unless one is under way, and waits for the end of that.
    ///
    /// # Errors
    /// When it failed just now.
    pub async fn run(
        self: &Arc<Self>,
        desk: &Arc<Desk>,
        job: Job,
        running: Vec<RunningSidecar>,
    ) -> Result<(), Unwritten> {
        let mut done = self.begin(desk, job, running)?;
        // Its sender is this mailbox's.
        let _ = done.changed().await;
        if lock(&self.state).has_failed { Err(Unwritten) } else { Ok(()) }
    }

    /// Begins a job, unless one is under way. What is returned changes at its end.
    ///
    /// # Errors
    /// When the last one failed just now.
    pub fn begin(
        self: &Arc<Self>,
        desk: &Arc<Desk>,
        job: Job,
        running: Vec<RunningSidecar>,
    ) -> Result<watch::Receiver<u64>, Unwritten> {
        let mut state = lock(&self.state);
        let done = self.done.subscribe();
        if state.is_busy {
            return Ok(done);
        }
        if desk.clock.now() < state.again {
            return Err(Unwritten);
        }
        state.is_busy = true;
        let (mailbox, desk) = (Arc::clone(self), Arc::clone(desk));
        tokio::spawn(async move {
            let end = Ends(&mailbox);
            let outcome = timeout(PATIENCE, mailbox.work(&desk, job, running)).await;
            mailbox
                .ended(outcome.unwrap_or_else(|_| Err(Error::Late(mailbox.key.as_str().to_owned()))), &desk);
            drop(end);
        });
        Ok(done)
    }

    async fn work(&self, desk: &Desk, job: Job, running: Vec<RunningSidecar>) -> Result<(), Error> {
        if lock(&self.state).stored.is_none() {
            let found = desk.store.read(&self.key).await?;
            self.found(found, desk, running);
        }
        match job {
            Job::Open => Ok(()),
            Job::Write(asks) => self.write(desk, asks).await,
            Job::Remove => self.remove(desk).await,
        }
    }

    /// What is stored was read.
    fn found(&self, found: Option<Stored>, desk: &Desk, running: Vec<RunningSidecar>) {
        let (timing, now) = (desk.timing, desk.clock.now());
        let mut state = lock(&self.state);
        let text = found.as_ref().and_then(|stored| stored.record.as_deref());
        // Nothing is stored: somebody has removed what this replica knows of.
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

    async fn write(&self, desk: &Desk, asks: Option<SidecarId>) -> Result<(), Error> {
        let (record, usage, version) = {
            let now = desk.clock.now();
            let mut state = lock(&self.state);
            let Some(ledger) = state.ledger.as_mut() else { return Ok(()) };
            let record = ledger.record(asks, now);
            let usage = shown(&ledger.view(now), record.print());
            state.own[1] = Some(usage.record.clone());
            // Not known while it is written.
            (record, usage, state.stored.take().flatten())
        };
        let version = desk.store.write(&self.key, version.as_deref(), &self.opened_by, &usage).await?;
        let mut state = lock(&self.state);
        state.stored = Some(Some(version));
        state.own = [state.own[1].take(), None];
        if let Some(ledger) = state.ledger.as_mut() {
            ledger.persisted(&record, desk.clock.now());
        }
        Ok(())
    }

    async fn remove(&self, desk: &Desk) -> Result<(), Error> {
        let is_empty = |state: &mut State| {
            let now = desk.clock.now();
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
            desk.store.remove(&self.key, &version).await?;
        }
        let mut state = lock(&self.state);
        state.stored = Some(None);
        state.own = [None, None];
        state.is_retired = is_empty(&mut state);
        Ok(())
    }

    fn ended(&self, outcome: Result<(), Error>, desk: &Desk) {
        let mut state = lock(&self.state);
        let mailbox = self.key.as_str();
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut state.has_failed) {
                    tracing::info!(mailbox, "leases of the mailbox are granted again");
                }
                return;
            }
            // It is read again at once.
            Err(Error::Overtaken(_)) => {}
            Err(error) => {
                state.again = desk.clock.now() + PAUSE;
                if !state.has_failed {
                    tracing::warn!(mailbox, %error, "no leases of the mailbox are granted; trying again every second");
                }
            }
        }
        state.has_failed = true;
        state.stored = None;
    }
}

/// The end of a job, also of one that panics.
struct Ends<'a>(&'a Mailbox);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_busy = false;
        self.0.done.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The object, with its columns.
fn shown(view: &MailboxView, record: String) -> MailboxUsageSpec {
    let of = |it: Utilization| format!("{}/{}", it.used, it.limit);
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
