//! Reading a kept message back, without believing what is read.
//!
//! Owns the checks: the head is whole and about the right message, the file is as long as it says, the content is what
//! was written. Blocking. Costs 64 KiB of memory however large the message or damaged the file is, or the length of its
//! envelope if that is more.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::entry::{Entry, Progress};
use super::format;
use super::frame::{FormatError, MAX_JSON_BYTES};
use crate::message::body::{Body, MEMORY_BYTES};
use crate::message::envelope::QueueId;

/// Octets read at first when only the head matters. Most heads have less than 600.
pub const HEAD_BYTES: usize = 4096;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk did not give it.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// It is not what was written.
    #[error(transparent)]
    Damaged(#[from] FormatError),
}

/// An entry's file, open, with its head read.
pub struct Opened {
    /// What the message is.
    pub entry: Entry,
    /// Octets of the message.
    pub bytes: u64,
    /// Octets of the whole file.
    pub len: u64,
    crc32: u32,
    start: usize,
    file: File,
    /// What was read already, from the beginning of the file.
    beginning: Vec<u8>,
}

/// Opens the file of the message `id`, reading `first` octets or as many as its head has.
///
/// # Errors
/// When it cannot be read, or its head or length is not what was written. A message that went while its file was read
/// is not found: the file may be another's by then (see `reusable`).
pub fn open(path: &Path, id: &QueueId, first: usize) -> Result<Opened, ReadError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Nobody writes a file again that somebody has locked. One that is locked for writing is no message any more, and
    // one that got another name before the lock may be another's. Volumes without locks have no such files.
    let is_gone = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) || !is_at(path, &metadata)?;
    if is_gone {
        Err(io::Error::from(io::ErrorKind::NotFound).into())
    } else {
        parse(file, metadata.len(), id, first)
    }
}

/// Whether the file is still the one that has this name.
pub(super) fn is_at(path: &Path, file: &Metadata) -> io::Result<bool> {
    let there = path.symlink_metadata()?;
    Ok((there.dev(), there.ino()) == (file.dev(), file.ino()))
}

fn parse(file: File, len: u64, id: &QueueId, first: usize) -> Result<Opened, ReadError> {
    let mut beginning = Vec::new();
    read_up_to(&file, &mut beginning, first)?;
    let head = loop {
        match format::parse_entry(&beginning) {
            Err(FormatError::CutOff { needed }) if beginning.len() as u64 == len || needed as u64 > len => {
                return Err(FormatError::CutOff { needed }.into());
            }
            Err(FormatError::CutOff { needed }) => read_up_to(&file, &mut beginning, needed)?,
            parsed => break parsed?,
        }
    };
    if head.entry.envelope.id != *id {
        return Err(FormatError::OtherName.into());
    }
    let expected = (head.len as u64).saturating_add(head.bytes);
    if len != expected {
        return Err(FormatError::Length { found: len, expected }.into());
    }
    let format::Head { entry, bytes, crc32, len: start } = head;
    Ok(Opened { entry, bytes, len, crc32, start, file, beginning })
}

/// Reads on until there are `wanted` octets or the file ends.
fn read_up_to(file: &File, octets: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let mut at = octets.len();
    octets.resize(wanted.max(at), 0);
    while at < octets.len() {
        match file.read_at(&mut octets[at..], at as u64) {
            Ok(0) => break,
            Ok(len) => at += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    octets.truncate(at);
    Ok(())
}

impl Opened {
    /// Reads the whole content and compares it with what was written.
    ///
    /// # Errors
    /// When it cannot be read, or has changed.
    pub fn check(&self) -> Result<(), ReadError> {
        let mut sum = crc32fast::Hasher::new();
        let mut piece = vec![0; MEMORY_BYTES];
        let mut at = self.start as u64;
        while at < self.len {
            let wanted = usize::try_from(self.len - at).map_or(MEMORY_BYTES, |left| left.min(MEMORY_BYTES));
            self.file.read_exact_at(&mut piece[..wanted], at)?;
            sum.update(&piece[..wanted]);
            at += wanted as u64;
        }
        if sum.finalize() == self.crc32 { Ok(()) } else { Err(FormatError::Checksum.into()) }
    }

    /// The message: in memory when it was read already, else read from the file as it is asked for.
    pub fn into_parts(self) -> (Entry, Body) {
        let body = if self.beginning.len() as u64 == self.len {
            Body::new("", bytes::Bytes::from(self.beginning).slice(self.start..))
        } else {
            Body::of_file(self.file, self.start as u64, self.bytes, self.crc32)
        };
        (self.entry, body)
    }
}

/// The progress of a message, from its file.
///
/// # Errors
/// When there is no such file, or it is not what was written.
pub fn progress(path: &Path, recipients: usize) -> Result<Progress, ReadError> {
    let (file, mut octets) = (File::open(path)?, Vec::new());
    let len = file.metadata()?.len();
    // One more than the largest there can be is enough to see that something is wrong.
    read_up_to(
        &file,
        &mut octets,
        usize::try_from(len).map_or(MAX_JSON_BYTES, |len| len.min(MAX_JSON_BYTES + 100)),
    )?;
    Ok(format::parse_progress(&octets, recipients)?)
}
