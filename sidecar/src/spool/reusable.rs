//! Files of messages that are gone, to be written again.
//!
//! ```text
//!  queue/<id> ─retire─► tmp/spare-n ─the directory is synced─► cleared ─take─► tmp/spare-n ─(see `batch`)─► queue/<id>
//! ```
//!
//! Removing a file frees its blocks. On a volume that is mounted with `discard`, as Ubuntu's cloud images mount
//! theirs, the next sync then waits until the device has been told: that, and not the sync, is what bounds a spool that
//! fills and empties all the time. A file that is written again frees nothing, and most often takes no new block.
//!
//! Owns at most [`MOST`] files and [`MOST_BLOCKS`], 8 MiB beside what the ledger counts. Blocking.
//!
//! Invariants: a file is written again only when it is durable that its message is gone, so that no end of the program
//! or of the node leaves one message's name on another's octets; and only when nobody reads it, which a lock on it tells;
//! the octets of a message that is gone are overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::batch::remove;
use super::error::SpoolError;
use super::layout::{Layout, Shelf};
use super::ledger::{BLOCK, blocks};
use crate::lock;

/// Most files that are kept to be written again: what comes and goes in one batch.
const MOST: usize = 64;

/// Most blocks that they have together.
const MOST_BLOCKS: u64 = (8 << 20) / BLOCK;

/// Blocks of the largest of them.
const LARGEST: u64 = (1 << 20) / BLOCK;

/// The files of one spool.
pub(super) struct ReusableFiles {
    layout: Arc<Layout>,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    /// Not known to be gone from the queue after a power cut.
    gone: Vec<Gone>,
    /// Cleared, by the number of their blocks.
    ready: BTreeMap<u64, Vec<ReusableFile>>,
    /// How many there are, those being cleared included.
    held: usize,
    /// What they have together.
    held_blocks: u64,
    serial: u64,
}

/// The file of a message that is gone, with its octets.
#[derive(Debug)]
pub(super) struct Gone {
    path: PathBuf,
    blocks: u64,
}

/// A file to write, cleared. Locked, so that nobody reads it any more who found it under its old name.
#[derive(Debug)]
pub(super) struct ReusableFile {
    pub file: File,
    pub path: PathBuf,
}

impl Stock {
    /// Whether there may be one more file of so many blocks. Larger ones, which suit fewer messages, make room for it.
    fn has_room(&mut self, blocks: u64) -> bool {
        while self.held == MOST || self.held_blocks + blocks > MOST_BLOCKS {
            let Some((size, reusable)) = self.pop(blocks + 1..=LARGEST) else { return false };
            self.release(size);
            let _ = fs::remove_file(&reusable.path);
        }
        blocks <= LARGEST
    }

    /// The largest one that is ready among those with so many blocks.
    fn pop(&mut self, range: std::ops::RangeInclusive<u64>) -> Option<(u64, ReusableFile)> {
        if range.is_empty() {
            return None;
        }
        let (size, files) = self.ready.range_mut(range).rfind(|(_, files)| !files.is_empty())?;
        Some((*size, files.pop()?))
    }

    fn release(&mut self, blocks: u64) {
        self.held -= 1;
        self.held_blocks -= blocks;
    }
}

impl ReusableFiles {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, stock: Mutex::default() }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        lock(&self.stock)
    }

    /// Takes a message's file out of the queue: to be written again, or to be removed when it is too large or there are
    /// enough. One that is not there is no error. Durable with the next sync of the directory.
    ///
    /// # Errors
    /// When it can be neither moved nor removed.
    pub fn retire(&self, path: &Path) -> Result<(), SpoolError> {
        match path.symlink_metadata() {
            Ok(file) if path.parent() == Some(&self.layout.shelf(Shelf::Queue)) => {
                self.put_aside(path, blocks(file.len()))
            }
            _ => remove(path),
        }
    }

    fn put_aside(&self, path: &Path, blocks: u64) -> Result<(), SpoolError> {
        let mut stock = self.stock();
        if !stock.has_room(blocks) {
            drop(stock);
            return remove(path);
        }
        stock.serial += 1;
        let to = self.layout.tmp().join(format!("spare-{}", stock.serial));
        if fs::rename(path, &to).is_err() {
            return remove(path);
        }
        stock.held += 1;
        stock.held_blocks += blocks;
        stock.gone.push(Gone { path: to, blocks });
        Ok(())
    }

    /// Those that the next sync of the queue's directory makes durable. To be asked for before it, and given to
    /// [`ReusableFiles::clear`] after it.
    pub fn gone(&self) -> Vec<Gone> {
        std::mem::take(&mut self.stock().gone)
    }

    /// Overwrites the octets of these files, which are then ready. Those that cannot be, or that somebody reads, are
    /// removed.
    pub fn clear(&self, gone: Vec<Gone>) {
        for gone in gone {
            match clear(&gone.path) {
                Ok(file) => {
                    let reusable = ReusableFile { file, path: gone.path };
                    self.stock().ready.entry(gone.blocks).or_default().push(reusable);
                }
                Err(_) => self.give_up(vec![gone]),
            }
        }
    }

    /// Removes these files: the directory could not be synced, and nobody knows what a power cut would bring back.
    pub fn give_up(&self, gone: Vec<Gone>) {
        for Gone { path, blocks } in gone {
            self.stock().release(blocks);
            // One that stays is found, and removed, at the next start.
            let _ = fs::remove_file(path);
        }
    }

    /// The largest file that gives no block back when `bytes` octets are written into it, if there is one.
    pub fn take(&self, bytes: u64) -> Option<ReusableFile> {
        let mut stock = self.stock();
        let (size, reusable) = stock.pop(0..=blocks(bytes))?;
        stock.release(size);
        Some(reusable)
    }
}

fn clear(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?;
    let len = file.metadata()?.len();
    io::copy(&mut io::repeat(0).take(len), &mut file)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        root: tempfile::TempDir,
        layout: Arc<Layout>,
        reusable: ReusableFiles,
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let layout = Arc::new(Layout::new(root.path()));
            layout.make().unwrap();
            Self { root, layout: Arc::clone(&layout), reusable: ReusableFiles::new(layout) }
        }

        fn retired(&self, name: &str, octets: &[u8]) -> PathBuf {
            let path = self.layout.shelf(Shelf::Queue).join(name);
            fs::write(&path, octets).unwrap();
            self.reusable.retire(&path).unwrap();
            assert!(!path.exists());
            path
        }

        fn cleared(&self, name: &str, octets: &[u8]) {
            self.retired(name, octets);
            self.reusable.clear(self.reusable.gone());
        }

        fn kept(&self) -> usize {
            fs::read_dir(self.layout.tmp()).unwrap().count()
        }
    }

    #[test]
    fn a_file_is_ready_only_when_its_going_is_durable_and_is_cleared_then() {
        let scene = Scene::new();
        scene.retired("one", b"secret");
        assert!(scene.reusable.take(100).is_none());
        let gone = scene.reusable.gone();
        assert!(scene.reusable.take(100).is_none());
        scene.reusable.clear(gone);
        let reusable = scene.reusable.take(100).unwrap();
        assert_eq!(fs::read(&reusable.path).unwrap(), [0; 6]);
        assert!(scene.reusable.take(100).is_none(), "it is taken once");
    }

    #[test]
    fn a_file_is_taken_that_gives_no_block_back() {
        let scene = Scene::new();
        for (name, blocks) in [("two", 2), ("three", 3), ("five", 5)] {
            scene.cleared(name, &vec![1; blocks * 4096]);
        }
        let blocks =
            |bytes| scene.reusable.take(bytes).map(|reusable| reusable.file.metadata().unwrap().len() / 4096);
        assert_eq!(blocks(4096), None);
        assert_eq!(blocks(4 * 4096), Some(3));
        assert_eq!(blocks(4 * 4096), Some(2));
        assert_eq!(blocks(4 * 4096), None);
        assert_eq!(blocks(60_000), Some(5));
    }

    #[test]
    fn what_is_too_large_too_many_or_no_waiting_message_is_removed() {
        let scene = Scene::new();
        scene.retired("large", &vec![1; (LARGEST * BLOCK) as usize + 1]);
        assert_eq!(scene.kept(), 0);
        let dead = scene.layout.shelf(Shelf::Dead).join("dead");
        fs::write(&dead, "x").unwrap();
        scene.reusable.retire(&dead).unwrap();
        assert!(!dead.exists() && scene.kept() == 0);
        for serial in 0..MOST + 5 {
            scene.retired(&serial.to_string(), b"x");
        }
        assert_eq!(scene.kept(), MOST);
        scene.reusable.retire(&scene.root.path().join("queue/never")).unwrap();
        scene.reusable.give_up(scene.reusable.gone());
        assert_eq!(scene.kept(), 0);
        scene.cleared("again", b"x");
        assert_eq!(scene.kept(), 1);
    }

    #[test]
    fn large_files_make_room_for_small_ones() {
        let scene = Scene::new();
        let most = (LARGEST * BLOCK) as usize;
        for serial in 0..9 {
            scene.cleared(&serial.to_string(), &vec![1; most]);
        }
        assert_eq!(scene.kept(), 8, "as many as there may be blocks");
        scene.cleared("small", b"x");
        assert_eq!(scene.kept(), 8);
        assert_eq!(scene.reusable.take(100).unwrap().file.metadata().unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_somebody_reads_is_not_written_again() {
        let scene = Scene::new();
        let path = scene.layout.shelf(Shelf::Queue).join("read");
        fs::write(&path, "octets").unwrap();
        let mut reader = File::open(&path).unwrap();
        reader.try_lock_shared().unwrap();
        scene.reusable.retire(&path).unwrap();
        scene.reusable.clear(scene.reusable.gone());
        assert!(scene.reusable.take(100).is_none() && scene.kept() == 0);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "octets");
    }
}
