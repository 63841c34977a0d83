//! Moving messages between the shelves, and damaged files out of the way and back.
//!
//! Owns the order in which names change, so that a program that ends in between leaves every message on one shelf, with
//! its progress beside it. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::batch::remove;
use super::entry::Progress;
use super::error::SpoolError;
use super::format::encode_progress;
use super::layout::{Layout, Name, Shelf, parse_aside, sync_directory};
use super::ledger::{Held, Ledger, cost};
use super::read::{self, HEAD_BYTES, ReadError};
use super::replace::{Survive, replace};
use crate::envelope::QueueId;

/// Moves a message to the other shelf, with `state` as its progress there. Durable when this returns. On a full volume
/// the progress that it has already goes along instead: giving up must not need room.
///
/// # Errors
/// When it cannot be moved; it is then where it was.
pub(super) fn shift(
    layout: &Layout,
    id: &QueueId,
    from: Shelf,
    to: Shelf,
    state: &[u8],
) -> Result<(), SpoolError> {
    let (old, new) = (layout.state(from, id), layout.state(to, id));
    // The new progress first and the old one last: without its entry either is a leftover, and is removed at a start.
    match replace(layout, &new, state, Survive::PowerCut) {
        Err(SpoolError::Full(_)) if old.exists() => rename(&old, &new)?,
        Err(SpoolError::Full(_)) => {}
        written => written?,
    }
    rename(&layout.entry(from, id), &layout.entry(to, id))?;
    sync_directory(&layout.shelf(to))?;
    remove(&old)?;
    sync_directory(&layout.shelf(from))
}

/// Puts a file that cannot be used into `corrupt/`, under its own name or, when that is taken, with a number behind.
///
/// # Errors
/// When it cannot be moved.
pub(super) fn set_aside(layout: &Layout, path: &Path) -> Result<PathBuf, SpoolError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut to = layout.corrupt().join(&*name);
    let mut serial = 0_u32;
    while to.symlink_metadata().is_ok() {
        serial += 1;
        to = layout.corrupt().join(format!("{name}.{serial}"));
    }
    rename(path, &to)?;
    Ok(to)
}

/// Puts a message that was set aside back into the queue, if its file is whole after all: the disk may not have given it
/// then. Its progress comes along where there is any, as [`Progress::again`] has it at `now`. Durable when this returns.
///
/// # Errors
/// When it is no message, or damaged, or cannot be read or moved; it is then where it was.
pub(super) fn restore(
    layout: &Layout,
    ledger: &Ledger,
    name: &str,
    now: Timestamp,
) -> Result<(QueueId, Progress), SpoolError> {
    let Some((Name::Entry(id), number)) = parse_aside(name) else {
        return Err(SpoolError::NoMessage(name.to_owned()));
    };
    if ledger.find(&id).is_some() {
        return Err(SpoolError::IsKept(id));
    }
    let (path, old) = (layout.corrupt().join(name), layout.corrupt().join(format!("{id}.state{number}")));
    let opened = read::open(&path, &id, HEAD_BYTES).and_then(|opened| opened.check().map(|()| opened));
    let opened = opened.map_err(|error| match error {
        ReadError::Disk(error) => SpoolError::disk("read", &path, error),
        ReadError::Damaged(source) => SpoolError::Damaged { id: id.clone(), source },
    })?;
    let (len, old_len) = (opened.len, old.symlink_metadata().map(|file| file.len()).ok());
    let progress = match read::progress(&old, opened.entry.envelope.recipients.len()) {
        Ok(progress) => progress,
        Err(ReadError::Disk(error)) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SpoolError::disk("read", &old, error));
        }
        Err(_) => Progress::fresh(&opened.entry),
    };
    let progress = progress.again(now);
    let state = encode_progress(&progress).map_err(SpoolError::Envelope)?;
    replace(layout, &layout.state(Shelf::Queue, &id), &state, Survive::PowerCut)?;
    rename(&path, &layout.entry(Shelf::Queue, &id))?;
    sync_directory(&layout.shelf(Shelf::Queue))?;
    remove(&old)?;
    let files: Vec<u64> = std::iter::once(len).chain(old_len).map(cost).collect();
    ledger.restore(id.clone(), &files, Held { cost: cost(len), has_state: true, intact: true });
    Ok((id, progress))
}

fn rename(from: &Path, to: &Path) -> Result<(), SpoolError> {
    fs::rename(from, to).map_err(|error: io::Error| SpoolError::disk("move", from, error))
}
