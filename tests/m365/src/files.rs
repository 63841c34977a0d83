//! Files that somebody else reads while they are written.

use std::{io, path::Path};

/// Writes `text` beside `path` and renames it into place.
///
/// # Errors
/// The file cannot be written.
pub fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
