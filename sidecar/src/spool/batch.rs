//! One batch of new messages, all the way to durable.
//!
//! ```text
//!  write each to tmp/ ─ sync each ─ rename each to queue/ ─ sync queue/ once ─ keep
//! ```
//!
//! Owns the order of these steps, and what they share. On a journalling file system a message alone takes two commits of
//! the journal. So does a batch, since the disk is told to begin with every file before the first one is waited for: the
//! commit for the first then has them all (on ext4, 2 commits for 20 messages; without that, 21). Small messages are written into the files of messages that are gone, where there are any (see `reusable`).
//!
//! Invariants: nothing is in `queue/` that is not whole and synced; a message that could not be made durable, or that
//! nobody keeps, is taken back; a failed sync is never tried again, since the second would lie.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use tokio::sync::oneshot;

use super::copy;
use super::error::SpoolError;
use super::layout::{Layout, Shelf, create, sync_directory};
use super::ledger::Room;
use super::replace::{Survive, replace};
use super::reusable::{ReusableFile, ReusableFiles};
use crate::message::body::Body;
use crate::message::envelope::QueueId;

/// One part of a batch.
pub(super) enum Store {
    /// Make a message durable, and tell.
    Message(Order, oneshot::Sender<Result<Draft, SpoolError>>),
    /// Make durable what was removed before.
    Sync,
}

/// A message to write.
pub(super) struct Order {
    pub id: QueueId,
    pub head: Vec<u8>,
    /// Its progress, when there is any already.
    pub state: Option<Vec<u8>>,
    pub body: Body,
    pub room: Room,
}

/// Does a batch.
pub(super) fn run(layout: &Arc<Layout>, reusable: &ReusableFiles, batch: impl IntoIterator<Item = Store>) {
    let write = |store| match store {
        Store::Message(order, done) => Some((Draft::write(layout, reusable, order), done)),
        Store::Sync => None,
    };
    let drafts: Drafts = batch.into_iter().filter_map(write).collect();
    if drafts.len() > 1 {
        drafts.iter().filter_map(|(draft, _)| draft.as_ref().ok()).for_each(Draft::begin_sync);
    }
    let drafts = each(each(drafts, Draft::sync), Draft::place);
    let gone = reusable.gone();
    let synced = sync_directory(&layout.shelf(Shelf::Queue));
    for (draft, done) in drafts {
        // Whoever does not listen any more was not told that the message is kept: it is dropped here, and taken back.
        let _ = done.send(draft.and_then(|draft| match &synced {
            Ok(()) => Ok(draft),
            Err(error) => Err(error.repeat()),
        }));
    }
    match synced {
        Ok(()) => reusable.clear(gone),
        Err(_) => reusable.give_up(gone),
    }
}

type Drafts = Vec<(Result<Draft, SpoolError>, oneshot::Sender<Result<Draft, SpoolError>>)>;

/// One step of all that got so far, before any of them takes the next.
fn each(drafts: Drafts, step: impl Fn(Draft) -> Result<Draft, SpoolError>) -> Drafts {
    drafts.into_iter().map(|(draft, done)| (draft.and_then(&step), done)).collect()
}

/// A message on its way into the queue. Dropped before it is kept, it is taken back.
pub(super) struct Draft {
    layout: Arc<Layout>,
    id: QueueId,
    file: File,
    /// Where it is now.
    path: PathBuf,
    /// Its progress, as long as that is not written.
    state: Option<Vec<u8>>,
    has_state: bool,
    /// Absent once it is kept.
    room: Option<Room>,
}

impl Draft {
    /// Writes the message to `tmp/`, without waiting for the disk.
    fn write(layout: &Arc<Layout>, reusable: &ReusableFiles, order: Order) -> Result<Self, SpoolError> {
        let Order { id, head, state, body, room } = order;
        let len = head.len() as u64 + body.len();
        let (file, path) = match reusable.take(len) {
            Some(ReusableFile { file, path }) => (file, path),
            None => fresh(layout.tmp().join(id.as_str()))?,
        };
        let has_state = state.is_some();
        let draft = Self { layout: Arc::clone(layout), id, file, path, state, has_state, room: Some(room) };
        let written = copy::message(&draft.file, &head, &body).and_then(|()| draft.file.set_len(len));
        written.map_err(|error| SpoolError::disk("write", &draft.path, error))?;
        Ok(draft)
    }

    /// Lets the disk begin without waiting for it. Linux takes the advice that a file is not needed soon as a request to
    /// write it; elsewhere it does nothing.
    fn begin_sync(&self) {
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Makes the octets durable. Who finds the file from now on may read it.
    fn sync(self) -> Result<Self, SpoolError> {
        match self.file.sync_data().and_then(|()| self.file.unlock()) {
            Ok(()) => Ok(self),
            Err(error) => Err(SpoolError::disk("sync", &self.path, error)),
        }
    }

    /// Gives it its place, progress first: an entry is never there without.
    fn place(mut self) -> Result<Self, SpoolError> {
        if let Some(state) = self.state.take() {
            let path = self.layout.state(Shelf::Queue, &self.id);
            replace(&self.layout, &path, &state, Survive::PowerCut)?;
        }
        let to = self.layout.entry(Shelf::Queue, &self.id);
        fs::rename(&self.path, &to).map_err(|error| SpoolError::disk("put in place", &to, error))?;
        self.path = to;
        Ok(self)
    }

    /// From now on the message is kept.
    pub fn keep(mut self) {
        if let Some(room) = self.room.take() {
            room.keep(self.id.clone(), self.has_state);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.room.is_some() {
            // What cannot be removed is delivered after the next start: once too often, which is allowed here.
            let _ = fs::remove_file(&self.path);
            if self.has_state {
                let _ = fs::remove_file(self.layout.state(Shelf::Queue, &self.id));
            }
        }
    }
}

fn fresh(path: PathBuf) -> Result<(File, PathBuf), SpoolError> {
    let file = create(&path).map_err(|error| SpoolError::disk("make", &path, error))?;
    Ok((file, path))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SpoolError::disk("remove", path, error)),
        _ => Ok(()),
    }
}
