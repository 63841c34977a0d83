//! One kept message, put together from its files, and a look at all of them from another program.
//!
//! Owns what is done when the two files do not fit together. [`View`] takes no lock and changes nothing, so that a
//! person can look while the sidecar runs; what it lists may be gone when it is read, and that is no error.

use std::fs;
use std::io;
use std::path::Path;

use super::entry::{Entry, Progress};
use super::error::SpoolError;
use super::layout::{Layout, Name, Shelf};
use super::read::{self, HEAD_BYTES, ReadError};
use crate::message::body::{Body, MEMORY_BYTES};
use crate::message::envelope::QueueId;

/// A kept message.
#[derive(Debug)]
pub struct Kept {
    /// Where it is.
    pub shelf: Shelf,
    /// What never changes.
    pub entry: Entry,
    /// How far it has come.
    pub progress: Progress,
    /// The message. Large ones are read from the spool as they are asked for.
    pub body: Body,
}

/// A kept message without its octets.
#[derive(Debug)]
pub struct Glance {
    /// Where it is.
    pub shelf: Shelf,
    /// What never changes.
    pub entry: Entry,
    /// How far it has come.
    pub progress: Progress,
    /// Octets of the message.
    pub bytes: u64,
}

/// Whether to read the content before it is relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It was written by this process.
    Head,
    /// It was found at the start.
    Content,
}

/// Reads a message. Blocking.
pub(super) fn fetch(layout: &Layout, shelf: Shelf, id: &QueueId, check: Check) -> Result<Kept, ReadError> {
    let opened = read::open(&layout.entry(shelf, id), id, MEMORY_BYTES)?;
    if check == Check::Content {
        opened.check()?;
    }
    let progress = progress_of(layout, shelf, &opened.entry)?;
    let (entry, body) = opened.into_parts();
    Ok(Kept { shelf, entry, progress, body })
}

/// The progress of a message. It begins anew when there is none, or when it is damaged, as it may be after a power cut:
/// nobody's fate was sealed then, since that would have been synced.
fn progress_of(layout: &Layout, shelf: Shelf, entry: &Entry) -> io::Result<Progress> {
    match read::progress(&layout.state(shelf, &entry.envelope.id), entry.envelope.recipients.len()) {
        Ok(progress) => Ok(progress),
        Err(ReadError::Disk(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(Progress::fresh(entry)),
    }
}

/// The spool of a program that may be running.
#[derive(Debug)]
pub struct View {
    layout: Layout,
}

impl View {
    /// Looks at the spool in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { layout: Layout::new(directory) }
    }

    /// The messages on a shelf, in the order in which they were accepted. Blocking.
    ///
    /// # Errors
    /// When the shelf cannot be listed. One that is not there yet is empty.
    pub fn ids(&self, shelf: Shelf) -> Result<Vec<QueueId>, SpoolError> {
        let entry = |name: String| match Name::parse(&name) {
            Some(Name::Entry(id)) => Some(id),
            _ => None,
        };
        let mut ids: Vec<_> = names(&self.layout.shelf(shelf))?.into_iter().filter_map(entry).collect();
        ids.sort();
        Ok(ids)
    }

    /// Names of the files that were set aside. Blocking.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn corrupt(&self) -> Result<Vec<String>, SpoolError> {
        let mut names = names(&self.layout.corrupt())?;
        names.sort();
        Ok(names)
    }

    /// One message; `None` when it is not there, or not any more. Its content is not compared with what was written:
    /// [`View::check`] does that. Blocking.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, id: &QueueId) -> Result<Option<Kept>, SpoolError> {
        self.look(id, |shelf| fetch(&self.layout, shelf, id, Check::Head))
    }

    /// One message without its octets: a few kibibytes are read. `None` when it is not there, or not any more. Blocking.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn glance(&self, id: &QueueId) -> Result<Option<Glance>, SpoolError> {
        self.look(id, |shelf| {
            let opened = read::open(&self.layout.entry(shelf, id), id, HEAD_BYTES)?;
            let progress = progress_of(&self.layout, shelf, &opened.entry)?;
            Ok(Glance { shelf, bytes: opened.bytes, entry: opened.entry, progress })
        })
    }

    /// Whether a message's content is what was written; `None` when it is not there. Blocking.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn check(&self, id: &QueueId) -> Result<Option<()>, SpoolError> {
        self.look(id, |shelf| read::open(&self.layout.entry(shelf, id), id, HEAD_BYTES)?.check())
    }

    fn look<T>(
        &self,
        id: &QueueId,
        read: impl Fn(Shelf) -> Result<T, ReadError>,
    ) -> Result<Option<T>, SpoolError> {
        // Again the queue, for one that came back from the dead in between.
        for shelf in [Shelf::Queue, Shelf::Dead, Shelf::Queue] {
            match read(shelf) {
                Ok(found) => return Ok(Some(found)),
                Err(ReadError::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(ReadError::Disk(error)) => {
                    return Err(SpoolError::disk("read", &self.layout.entry(shelf, id), error));
                }
                Err(ReadError::Damaged(source)) => {
                    return Err(SpoolError::Damaged { id: id.clone(), source });
                }
            }
        }
        Ok(None)
    }
}

fn names(directory: &Path) -> Result<Vec<String>, SpoolError> {
    let listed = fs::read_dir(directory).and_then(|files| {
        files.map(|file| file.map(|file| file.file_name().to_string_lossy().into_owned())).collect()
    });
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        listed => listed.map_err(|error| SpoolError::disk("list", directory, error)),
    }
}
