//! Files of small messages that are gone, to be written again.
//!
//! ```text
//!  queue/<id> ─retire─► tmp/spare-n ─the directory is synced─► cleared ─take─► tmp/spare-n ─(see `batch`)─► queue/<id>
//! ```
//!
//! Removing a file frees its blocks. On a volume that is mounted with `discard`, as most nodes of the clouds mount
//! theirs, the next sync then waits until the device has been told: that, and not the sync, is what bounds a spool that
//! fills and empties all the time. A file that is written again frees nothing, and most often takes no new block.
//!
//! Owns at most [`MOST`] files of at most [`REUSED_BYTES`] each, 4 MiB beside what the ledger counts.
//! Blocking.
//!
//! Invariants: a file is written again only when it is durable that its message is gone, so that no end of the program
//! or of the node leaves one message's name on another's octets; the octets of a message that is gone are overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch::remove;
use super::error::SpoolError;
use super::layout::{Layout, Shelf};
use super::ledger::blocks;
use super::read::REUSED_BYTES;

/// Most files that are kept to be written again: what comes and goes in one batch.
const MOST: usize = 64;

/// The files of one spool.
pub(super) struct Spares {
    layout: Arc<Layout>,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    /// Not known to be gone from the queue after a power cut.
    gone: Vec<PathBuf>,
    /// Cleared, by the number of their blocks.
    ready: BTreeMap<u64, Vec<Spare>>,
    /// How many there are, those being cleared included.
    held: usize,
    serial: u64,
}

/// A file to write: empty of meaning, not of octets.
#[derive(Debug)]
pub(super) struct Spare {
    pub file: File,
    pub path: PathBuf,
}

impl Spares {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, stock: Mutex::default() }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message's file out of the queue: to be written again, or to be removed when it is too large or there are
    /// enough. One that is not there is no error. Durable with the next sync of the directory.
    ///
    /// # Errors
    /// When it can be neither moved nor removed.
    pub fn retire(&self, path: &Path) -> Result<(), SpoolError> {
        let suits = path.parent() == Some(&self.layout.shelf(Shelf::Queue))
            && path.symlink_metadata().is_ok_and(|file| file.len() <= REUSED_BYTES);
        let Some(to) = suits.then(|| self.name()).flatten() else { return remove(path) };
        if fs::rename(path, &to).is_err() {
            self.stock().held -= 1;
            return remove(path);
        }
        self.stock().gone.push(to);
        Ok(())
    }

    /// A name for one more, if there may be one more.
    fn name(&self) -> Option<PathBuf> {
        let mut stock = self.stock();
        if stock.held == MOST {
            return None;
        }
        stock.held += 1;
        stock.serial += 1;
        Some(self.layout.tmp().join(format!("spare-{}", stock.serial)))
    }

    /// Those that the next sync of the queue's directory makes durable. To be asked for before it, and given to
    /// [`Spares::clear`] after it.
    pub fn gone(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.stock().gone)
    }

    /// Overwrites the octets of these files, which are then ready. Those that cannot be are removed.
    pub fn clear(&self, gone: Vec<PathBuf>) {
        for path in gone {
            let cleared = clear(&path);
            let mut stock = self.stock();
            match cleared {
                Ok((file, len)) => stock.ready.entry(blocks(len)).or_default().push(Spare { file, path }),
                Err(_) => {
                    stock.held -= 1;
                    // It is found, and removed, at the next start at the latest.
                    let _ = fs::remove_file(&path);
                }
            }
        }
    }

    /// Removes these files: the directory could not be synced, and nobody knows what a power cut would bring back.
    pub fn give_up(&self, gone: Vec<PathBuf>) {
        for path in gone {
            self.stock().held -= 1;
            let _ = fs::remove_file(path);
        }
    }

    /// The largest file that gives no block back when `bytes` octets are written into it, if there is one.
    pub fn take(&self, bytes: u64) -> Option<Spare> {
        let mut stock = self.stock();
        let (_, files) = stock.ready.range_mut(..=blocks(bytes)).rfind(|(_, files)| !files.is_empty())?;
        let spare = files.pop();
        stock.held -= usize::from(spare.is_some());
        spare
    }
}

fn clear(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len().min(REUSED_BYTES);
    file.write_all_at(&vec![0; usize::try_from(len).unwrap_or_default()], 0)?;
    Ok((file, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        root: tempfile::TempDir,
        layout: Arc<Layout>,
        spares: Spares,
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let layout = Arc::new(Layout::new(root.path()));
            layout.make().unwrap();
            Self { root, layout: Arc::clone(&layout), spares: Spares::new(layout) }
        }

        fn retired(&self, name: &str, octets: &[u8]) -> PathBuf {
            let path = self.layout.shelf(Shelf::Queue).join(name);
            fs::write(&path, octets).unwrap();
            self.spares.retire(&path).unwrap();
            assert!(!path.exists());
            path
        }

        fn cleared(&self, name: &str, octets: &[u8]) {
            self.retired(name, octets);
            self.spares.clear(self.spares.gone());
        }

        fn kept(&self) -> usize {
            fs::read_dir(self.layout.tmp()).unwrap().count()
        }
    }

    #[test]
    fn a_file_is_ready_only_when_its_going_is_durable_and_is_cleared_then() {
        let scene = Scene::new();
        scene.retired("one", b"secret");
        assert!(scene.spares.take(100).is_none());
        let gone = scene.spares.gone();
        assert!(scene.spares.take(100).is_none());
        scene.spares.clear(gone);
        let spare = scene.spares.take(100).unwrap();
        assert_eq!(fs::read(&spare.path).unwrap(), [0; 6]);
        assert!(scene.spares.take(100).is_none(), "it is taken once");
    }

    #[test]
    fn a_file_is_taken_that_gives_no_block_back() {
        let scene = Scene::new();
        for (name, blocks) in [("two", 2), ("three", 3), ("five", 5)] {
            scene.cleared(name, &vec![1; blocks * 4096]);
        }
        let blocks =
            |bytes| scene.spares.take(bytes).map(|spare| spare.file.metadata().unwrap().len() / 4096);
        assert_eq!(blocks(4096), None);
        assert_eq!(blocks(4 * 4096), Some(3));
        assert_eq!(blocks(4 * 4096), Some(2));
        assert_eq!(blocks(4 * 4096), None);
        assert_eq!(blocks(60_000), Some(5));
    }

    #[test]
    fn what_is_too_large_too_many_or_no_waiting_message_is_removed() {
        let scene = Scene::new();
        scene.retired("large", &vec![1; REUSED_BYTES as usize + 1]);
        assert_eq!(scene.kept(), 0);
        let dead = scene.layout.shelf(Shelf::Dead).join("dead");
        fs::write(&dead, "x").unwrap();
        scene.spares.retire(&dead).unwrap();
        assert!(!dead.exists() && scene.kept() == 0);
        for serial in 0..MOST + 5 {
            scene.retired(&serial.to_string(), b"x");
        }
        assert_eq!(scene.kept(), MOST);
        scene.spares.retire(&scene.root.path().join("queue/never")).unwrap();
        scene.spares.give_up(scene.spares.gone());
        assert_eq!(scene.kept(), 0);
        scene.cleared("again", b"x");
        assert_eq!(scene.kept(), 1);
    }
}
