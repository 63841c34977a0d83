//! Writing new messages so that they survive, many at a time.
//!
//! ```text
//!  store ─┐                     ┌─ write each to tmp/ ─ sync each ─ rename each to queue/ ─ sync queue/ ─┐
//!  store ─┼─► all that wait now ┤                                                                       ├─► durable
//! remove ─┘                     └─ unlink each ──────────────────────────────────────────► removed      ┘
//! ```
//!
//! Owns the order of these steps, and that a sync of the directory is shared by all who wait for one. There is no
//! timer: alone, a message is written at once. Refuses to know what is written.
//!
//! Invariants: nothing is in `queue/` that is not whole and synced; a message whose sender does not wait any more, or
//! that could not be made durable, is taken back; a failed sync is never tried again, since the second would lie.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::copy;
use super::error::SpoolError;
use super::layout::{Layout, Shelf, create, sync_directory};
use super::ledger::Room;
use super::replace::{Survive, replace};
use crate::body::Body;
use crate::envelope::QueueId;

/// Batches under way at a time. While one is synced the next is written; more only makes batches smaller.
const BATCHES: usize = 2;

/// Most steps in one batch. Their messages are in memory, with at most 64 KiB each.
const BATCH: usize = 64;

/// Large messages written at a time, each by a thread of its own, so that small ones do not wait for them.
const LARGE: usize = 1;

/// A message to write.
pub(super) struct Order {
    pub id: QueueId,
    pub head: Vec<u8>,
    /// Its progress, when there is any already.
    pub state: Option<Vec<u8>>,
    pub body: Body,
    pub room: Room,
}

/// A message that is durable, but that nobody relies on yet. Dropped, it is taken back.
pub(super) struct Written {
    layout: Arc<Layout>,
    id: QueueId,
    has_state: bool,
    room: Option<Room>,
}

impl Written {
    /// From now on the message is kept.
    pub fn keep(mut self) {
        if let Some(room) = self.room.take() {
            room.keep(self.id.clone(), self.has_state);
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.room.is_some() {
            // What cannot be removed is delivered after the next start: once too often, which is allowed here.
            let _ = fs::remove_file(self.layout.entry(Shelf::Queue, &self.id));
            let _ = fs::remove_file(self.layout.state(Shelf::Queue, &self.id));
        }
    }
}

enum Job {
    Store(Order, oneshot::Sender<Result<Written, SpoolError>>),
    Remove(Vec<PathBuf>, oneshot::Sender<Result<(), SpoolError>>),
}

/// Takes what is to be written, and removed, from any number of tasks.
pub(super) struct Committer {
    layout: Arc<Layout>,
    line: Arc<Mutex<Line>>,
    large: Arc<Semaphore>,
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    /// Threads that take from it.
    at_work: usize,
}

impl Committer {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, line: Arc::default(), large: Arc::new(Semaphore::new(LARGE)) }
    }

    /// Writes a message. Durable when this returns.
    pub async fn store(&self, order: Order) -> Result<Written, SpoolError> {
        let (done, written) = oneshot::channel();
        if order.body.is_in_memory() {
            self.queue(Job::Store(order, done));
        } else {
            let large = Arc::clone(&self.large).acquire_owned().await.map_err(|_| SpoolError::Closing)?;
            let layout = Arc::clone(&self.layout);
            spawn_blocking(move || {
                run(&layout, [Job::Store(order, done)]);
                drop(large);
            });
        }
        written.await.map_err(|_| SpoolError::Closing)?
    }

    /// Removes files from `queue/` or `dead/`, in this order; one that is gone already is no error. Gone for every
    /// program when this returns; after a power cut they may be back, if it comes within moments.
    pub async fn remove(&self, files: Vec<PathBuf>) -> Result<(), SpoolError> {
        let (done, removed) = oneshot::channel();
        self.queue(Job::Remove(files, done));
        removed.await.map_err(|_| SpoolError::Closing)?
    }

    fn queue(&self, job: Job) {
        let mut line = lock(&self.line);
        line.jobs.push_back(job);
        if line.at_work < BATCHES {
            line.at_work += 1;
            let worker = Worker { layout: Arc::clone(&self.layout), line: Arc::clone(&self.line) };
            spawn_blocking(move || worker.run());
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    layout: Arc<Layout>,
    line: Arc<Mutex<Line>>,
}

impl Worker {
    /// Takes batches until nothing waits.
    fn run(self) {
        while let Some(batch) = self.next() {
            run(&self.layout, batch);
        }
    }

    fn next(&self) -> Option<Vec<Job>> {
        let mut line = lock(&self.line);
        let len = line.jobs.len().min(BATCH);
        if len == 0 {
            line.at_work -= 1;
            return None;
        }
        Some(line.jobs.drain(..len).collect())
    }
}

/// One batch, all the way.
fn run(layout: &Arc<Layout>, batch: impl IntoIterator<Item = Job>) {
    let (mut stores, mut removals) = (Vec::new(), Vec::new());
    for job in batch {
        match job {
            Job::Store(order, done) => stores.push((write(layout, &order), order, done)),
            Job::Remove(files, done) => removals.push((files, done)),
        }
    }
    for (files, done) in removals {
        let _ = done.send(files.iter().try_for_each(|file| remove(file)));
    }
    let placed: Vec<_> = stores
        .into_iter()
        .map(|(written, order, done)| (written.and_then(|file| place(layout, &file, order)), done))
        .collect();
    let synced = sync_directory(&layout.shelf(Shelf::Queue));
    for (placed, done) in placed {
        // Whoever does not listen any more was not told that the message is kept: it is dropped here, and taken back.
        let _ = done.send(placed.and_then(|placed| match &synced {
            Ok(()) => Ok(placed),
            Err(error) => Err(error.repeat()),
        }));
    }
}

/// Writes a message to `tmp/`, without waiting for the disk.
fn write(layout: &Layout, order: &Order) -> Result<fs::File, SpoolError> {
    let path = layout.tmp().join(order.id.as_str());
    let written =
        create(&path).and_then(|file| copy::message(&file, &order.head, &order.body).map(|()| file));
    written.map_err(|error| {
        let _ = fs::remove_file(&path);
        SpoolError::disk("write", &path, error)
    })
}

/// Makes a written message's octets durable, then gives it its place, progress first: an entry is never there without.
fn place(layout: &Arc<Layout>, file: &fs::File, order: Order) -> Result<Written, SpoolError> {
    let Order { id, state, room, .. } = order;
    let (from, to) = (layout.tmp().join(id.as_str()), layout.entry(Shelf::Queue, &id));
    let has_state = state.is_some();
    // Dropped on the way, it removes what is there already.
    let written = Written { layout: Arc::clone(layout), id, has_state, room: Some(room) };
    let placed = (|| {
        file.sync_data().map_err(|error| SpoolError::disk("sync", &from, error))?;
        if let Some(state) = state {
            replace(layout, &layout.state(Shelf::Queue, &written.id), &state, Survive::PowerCut)?;
        }
        fs::rename(&from, &to).map_err(|error| SpoolError::disk("put in place", &to, error))
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&from);
    }
    placed.map(|()| written)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SpoolError::disk("remove", path, error)),
        _ => Ok(()),
    }
}
