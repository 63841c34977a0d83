//! Putting a small file in place of another, whole or not at all.
//!
//! Owns the order: write beside it, sync if asked to, rename. A reader finds the old or the new one, and so does a
//! program that starts after `kill -9`. Blocking.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::SpoolError;
use super::layout::{Layout, create, sync_directory};

/// What has to be survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survive {
    /// The end of the program, in any way. After a power cut the file may be empty.
    Kill,
    /// A power cut, too.
    PowerCut,
}

/// Replaces `path`, somewhere under the spool directory, with `octets`.
///
/// # Errors
/// When that is not possible, as when the disk is full. The old file is then as it was.
pub(super) fn replace(
    layout: &Layout,
    path: &Path,
    octets: &[u8],
    survive: Survive,
) -> Result<(), SpoolError> {
    let tmp = beside(layout, path);
    let replaced = write(&tmp, octets, survive)
        .and_then(|()| fs::rename(&tmp, path).map_err(|error| SpoolError::disk("put in place", path, error)));
    if replaced.is_err() {
        // It is empty or useless, and is removed at the next start at the latest.
        let _ = fs::remove_file(&tmp);
        return replaced;
    }
    match (survive, path.parent()) {
        (Survive::PowerCut, Some(directory)) => sync_directory(directory),
        _ => Ok(()),
    }
}

/// A name of its own for each call, so that two at a time do not write to the same file.
fn beside(layout: &Layout, path: &Path) -> PathBuf {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    layout.tmp().join(format!("{name}.{}", SERIAL.fetch_add(1, Ordering::Relaxed)))
}

fn write(path: &Path, octets: &[u8], survive: Survive) -> Result<(), SpoolError> {
    let written = create(path).and_then(|mut file| {
        file.write_all(octets)?;
        if survive == Survive::PowerCut { file.sync_data() } else { Ok(()) }
    });
    written.map_err(|error| SpoolError::disk("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_takes_the_place_of_the_old() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.make().unwrap();
        let path = root.path().join("small");
        for (octets, survive) in
            [(b"one".as_slice(), Survive::Kill), (b"", Survive::PowerCut), (b"three", Survive::PowerCut)]
        {
            replace(&layout, &path, octets, survive).unwrap();
            assert_eq!(fs::read(&path).unwrap(), octets);
        }
        assert_eq!(fs::read_dir(layout.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.make().unwrap();
        let error = replace(&layout, &root.path().join("gone/small"), b"x", Survive::Kill).unwrap_err();
        assert!(error.to_string().starts_with("cannot put in place "), "{error}");
        assert_eq!(fs::read_dir(layout.tmp()).unwrap().count(), 0);
    }
}
