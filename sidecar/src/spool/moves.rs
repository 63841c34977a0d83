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
use super::layout::{Layout, Name, STATE_SUFFIX, Shelf, parse_aside, sync_directory};
use super::ledger::{Held, Ledger, cost};
use super::read::{self, HEAD_BYTES, ReadError};
use super::replace::{Survive, replace};
use crate::message::envelope::QueueId;

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

/// Puts a file that cannot be used into `corrupt/`, under its own name or, when that is taken, with a number behind. For a
/// file of a message it is a number that neither its entry nor its progress has there, so that what has the same number
/// belongs together.
///
/// # Errors
/// When it cannot be moved.
pub(super) fn set_aside(layout: &Layout, path: &Path) -> Result<PathBuf, SpoolError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = match Name::parse(&name) {
        Some(Name::Entry(id) | Name::State(id)) => vec![id.to_string(), state_name(&id, "")],
        None => vec![name.to_string()],
    };
    let (mut number, mut serial) = (String::new(), 0_u32);
    let aside = |name: &str, number: &str| layout.corrupt().join(format!("{name}{number}"));
    while names.iter().any(|name| aside(name, &number).symlink_metadata().is_ok()) {
        serial += 1;
        number = format!(".{serial}");
    }
    let to = aside(&name, &number);
    rename(path, &to)?;
    Ok(to)
}

/// Puts a message's progress beside its `entry` that was set aside, under the same number. Gives its octets; `None` when
/// there is no such file.
///
/// # Errors
/// When it cannot be moved.
pub(super) fn set_aside_state(
    layout: &Layout,
    shelf: Shelf,
    id: &QueueId,
    entry: &Path,
) -> Result<Option<u64>, SpoolError> {
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    let number = parse_aside(&name).map_or("", |(_, number)| number);
    let state = layout.state(shelf, id);
    let len = match state.symlink_metadata() {
        Ok(file) => file.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SpoolError::disk("read", &state, error)),
    };
    rename(&state, &layout.corrupt().join(state_name(id, number)))?;
    Ok(Some(len))
}

/// Puts a message that was set aside back into the queue, if its file is whole after all: the disk may not have given it
/// then. Its progress comes along as [`Progress::again`] has it at `now`: the one with the same number, or else the newest of the
/// message that can be read, since a message without its progress is delivered to everybody once more. Durable when this
/// returns.
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
    let (path, own) = (layout.corrupt().join(name), layout.corrupt().join(state_name(&id, number)));
    let opened = read::open(&path, &id, HEAD_BYTES).and_then(|opened| opened.check().map(|()| opened));
    let opened = opened.map_err(|error| match error {
        ReadError::Disk(error) => SpoolError::disk("read", &path, error),
        ReadError::Damaged(source) => SpoolError::Damaged { id: id.clone(), source },
    })?;
    let (len, recipients) = (opened.len, opened.entry.envelope.recipients.len());
    let found = match read::progress(&own, recipients) {
        Ok(progress) => Some((own.clone(), progress)),
        Err(ReadError::Disk(error)) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SpoolError::disk("read", &own, error));
        }
        Err(_) => newest_progress(layout, &id, recipients)?,
    };
    let mut leftovers = vec![own];
    let progress = match found {
        Some((from, progress)) => {
            leftovers.extend((!leftovers.contains(&from)).then_some(from));
            progress
        }
        None => Progress::fresh(&opened.entry),
    };
    let progress = progress.again(now);
    let state = encode_progress(&progress).map_err(SpoolError::Envelope)?;
    replace(layout, &layout.state(Shelf::Queue, &id), &state, Survive::PowerCut)?;
    rename(&path, &layout.entry(Shelf::Queue, &id))?;
    sync_directory(&layout.shelf(Shelf::Queue))?;
    let mut files = vec![cost(len)];
    for leftover in leftovers {
        files.extend(leftover.symlink_metadata().ok().map(|file| cost(file.len())));
        remove(&leftover)?;
    }
    ledger.restore(id.clone(), &files, Held { cost: cost(len), has_state: true, intact: true });
    Ok((id, progress))
}

/// The newest progress of a message in `corrupt/` that can be read and is not beside another copy of the message.
fn newest_progress(
    layout: &Layout,
    id: &QueueId,
    recipients: usize,
) -> Result<Option<(PathBuf, Progress)>, SpoolError> {
    let corrupt = layout.corrupt();
    let files = fs::read_dir(&corrupt).map_err(|error| SpoolError::disk("list", &corrupt, error))?;
    let mut newest = None;
    for file in files.flatten() {
        let (name, path) = (file.file_name(), file.path());
        let Some((Name::State(of), number)) = name.to_str().and_then(parse_aside) else { continue };
        let is_of_other = corrupt.join(format!("{id}{number}")).symlink_metadata().is_ok();
        let written = file.metadata().and_then(|file| file.modified()).ok();
        if of != *id || is_of_other || newest.as_ref().is_some_and(|(newest, _)| *newest >= written) {
            continue;
        }
        if let Ok(progress) = read::progress(&path, recipients) {
            newest = Some((written, (path, progress)));
        }
    }
    Ok(newest.map(|(_, found)| found))
}

/// The name of a message's progress in `corrupt/`.
fn state_name(id: &QueueId, number: &str) -> String {
    format!("{id}{STATE_SUFFIX}{number}")
}

fn rename(from: &Path, to: &Path) -> Result<(), SpoolError> {
    fs::rename(from, to).map_err(|error: io::Error| SpoolError::disk("move", from, error))
}
