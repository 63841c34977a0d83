//! Taking new messages, and removals, from any number of tasks to the disk, many at a time.
//!
//! ```text
//!  store ─┐
//!  store ─┼─► all that wait now ─► one batch (see `batch`) ─► each is told
//!         │ sync
//! remove ─┴─► all that wait now ─► put each aside ─────────► each is told
//! ```
//!
//! Owns who waits for what, and how many threads are at it. There is no timer: alone, a message is written at once, and
//! what comes in meanwhile is the next batch. A removal does not wait for the disk: the sync that makes it durable comes
//! after it, shared with whatever is stored then. Refuses to know the steps of a batch.
//!
//! Invariant: a message whose sender does not wait any more is taken back.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::batch::{self, Draft, Order, Store};
use super::error::SpoolError;
use super::layout::Layout;
use super::receipts::Receipts;
use super::reusable::ReusableFiles;
use crate::lock;
use crate::message::envelope::QueueId;

/// Batches under way at a time. While one is synced the next is written; more only makes batches smaller.
const BATCHES: usize = 2;

/// Most jobs in one batch. Of their messages at most 64 KiB each are in memory.
const BATCH: usize = 64;

/// Octets of the largest message that may hold up the others of its batch.
const QUICK_BYTES: u64 = 256 * 1024;

/// Large messages written at a time, each by a thread of its own, so that small ones do not wait for them.
const LARGE: usize = 1;

/// Takes what is to be written, and removed, from any number of tasks.
pub(super) struct Committer {
    layout: Arc<Layout>,
    reusable: Arc<ReusableFiles>,
    stores: Arc<Crew<Store>>,
    removals: Arc<Crew<Removal>>,
    large: Arc<Semaphore>,
}

/// Files to remove, the id to remember before they go, and who is told.
struct Removal {
    files: Vec<PathBuf>,
    receipt: Option<QueueId>,
    done: oneshot::Sender<Result<(), SpoolError>>,
}

impl Committer {
    pub fn new(layout: Arc<Layout>, receipts: Arc<Receipts>) -> Self {
        let reusable = Arc::new(ReusableFiles::new(Arc::clone(&layout)));
        let (of, with) = (Arc::clone(&layout), Arc::clone(&reusable));
        let stores = Crew::new(BATCHES, move |batch| batch::run(&of, &with, batch));
        let (syncing, retired) = (Arc::clone(&stores), Arc::clone(&reusable));
        let removals = Crew::new(1, move |batch: Vec<Removal>| {
            let remembered = receipts.add(batch.iter().filter_map(|removal| removal.receipt.as_ref()));
            for Removal { files, receipt, done } in batch {
                let removed = match &remembered {
                    Err(error) if receipt.is_some() => Err(error.repeat()),
                    _ => files.iter().try_for_each(|file| retired.retire(file)),
                };
                let _ = done.send(removed);
            }
            syncing.add(Store::Sync);
        });
        Self { layout, reusable, stores, removals, large: Arc::new(Semaphore::new(LARGE)) }
    }

    /// Writes a message. Durable when this returns.
    pub async fn store(&self, order: Order) -> Result<Draft, SpoolError> {
        let (done, written) = oneshot::channel();
        if order.body.len() <= QUICK_BYTES {
            self.stores.add(Store::Message(order, done));
        } else {
            let large = Arc::clone(&self.large).acquire_owned().await.map_err(|_| SpoolError::Closing)?;
            let (layout, reusable) = (Arc::clone(&self.layout), Arc::clone(&self.reusable));
            spawn_blocking(move || {
                batch::run(&layout, &reusable, [Store::Message(order, done)]);
                drop(large);
            });
        }
        written.await.map_err(|_| SpoolError::Closing)?
    }

    /// Removes files, in this order; one that is gone already is no error. Gone for every program when this returns;
    /// after a power cut they may be back, if it comes within moments. A `receipt` is durable before, unless the volume is full.
    pub async fn remove(&self, files: Vec<PathBuf>, receipt: Option<QueueId>) -> Result<(), SpoolError> {
        let (done, removed) = oneshot::channel();
        self.removals.add(Removal { files, receipt, done });
        removed.await.map_err(|_| SpoolError::Closing)?
    }
}

/// Some blocking threads that take all that waits, again and again, and go when nothing does.
struct Crew<J> {
    line: Mutex<Line<J>>,
    most: usize,
    work: Box<dyn Fn(Vec<J>) + Send + Sync>,
}

struct Line<J> {
    jobs: VecDeque<J>,
    /// Threads that take from it.
    at_work: usize,
}

impl<J: Send + 'static> Crew<J> {
    /// At most so many threads, which do this with what they take.
    fn new(most: usize, work: impl Fn(Vec<J>) + Send + Sync + 'static) -> Arc<Self> {
        let line = Mutex::new(Line { jobs: VecDeque::new(), at_work: 0 });
        Arc::new(Self { line, most, work: Box::new(work) })
    }

    fn line(&self) -> MutexGuard<'_, Line<J>> {
        lock(&self.line)
    }

    fn add(self: &Arc<Self>, job: J) {
        let mut line = self.line();
        line.jobs.push_back(job);
        if line.at_work < self.most {
            line.at_work += 1;
            let hand = Hand(Arc::clone(self));
            spawn_blocking(move || {
                while let Some(batch) = hand.0.next() {
                    (hand.0.work)(batch);
                }
            });
        }
    }

    /// What the thread that asks is to do; `None` when it may go.
    fn next(&self) -> Option<Vec<J>> {
        let mut line = self.line();
        let len = line.jobs.len().min(BATCH);
        if len == 0 {
            line.at_work -= 1;
            return None;
        }
        Some(line.jobs.drain(..len).collect())
    }
}

/// One thread of a crew.
struct Hand<J: Send + 'static>(Arc<Crew<J>>);

impl<J: Send + 'static> Drop for Hand<J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It did not sign off. Without this the others would wait for it for ever.
            self.0.line().at_work -= 1;
        }
    }
}
