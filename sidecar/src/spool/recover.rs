//! What a start finds: looks through the spool once and puts it in order.
//!
//! Owns what becomes of everything that may lie there. Half-written files go, as nobody was told 250 for them; an entry
//! that is not whole, and any file that is not ours, is set aside; progress without an entry goes; the rest is entered
//! in the ledger. An entry that the disk does not give now (no permission, no descriptors, an error of the device) may be
//! whole: it waits like any other, and is read again when it is due. Nothing that is found stops the start, and nothing
//! that may be somebody's message is deleted. Heads are read, contents only when a message is taken up again, so that a
//! full spool does not hold up a start. Blocking.

use std::collections::HashSet;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::batch::remove;
use super::entry::{Kind, Progress};
use super::error::SpoolError;
use super::layout::{Layout, Name, Shelf};
use super::ledger::{Held, Ledger, cost};
use super::moves::{set_aside, set_aside_state};
use super::read::{self, HEAD_BYTES, ReadError};
use crate::message::envelope::{Address, QueueId};

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The messages that wait, in the order in which they were accepted.
    pub waiting: Vec<Waiting>,
    /// Messages that were given up before.
    pub dead: usize,
    /// Files that were set aside now.
    pub set_aside: usize,
}

/// A message that waits to be delivered: what a schedule needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which one.
    pub id: QueueId,
    /// Where it came from.
    pub kind: Kind,
    /// When it was taken.
    pub accepted: Timestamp,
    /// Since when it is tried.
    pub since: Timestamp,
    /// Not to be tried before.
    pub next: Timestamp,
    /// Not to be tried before either, as another pod does.
    pub reserved_until: Option<Timestamp>,
    /// Attempts made so far.
    pub attempts: u32,
    /// Octets of the message.
    pub bytes: u64,
    /// The mailbox that sends it, where the route has several.
    pub mailbox: Option<Address>,
}

/// Puts the spool in order and enters what is there in the ledger.
///
/// # Errors
/// When a directory cannot be listed.
pub(super) fn recover(layout: &Layout, ledger: &Ledger) -> Result<Recovered, SpoolError> {
    for leftover in list(&layout.tmp())? {
        discard(&leftover.path());
    }
    for aside in list(&layout.corrupt())? {
        ledger.set_aside(aside.metadata().map_or(0, |file| cost(file.len())));
    }
    let mut found = Found { layout, ledger, recovered: Recovered::default() };
    found.shelf(Shelf::Dead)?;
    found.shelf(Shelf::Queue)?;
    found.recovered.waiting.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found.recovered)
}

fn list(directory: &Path) -> Result<Vec<DirEntry>, SpoolError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect);
    entries.map_err(|error| SpoolError::disk("list", directory, error))
}

/// Removes what nobody needs. It may stay when that does not work, as nothing reads it.
fn discard(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed {
        tracing::warn!(file = %path.display(), %error, "a leftover in the spool cannot be removed");
    }
}

struct Found<'a> {
    layout: &'a Layout,
    ledger: &'a Ledger,
    recovered: Recovered,
}

impl Found<'_> {
    fn shelf(&mut self, shelf: Shelf) -> Result<(), SpoolError> {
        let (mut entries, mut states) = (Vec::new(), HashSet::new());
        for file in list(&self.layout.shelf(shelf))? {
            // Where the disk does not say, the name does; reading it will tell.
            let is_file = file.file_type().map_or(true, |kind| kind.is_file());
            match file.file_name().to_str().and_then(Name::parse) {
                Some(Name::Entry(id)) if is_file => entries.push((id, file)),
                Some(Name::State(id)) if is_file => _ = states.insert(id),
                _ => _ = self.set_aside(&file.path(), "not a file of the spool"),
            }
        }
        for (id, file) in entries {
            let has_state = states.remove(&id);
            match shelf {
                Shelf::Queue => self.waiting(id, has_state),
                Shelf::Dead => self.dead(id, &file, has_state),
            }
        }
        for id in states {
            if let Err(error) = remove(&self.layout.state(shelf, &id)) {
                tracing::warn!(%error, "a leftover in the spool cannot be removed");
            }
        }
        Ok(())
    }

    fn dead(&mut self, id: QueueId, file: &DirEntry, has_state: bool) {
        let len = file.metadata().map_or(0, |file| file.len());
        self.ledger.enter(Shelf::Dead, id, Held { cost: cost(len), has_state, intact: false });
        self.recovered.dead += 1;
    }

    fn waiting(&mut self, id: QueueId, has_state: bool) {
        let path = self.layout.entry(Shelf::Queue, &id);
        let opened = match read::open(&path, &id, HEAD_BYTES) {
            Ok(opened) => opened,
            Err(ReadError::Disk(error)) => return self.unread(id, &path, has_state, &error),
            Err(ReadError::Damaged(error)) => {
                if let Some(entry) = self.set_aside(&path, &error.to_string()).filter(|_| has_state) {
                    self.set_aside_state(&id, &entry);
                }
                return;
            }
        };
        let progress =
            if has_state { self.progress(&id, opened.entry.envelope.recipients.len()) } else { None };
        let Progress { next, attempts, since, reserved_until, .. } =
            progress.unwrap_or_else(|| Progress::fresh(&opened.entry));
        let held = Held { cost: cost(opened.len), has_state, intact: false };
        self.ledger.enter(Shelf::Queue, id.clone(), held);
        let (kind, accepted, bytes) = (opened.entry.kind, opened.entry.accepted, opened.bytes);
        let since = since.unwrap_or(accepted);
        let mailbox = opened.entry.envelope.mailbox.clone();
        let waiting = Waiting { id, kind, accepted, since, next, reserved_until, attempts, bytes, mailbox };
        self.recovered.waiting.push(waiting);
    }

    /// A message that cannot be read now. It is due at once, and its age counts from when its file was written, as nothing
    /// else is known of it.
    fn unread(&mut self, id: QueueId, path: &Path, has_state: bool, error: &io::Error) {
        tracing::error!(queue_id = %id, %error, "a queued message cannot be read now; trying again later");
        let file = path.symlink_metadata();
        let bytes = file.as_ref().map_or(0, Metadata::len);
        let written = file.and_then(|file| file.modified()).ok().and_then(|at| Timestamp::try_from(at).ok());
        self.ledger.enter(Shelf::Queue, id.clone(), Held { cost: cost(bytes), has_state, intact: false });
        let written = written.unwrap_or(Timestamp::UNIX_EPOCH);
        self.recovered.waiting.push(Waiting {
            id,
            kind: Kind::Message,
            accepted: written,
            since: written,
            next: written,
            reserved_until: None,
            attempts: 0,
            bytes,
            mailbox: None,
        });
    }

    /// The progress of a message; `None` when it is damaged, as it may be after a power cut: the message then begins
    /// anew. Also when the disk does not give it now; then the message is not tried before it does.
    fn progress(&mut self, id: &QueueId, recipients: usize) -> Option<Progress> {
        let path = self.layout.state(Shelf::Queue, id);
        match read::progress(&path, recipients) {
            Ok(progress) => Some(progress),
            Err(ReadError::Disk(error)) => {
                tracing::warn!(queue_id = %id, %error, "a message's progress cannot be read now");
                None
            }
            Err(ReadError::Damaged(error)) => {
                self.set_aside(&path, &error.to_string());
                None
            }
        }
    }

    fn set_aside_state(&self, id: &QueueId, entry: &Path) {
        match set_aside_state(self.layout, Shelf::Queue, id, entry) {
            Ok(Some(len)) => self.ledger.set_aside(cost(len)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a damaged message's progress cannot be set aside"),
        }
    }

    /// Gives where the file is now, unless it cannot be moved.
    fn set_aside(&mut self, path: &Path, why: &str) -> Option<PathBuf> {
        let len = path.symlink_metadata().map_or(0, |file| file.len());
        let aside = match set_aside(self.layout, path) {
            Ok(to) => {
                tracing::error!(file = %to.display(), why, "set aside a file of the spool");
                Some(to)
            }
            Err(error) => {
                tracing::error!(%error, why, "a damaged file of the spool cannot be set aside");
                None
            }
        };
        self.recovered.set_aside += 1;
        self.ledger.set_aside(cost(len));
        aside
    }
}
