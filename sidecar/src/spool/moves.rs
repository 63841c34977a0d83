//! Moving messages between the shelves, and damaged files out of the way.
//!
//! Owns the order in which names change, so that a program that ends in between leaves every message on one shelf, with
//! its progress beside it. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::batch::remove;
use super::error::SpoolError;
use super::layout::{Layout, Shelf, sync_directory};
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

fn rename(from: &Path, to: &Path) -> Result<(), SpoolError> {
    fs::rename(from, to).map_err(|error: io::Error| SpoolError::disk("move", from, error))
}
