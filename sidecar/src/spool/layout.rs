//! What lies where under the spool directory.
//!
//! ```text
//! lock       held while a program has the spool open
//! socket     where a person's commands are taken while a program has the spool open
//! alive      where the kubelet's probe is answered while a program has the spool open
//! tmp/       being written, or cleared to be written again; emptied at every start, as nobody was told 250 for any of it
//! queue/     <id>  an accepted message    <id>.state  how far it has come
//! dead/      the same, for messages that were given up
//! corrupt/   files that could not be read again, as they were found
//! receipts, receipts.old  in a gateway: ids of messages that are gone
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::SpoolError;
use crate::message::envelope::QueueId;

/// Where a kept message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Waiting to be delivered.
    Queue,
    /// Given up.
    Dead,
}

/// What a file on a shelf is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A message.
    Entry(QueueId),
    /// A message's progress.
    State(QueueId),
}

impl Name {
    /// `None` for a name that is never given here.
    pub fn parse(name: &str) -> Option<Self> {
        match name.strip_suffix(STATE_SUFFIX) {
            Some(id) => QueueId::parse(id).map(Self::State),
            None => QueueId::parse(name).map(Self::Entry),
        }
    }
}

pub(super) const STATE_SUFFIX: &str = ".state";

/// What a file in `corrupt/` is, and the number behind its name, with the dot, where that was taken (see
/// [`super::moves::set_aside`]). `None` for a name that is never given to a file of the spool.
pub(super) fn parse_aside(name: &str) -> Option<(Name, &str)> {
    let number = name.rfind('.').filter(|&dot| name[dot + 1..].parse::<u32>().is_ok());
    let (own, number) = name.split_at(number.unwrap_or(name.len()));
    Some((Name::parse(own)?, number))
}

/// The paths under one spool directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The paths under `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The spool directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that is locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Where commands are taken.
    pub fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// Where the kubelet's probe is answered.
    pub fn alive(&self) -> PathBuf {
        self.root.join("alive")
    }

    /// Where files are while they are written.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where damaged files go.
    pub fn corrupt(&self) -> PathBuf {
        self.root.join("corrupt")
    }

    /// Ids of messages that are gone, the newest.
    pub(super) fn receipts(&self) -> PathBuf {
        self.root.join("receipts")
    }

    /// Those before them.
    pub(super) fn old_receipts(&self) -> PathBuf {
        self.root.join("receipts.old")
    }

    /// The directory of a shelf.
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(match shelf {
            Shelf::Queue => "queue",
            Shelf::Dead => "dead",
        })
    }

    /// A message's file.
    pub fn entry(&self, shelf: Shelf, id: &QueueId) -> PathBuf {
        self.shelf(shelf).join(id.as_str())
    }

    /// The file of a message's progress.
    pub fn state(&self, shelf: Shelf, id: &QueueId) -> PathBuf {
        self.shelf(shelf).join(format!("{id}{STATE_SUFFIX}"))
    }

    /// Makes what is missing, for the own user only.
    pub(super) fn make(&self) -> Result<(), SpoolError> {
        for directory in
            [self.root.clone(), self.tmp(), self.corrupt(), self.shelf(Shelf::Queue), self.shelf(Shelf::Dead)]
        {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| SpoolError::disk("make the directory", &directory, error))?;
        }
        sync_directory(&self.root)
    }
}

/// A new file for the own user only. An older one of the same name is a leftover and is overwritten.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), SpoolError> {
    let synced = File::open(path).and_then(|directory| match directory.sync_all() {
        // Volumes that have nothing to sync in a directory say so in this way.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    });
    synced.map_err(|error| SpoolError::disk("sync the directory", path, error))
}

/// Whether a file that was set aside has a message's progress, by its name.
pub fn is_progress(name: &str) -> bool {
    matches!(parse_aside(name), Some((Name::State(_), _)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let id = QueueId::new(Timestamp::UNIX_EPOCH, 1);
        let layout = Layout::new(Path::new("/spool"));
        let name = |path: PathBuf| Name::parse(path.file_name().unwrap().to_str().unwrap());
        assert_eq!(name(layout.entry(Shelf::Queue, &id)), Some(Name::Entry(id.clone())));
        assert_eq!(name(layout.state(Shelf::Dead, &id)), Some(Name::State(id)));
        assert_eq!(name("/spool/queue/notes.txt".into()), None);
    }

    #[test]
    fn what_was_set_aside_is_told_by_its_name() {
        let id = QueueId::new(Timestamp::UNIX_EPOCH, 1);
        for number in ["", ".1", ".20"] {
            assert_eq!(parse_aside(&format!("{id}{number}")), Some((Name::Entry(id.clone()), number)));
            assert_eq!(parse_aside(&format!("{id}.state{number}")), Some((Name::State(id.clone()), number)));
        }
        for name in ["notes.txt", "notes.1", "", ".1", "1.1.1", &format!("{id}.1.1"), &format!("{id}.x")] {
            assert_eq!(parse_aside(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_made_is_for_the_own_user_only() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(&root.path().join("new"));
        layout.make().unwrap();
        layout.make().unwrap();
        let file = layout.tmp().join("file");
        create(&file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(
            (mode(layout.root()), mode(&layout.shelf(Shelf::Dead)), mode(&file)),
            (0o700, 0o700, 0o600)
        );
    }
}
