//! The spool: accepted messages, kept so that a 250 may rest on them.
//!
//! ```text
//!            store                record                 bury
//!  250 ◄── durable ── queue/ ◄──────────────► .state ──────────────► dead/      damaged: corrupt/
//!                       │ remove                  ▲ revive             │ remove, or too many      restore: back in queue/
//!                       ▼                         └────────────────────┤
//!                   delivered                                          ▼
//! ```
//!
//! Owns the files under one directory, in the form that [`mod@format`] says, and the sum of what they take. One file for each
//! message and one for its progress: a person can look with `ls` and `cat`, and a bad block costs one message. Refuses
//! to know SMTP, the upstream, and when anything is due.
//!
//! What is promised, of a disk that keeps what it says it has kept:
//! - What [`Spool::store`] returned for is found after `kill -9` and after a power cut, octet for octet, or it is counted
//!   in `corrupt/`. What it did not return for leaves no half file; it may be found whole when the program ended in
//!   between.
//! - A status that [`Spool::record`] returned for is not forgotten. The number of attempts alone may be, after a power cut.
//! - A full volume is an error of what is new. Nothing that is kept suffers from it, and no removal needs room.
//! - No more than one program has the directory open. Needs rename, fsync and a lock of the volume; no chmod, no
//!   nameless or linked files.
//!
//! Memory: about 150 octets for each message that is kept. All work on the disk is done on the runtime's blocking
//! threads, and is bounded by kind: two batches of new messages at a time, one of removals, one large message, one move.

mod batch;
mod commit;
mod copy;
pub mod entry;
mod error;
pub mod format;
pub mod frame;
mod kept;
mod layout;
mod ledger;
mod moves;
mod read;
mod receipts;
mod recover;
mod replace;
mod reusable;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use mailroute_route::text::chain;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use batch::Order;
use commit::Committer;
pub use entry::{DeliveryProblem, Entry, Kind, Progress, RecipientStatus, StatusCounts};
pub use error::{Full, SpoolError};
use kept::Check;
pub use kept::{Glance, Kept, View};
pub use layout::{Layout, Shelf, is_progress};
use ledger::{Held, Ledger, cost};
pub use ledger::{SpoolLimits, Stock};
use read::ReadError;
use receipts::Receipts;
pub use recover::{Recovered, Waiting};
use replace::{Survive, replace};

use crate::message::body::{Body, Scratch};
use crate::message::envelope::QueueId;

/// An open spool. Cheap to clone; clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Arc<Layout>,
    ledger: Arc<Ledger>,
    committer: Committer,
    receipts: Arc<Receipts>,
    /// Other steps than new messages, one at a time, so that they do not take all threads.
    turn: Mutex<()>,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Spool {
    /// Opens the spool in `directory`, making it if need be, and finds what an earlier program left there.
    ///
    /// # Errors
    /// When another program has it open, or the directory cannot be used. Nothing that is found in it is an error.
    pub async fn open(directory: &Path, limits: SpoolLimits) -> Result<(Self, Recovered), SpoolError> {
        let layout = Layout::new(directory);
        blocking(move || {
            layout.make()?;
            let lock = lock(&layout)?;
            let (layout, ledger) = (Arc::new(layout), Arc::new(Ledger::new(limits)));
            let recovered = recover::recover(&layout, &ledger)?;
            let receipts = Arc::new(Receipts::new(Arc::clone(&layout)));
            let committer = Committer::new(Arc::clone(&layout), Arc::clone(&receipts));
            let inner = Inner { layout, ledger, committer, receipts, turn: Mutex::default(), _lock: lock };
            Ok((Self { inner: Arc::new(inner) }, recovered))
        })
        .await
    }

    /// Remembers from now on which messages are gone, and those that an earlier program remembered: for a gateway, to which a message may
    /// be handed over twice. What was to be removed when that program ended is removed now, or at the next start, and is not `recovered`.
    ///
    /// # Errors
    /// When what is remembered cannot be read or written.
    pub async fn keep_receipts(&self, recovered: &mut Recovered) -> Result<(), SpoolError> {
        let receipts = Arc::clone(&self.inner.receipts);
        blocking(move || receipts.keep()).await?;
        let is_gone = |waiting: &mut Waiting| self.inner.receipts.has(&waiting.id);
        for gone in recovered.waiting.extract_if(.., is_gone).collect::<Vec<_>>() {
            if let Err(error) = self.finish(&gone.id).await {
                tracing::warn!(queue_id = %gone.id, error = chain(&error), "a message that is gone for good cannot be removed yet");
            }
        }
        Ok(())
    }

    /// Whether a message is here, or is remembered as gone.
    pub fn knows(&self, id: &QueueId) -> bool {
        self.inner.ledger.find(id).is_some() || self.inner.receipts.has(id)
    }

    /// Where large messages are put while they come in: on the same volume, emptied at every start, and counted against
    /// the same limit.
    pub fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(Incoming { directory: self.inner.layout.tmp(), ledger: Arc::clone(&self.inner.ledger) })
    }

    /// How much is kept.
    pub fn stock(&self) -> Stock {
        self.inner.ledger.stock()
    }

    /// Sets other bounds. What is kept already stays, even when it is more.
    pub fn set_limits(&self, limits: SpoolLimits) {
        self.inner.ledger.set_limits(limits);
    }

    /// Keeps a message in the queue, as far as it has come. Durable when this returns, and only then. When the future is
    /// dropped before, the message is taken back.
    ///
    /// # Errors
    /// [`SpoolError::Full`] when there is no room; nothing of the message is left behind, whatever the error is.
    pub async fn store(&self, entry: &Entry, progress: &Progress, body: &Body) -> Result<(), SpoolError> {
        let head = format::encode_entry(entry, body.len(), body.crc32()).map_err(SpoolError::Envelope)?;
        let is_fresh = *progress == Progress::fresh(entry);
        let state = if is_fresh { None } else { Some(encode(progress)?) };
        // The octets are on the volume twice while they are copied, one message at a time.
        let claimed = body.take_claim();
        let reserved = self.inner.ledger.reserve(cost(head.len() as u64 + body.len()), claimed);
        let room = reserved.map_err(|full| {
            body.put_claim(claimed);
            SpoolError::Full(full)
        })?;
        let order = Order { id: entry.envelope.id.clone(), head, state, body: body.clone(), room };
        self.inner.committer.store(order).await?.keep();
        Ok(())
    }

    /// Writes down how far a message has come. Survives `kill -9` when this returns, and a power cut as soon as
    /// a recipient was settled. One at a time for each message.
    ///
    /// # Errors
    /// When it cannot be written; what was written before is still there.
    pub async fn record(&self, id: &QueueId, progress: &Progress) -> Result<(), SpoolError> {
        let (shelf, _) = self.find(id)?;
        let (state, path) = (encode(progress)?, self.inner.layout.state(shelf, id));
        let survive = if progress.is_settled() { Survive::PowerCut } else { Survive::Kill };
        self.inner.ledger.update(id, |held| held.has_state = true);
        self.step(move |layout, _| replace(layout, &path, &state, survive)).await
    }

    /// Reads a message, from the queue or from among the dead letters. One that was found at the start is read as a whole
    /// the first time, so that a damaged message is never sent; it is set aside and counted.
    ///
    /// # Errors
    /// [`SpoolError::Unknown`] and [`SpoolError::Damaged`]: it is not kept (any more). Others may pass.
    pub async fn load(&self, id: &QueueId) -> Result<Kept, SpoolError> {
        let (shelf, held) = self.find(id)?;
        let (layout, of) = (Arc::clone(&self.inner.layout), id.clone());
        let check = if held.intact { Check::Head } else { Check::Content };
        let fetched = blocking(move || Ok(kept::fetch(&layout, shelf, &of, check))).await?;
        match fetched {
            Ok(kept) => {
                self.inner.ledger.update(id, |held| held.intact = true);
                Ok(kept)
            }
            Err(ReadError::Damaged(source)) => {
                self.set_aside(shelf, id, held).await?;
                Err(SpoolError::Damaged { id: id.clone(), source })
            }
            Err(ReadError::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed it by hand.
                self.inner.ledger.forget(id);
                Err(SpoolError::Unknown(id.clone()))
            }
            Err(ReadError::Disk(error)) => {
                Err(SpoolError::disk("read", &self.inner.layout.entry(shelf, id), error))
            }
        }
    }

    /// The Message-ID of a message; `None` when it is not kept or cannot be read. Reads its head alone.
    pub async fn message_id(&self, id: &QueueId) -> Option<String> {
        let (view, id) = (View::new(self.inner.layout.root()), id.clone());
        let glance = spawn_blocking(move || view.glance(&id)).await.ok()?.ok()??;
        Some(glance.entry.envelope.message_id)
    }

    /// Forgets a message, from the queue or from among the dead letters. One that is not kept is no error. It may come back: another
    /// spool has it.
    ///
    /// # Errors
    /// When its files cannot be removed; it is then found again at the next start.
    pub async fn remove(&self, id: &QueueId) -> Result<(), SpoolError> {
        self.take_out(id, None).await
    }

    /// The same for one that is gone for good: delivered, or dropped. A gateway remembers it.
    ///
    /// # Errors
    /// As [`Spool::remove`].
    pub async fn finish(&self, id: &QueueId) -> Result<(), SpoolError> {
        self.take_out(id, Some(id.clone())).await
    }

    async fn take_out(&self, id: &QueueId, receipt: Option<QueueId>) -> Result<(), SpoolError> {
        let Some((shelf, held)) = self.inner.ledger.find(id) else { return Ok(()) };
        let mut files = vec![self.inner.layout.entry(shelf, id)];
        if held.has_state {
            files.push(self.inner.layout.state(shelf, id));
        }
        self.inner.committer.remove(files, receipt).await?;
        self.inner.ledger.forget(id);
        Ok(())
    }

    /// Gives a message up: it becomes a dead letter, durable when this returns. Says which dead letters had to go because
    /// there are more than may be kept: those that were accepted first.
    ///
    /// # Errors
    /// When it cannot be moved; it is then still in the queue.
    pub async fn bury(&self, id: &QueueId, progress: &Progress) -> Result<Vec<QueueId>, SpoolError> {
        self.shift(id, Shelf::Queue, Shelf::Dead, progress).await?;
        let mut gone = Vec::new();
        for id in self.inner.ledger.too_many() {
            match self.finish(&id).await {
                Ok(()) => gone.push(id),
                Err(error) => {
                    tracing::warn!(queue_id = %id, %error, "a surplus dead letter cannot be removed")
                }
            }
        }
        Ok(gone)
    }

    /// Puts a dead letter back into the queue, to go on from `progress` (see [`Progress::again`]). Durable when this
    /// returns.
    ///
    /// # Errors
    /// When it is no dead letter, or cannot be moved; it is then still one.
    pub async fn revive(&self, id: &QueueId, progress: &Progress) -> Result<(), SpoolError> {
        self.shift(id, Shelf::Dead, Shelf::Queue, progress).await
    }

    /// Brings a message back that was set aside, whole after all, by the name of its file in `corrupt/`: into the queue,
    /// to go on from the progress that is given. Durable when this returns.
    ///
    /// # Errors
    /// When it is no message, still damaged, or cannot be moved; it is then where it was.
    pub async fn restore(&self, name: &str, now: Timestamp) -> Result<(QueueId, Progress), SpoolError> {
        let name = name.to_owned();
        self.step(move |layout, ledger| moves::restore(layout, ledger, &name, now)).await
    }

    /// The dead letters, in the order in which they were accepted.
    pub fn dead(&self) -> Vec<QueueId> {
        self.inner.ledger.dead()
    }

    fn find(&self, id: &QueueId) -> Result<(Shelf, Held), SpoolError> {
        self.inner.ledger.find(id).ok_or_else(|| SpoolError::Unknown(id.clone()))
    }

    async fn shift(
        &self,
        id: &QueueId,
        from: Shelf,
        to: Shelf,
        progress: &Progress,
    ) -> Result<(), SpoolError> {
        if self.find(id)?.0 != from {
            return Err(SpoolError::Unknown(id.clone()));
        }
        let (state, id) = (encode(progress)?, id.clone());
        self.step(move |layout, ledger| {
            moves::shift(layout, &id, from, to, &state)?;
            ledger.update(&id, |held| held.has_state = true);
            ledger.transfer(&id, to);
            Ok(())
        })
        .await
    }

    async fn set_aside(&self, shelf: Shelf, id: &QueueId, held: Held) -> Result<(), SpoolError> {
        let id = id.clone();
        self.step(move |layout, ledger| {
            let entry = moves::set_aside(layout, &layout.entry(shelf, &id))?;
            ledger.spoil(&id);
            if held.has_state
                && let Some(len) = moves::set_aside_state(layout, shelf, &id, &entry)?
            {
                ledger.set_aside(cost(len));
            }
            Ok(())
        })
        .await
    }

    /// Runs a step on the disk when it is its turn. It is finished even when nobody waits for it any more, so what it
    /// changes in the ledger belongs into it.
    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout, &Ledger) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let _turn = self.inner.turn.lock().await;
        let (layout, ledger) = (Arc::clone(&self.inner.layout), Arc::clone(&self.inner.ledger));
        blocking(move || work(&layout, &ledger)).await
    }
}

/// The room for messages that come in.
struct Incoming {
    directory: PathBuf,
    ledger: Arc<Ledger>,
}

impl Scratch for Incoming {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn reserve(&self, octets: u64) -> io::Result<()> {
        self.ledger.claim(octets).map_err(|full| io::Error::new(io::ErrorKind::StorageFull, full))
    }

    fn release(&self, octets: u64) {
        self.ledger.release(octets);
    }
}

fn encode(progress: &Progress) -> Result<Vec<u8>, SpoolError> {
    format::encode_progress(progress).map_err(SpoolError::Envelope)
}

/// Takes the lock that keeps other programs out. It goes with the file, however the process ends.
fn lock(layout: &Layout) -> Result<File, SpoolError> {
    let path = layout.lock();
    let file = layout::create(&path).map_err(|error| SpoolError::disk("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(layout.root().into())),
        Err(TryLockError::Error(error)) => Err(SpoolError::disk("lock", &path, error)),
    }
}

/// Runs work on the disk where waiting for it holds up nobody else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    spawn_blocking(work).await.map_err(|_| SpoolError::Closing)?
}

#[cfg(test)]
mod tests;
