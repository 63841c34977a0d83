//! Ids of messages that are gone for good, so that one which comes a second time is not delivered a second time.
//!
//! ```text
//! receipts       the newest, one id a line
//! receipts.old   those before them; the older half is forgotten when there are MOST newer ones
//! ```
//!
//! Only a gateway keeps them: a sidecar that has seen no answer hands its message over again, perhaps after a restart of either.
//!
//! Owns the two files. Blocking. Bounds: [`MOST`] ids in each, some 2 MiB of memory for both.
//!
//! Invariant: an id is durable here before the files of its message go.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::SpoolError;
use super::layout::{Layout, create, sync_directory};
use crate::lock;
use crate::message::envelope::QueueId;

/// Ids in one file. A mailbox that sends 30 messages a minute fills it in half a day.
const MOST: usize = 25_000;

/// Octets of one line.
const LINE: usize = 20;

/// Most octets of a file that are read.
const MAX_BYTES: u64 = (2 * MOST * LINE) as u64;

/// The ids of one spool; none are kept until [`Receipts::keep`].
pub(super) struct Receipts {
    layout: Arc<Layout>,
    /// Where the next are written. Held over the disk, and so by blocking threads alone.
    file: Mutex<Option<File>>,
    ids: Mutex<Ids>,
}

/// What is kept, in memory.
#[derive(Default)]
struct Ids {
    new: HashSet<QueueId>,
    old: HashSet<QueueId>,
}

impl Receipts {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, file: Mutex::default(), ids: Mutex::default() }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        lock(&self.ids)
    }

    /// Reads what was kept before, and keeps more from now on.
    ///
    /// # Errors
    /// When a file cannot be read or made.
    pub fn keep(&self) -> Result<(), SpoolError> {
        let path = self.layout.receipts();
        let (new, old) = (read(&path)?, read(&self.layout.old_receipts())?);
        let file = append(&path).map_err(|error| SpoolError::disk("open", &path, error))?;
        *lock(&self.file) = Some(file);
        *self.ids() = Ids { new, old };
        Ok(())
    }

    /// Whether a message is known to be gone. Does not wait for the disk.
    pub fn has(&self, id: &QueueId) -> bool {
        let ids = self.ids();
        ids.new.contains(id) || ids.old.contains(id)
    }

    /// Remembers these, durable when this returns. Does nothing where none are kept.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add<'a>(&self, gone: impl Iterator<Item = &'a QueueId>) -> Result<(), SpoolError> {
        let mut file = lock(&self.file);
        let Some(file) = file.as_mut() else { return Ok(()) };
        let (fresh, is_full) = {
            let ids = self.ids();
            let fresh: Vec<_> = gone.filter(|id| !ids.new.contains(*id)).cloned().collect();
            (fresh, ids.new.len() >= MOST)
        };
        if fresh.is_empty() {
            return Ok(());
        }
        if is_full {
            self.turn(file)?;
        }
        let lines: String = fresh.iter().map(|id| format!("{id}\n")).collect();
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|error| SpoolError::disk("write", &self.layout.receipts(), error))?;
        self.ids().new.extend(fresh);
        Ok(())
    }

    /// Begins a new file, and forgets the ids of the oldest.
    fn turn(&self, file: &mut File) -> Result<(), SpoolError> {
        let (path, old) = (self.layout.receipts(), self.layout.old_receipts());
        match fs::rename(&path, &old) {
            // An earlier turn came no further than this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(|error| SpoolError::disk("move", &path, error))?,
        }
        *file = create(&path).map_err(|error| SpoolError::disk("make", &path, error))?;
        {
            let mut ids = self.ids();
            ids.old = std::mem::take(&mut ids.new);
        }
        sync_directory(self.layout.root())
    }
}

/// To write behind what is there. A line that was cut off by a power cut is ended, so that the next one is whole.
fn append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// The ids in a file. Lines that are none, as after a power cut, are left out.
fn read(path: &Path) -> Result<HashSet<QueueId>, SpoolError> {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut octets)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SpoolError::disk("read", path, error));
        }
        _ => {}
    }
    let lines = octets.split(|&octet| octet == b'\n');
    Ok(lines.filter_map(|line| QueueId::parse(std::str::from_utf8(line).ok()?)).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn id(n: usize) -> QueueId {
        QueueId::new(Timestamp::UNIX_EPOCH, n as u64)
    }

    fn kept(root: &Path) -> Receipts {
        let layout = Layout::new(root);
        layout.make().unwrap();
        let receipts = Receipts::new(Arc::new(layout));
        receipts.keep().unwrap();
        receipts
    }

    #[test]
    fn what_is_gone_is_known_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let receipts = kept(root.path());
        receipts.add([id(1), id(2)].iter()).unwrap();
        assert!(receipts.has(&id(1)) && !receipts.has(&id(3)));
        let receipts = kept(root.path());
        assert!(receipts.has(&id(1)) && receipts.has(&id(2)) && !receipts.has(&id(3)));
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_the_memory_has_a_bound() {
        let root = tempfile::tempdir().unwrap();
        let receipts = kept(root.path());
        for first in (0..3).map(|file| file * MOST) {
            let ids: Vec<_> = (first..first + MOST).map(id).collect();
            receipts.add(ids.iter()).unwrap();
        }
        for receipts in [receipts, kept(root.path())] {
            assert!(!receipts.has(&id(MOST - 1)));
            assert!(receipts.has(&id(MOST)) && receipts.has(&id(3 * MOST - 1)));
        }
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let root = tempfile::tempdir().unwrap();
        kept(root.path()).add([id(1)].iter()).unwrap();
        let path = Layout::new(root.path()).receipts();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}000\0")).unwrap();
        kept(root.path()).add([id(2)].iter()).unwrap();
        let receipts = kept(root.path());
        assert!(receipts.has(&id(1)) && receipts.has(&id(2)));
    }

    #[test]
    fn a_sidecar_keeps_none() {
        let root = tempfile::tempdir().unwrap();
        let receipts = Receipts::new(Arc::new(Layout::new(root.path())));
        receipts.add([id(1)].iter()).unwrap();
        assert!(!receipts.has(&id(1)) && !Layout::new(root.path()).receipts().exists());
    }
}
