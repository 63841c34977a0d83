//! Ids of messages that are gone for good, so that one which comes a second time is not delivered a second time.
//!
//! ```text
//! receipts       the newest, one id a line
//! receipts.old   those before them; the older half is forgotten when there are MOST newer ones
//! ```
//!
//! Only a gateway keeps them: a sidecar that has seen no answer hands its message over again, perhaps after a restart of either.
//!
//! Owns the two files. Blocking. Bounds: [`MOST`] ids in each, some 2 MiB of memory for both; twice as many of the newest while the
//! volume is full.
//!
//! Invariants: an id is durable here before the files of its message go, unless the volume is full: a removal never needs room. Such an id
//! is known to this program, and written with the next that is. No line is written behind half of another.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::{Full, SpoolError};
use super::layout::{Layout, sync_directory};
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
    /// Held over the disk, and so by blocking threads alone.
    log: Mutex<Option<Log>>,
    ids: Mutex<Ids>,
}

/// Where the next ids are written.
struct Log {
    file: File,
    /// Octets of whole lines in it.
    len: u64,
    /// A write may have left half a line behind them.
    is_torn: bool,
    /// Ids that the full volume did not take.
    unwritten: Vec<QueueId>,
}

/// What is kept, in memory.
#[derive(Default)]
struct Ids {
    new: HashSet<QueueId>,
    old: HashSet<QueueId>,
}

impl Receipts {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, log: Mutex::default(), ids: Mutex::default() }
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
        // What is behind the last whole line is half of one, as after a power cut.
        let file = open(&path, new.len).map_err(|error| SpoolError::disk("open", &path, error))?;
        *lock(&self.log) = Some(Log { file, len: new.len, is_torn: false, unwritten: Vec::new() });
        *self.ids() = Ids { new: new.ids, old: old.ids };
        Ok(())
    }

    /// Whether a message is known to be gone. Does not wait for the disk.
    pub fn has(&self, id: &QueueId) -> bool {
        let ids = self.ids();
        ids.new.contains(id) || ids.old.contains(id)
    }

    /// Remembers these, durable when this returns, unless the volume is full. Does nothing where none are kept.
    ///
    /// # Errors
    /// When they cannot be written for another reason.
    pub fn add<'a>(&self, gone: impl Iterator<Item = &'a QueueId>) -> Result<(), SpoolError> {
        let mut log = lock(&self.log);
        let Some(log) = log.as_mut() else { return Ok(()) };
        let (fresh, len) = {
            let ids = self.ids();
            let fresh: Vec<_> = gone.filter(|id| !ids.new.contains(*id)).cloned().collect();
            (fresh, ids.new.len())
        };
        if fresh.is_empty() {
            return Ok(());
        }
        match self.write(log, &fresh, len >= MOST) {
            Ok(()) => log.unwritten.clear(),
            Err(SpoolError::Full(Full::Volume(error))) => {
                if log.unwritten.is_empty() {
                    tracing::error!(
                        %error,
                        "the spool's volume is full: messages that are gone are removed without a record of it, and could be \
                         delivered again if a pod hands them over after a restart of this gateway"
                    );
                }
                if len >= 2 * MOST {
                    return Ok(());
                }
                log.unwritten.extend(fresh.iter().cloned());
            }
            Err(error) => return Err(error),
        }
        self.ids().new.extend(fresh);
        Ok(())
    }

    fn write(&self, log: &mut Log, fresh: &[QueueId], is_full: bool) -> Result<(), SpoolError> {
        if is_full {
            self.turn(log)?;
        }
        let written = log.append(fresh);
        written.map_err(|error| SpoolError::disk("write", &self.layout.receipts(), error))
    }

    /// Begins a new file, and forgets the ids of the oldest.
    fn turn(&self, log: &mut Log) -> Result<(), SpoolError> {
        let (path, old) = (self.layout.receipts(), self.layout.old_receipts());
        match fs::rename(&path, &old) {
            // An earlier turn came no further than this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(|error| SpoolError::disk("move", &path, error))?,
        }
        log.file = open(&path, 0).map_err(|error| SpoolError::disk("make", &path, error))?;
        (log.len, log.is_torn) = (0, false);
        {
            let mut ids = self.ids();
            ids.old = std::mem::take(&mut ids.new);
        }
        sync_directory(self.layout.root())
    }
}

impl Log {
    /// Writes those that were not written before, and these.
    fn append(&mut self, fresh: &[QueueId]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.len)?;
        }
        let lines: String = self.unwritten.iter().chain(fresh).map(|id| format!("{id}\n")).collect();
        self.is_torn = true;
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        if written.is_ok() {
            self.len += lines.len() as u64;
            self.is_torn = false;
        } else if self.file.set_len(self.len).is_ok() {
            self.is_torn = false;
        }
        written
    }
}

/// To write behind the first `len` octets of a file.
fn open(path: &Path, len: u64) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.set_len(len)?;
    Ok(file)
}

/// The ids in a file, and the octets of its whole lines.
#[derive(Default)]
struct Found {
    ids: HashSet<QueueId>,
    len: u64,
}

/// The ids in a file. Lines that are none, as after a power cut, are left out.
fn read(path: &Path) -> Result<Found, SpoolError> {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut octets)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SpoolError::disk("read", path, error));
        }
        _ => {}
    }
    let len = octets.iter().rposition(|&octet| octet == b'\n').map_or(0, |end| end + 1);
    let lines = octets[..len].split(|&octet| octet == b'\n');
    let ids = lines.filter_map(|line| QueueId::parse(std::str::from_utf8(line).ok()?)).collect();
    Ok(Found { ids, len: len as u64 })
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
    fn a_full_volume_keeps_nothing_from_going_and_the_ids_are_written_when_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        let receipts = kept(root.path());
        let full = File::options().append(true).open("/dev/full").unwrap();
        let with_room = std::mem::replace(&mut lock(&receipts.log).as_mut().unwrap().file, full);
        receipts.add([id(1), id(2)].iter()).unwrap();
        assert!(receipts.has(&id(1)) && receipts.has(&id(2)), "while this program runs");
        let path = Layout::new(root.path()).receipts();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        lock(&receipts.log).as_mut().unwrap().file = with_room;
        receipts.add([id(3)].iter()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), [1, 2, 3].map(|n| format!("{}\n", id(n))).concat());
    }

    #[test]
    fn half_a_line_is_taken_back_before_another_is_written() {
        let root = tempfile::tempdir().unwrap();
        let receipts = kept(root.path());
        receipts.add([id(1)].iter()).unwrap();
        // As a write that did not get far, and could not be taken back.
        let mut half = File::options().append(true).open(Layout::new(root.path()).receipts()).unwrap();
        half.write_all(&id(2).as_str().as_bytes()[..7]).unwrap();
        lock(&receipts.log).as_mut().unwrap().is_torn = true;
        receipts.add([id(3)].iter()).unwrap();
        let receipts = kept(root.path());
        assert!(receipts.has(&id(1)) && receipts.has(&id(3)));
    }

    #[test]
    fn a_disk_that_refuses_ids_for_another_reason_keeps_their_messages() {
        let root = tempfile::tempdir().unwrap();
        let receipts = kept(root.path());
        let read_only = File::open(Layout::new(root.path()).receipts()).unwrap();
        lock(&receipts.log).as_mut().unwrap().file = read_only;
        receipts.add([id(1)].iter()).unwrap_err();
        assert!(!receipts.has(&id(1)));
    }

    #[test]
    fn a_sidecar_keeps_none() {
        let root = tempfile::tempdir().unwrap();
        let receipts = Receipts::new(Arc::new(Layout::new(root.path())));
        receipts.add([id(1)].iter()).unwrap();
        assert!(!receipts.has(&id(1)) && !Layout::new(root.path()).receipts().exists());
    }
}
