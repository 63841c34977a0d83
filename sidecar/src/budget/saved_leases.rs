//! The file that keeps what leases have to remember over a restart, beside the journal.
//!
//! Without a file that can be read, this sidecar goes on like one that never had an answer from the operator.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mailroute_quota::client::saved_leases::SavedLeases;

use super::journal::Journal;

/// No file of ours is longer, bytes.
const LONGEST: u64 = 64 * 1024;

/// Where the file of a mailbox is.
pub fn path(directory: &Path, subject: &str) -> PathBuf {
    Journal::path(directory, subject).with_extension("leases")
}

/// Reads what the run before left behind.
pub fn read(path: &Path) -> SavedLeases {
    load(path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "the saved leases cannot be read");
        }
        SavedLeases::default()
    })
}

fn load(path: &Path) -> io::Result<SavedLeases> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    Ok(SavedLeases::parse(&fs::read(path)?)?)
}

/// Writes the file anew. Logs a failure: it matters only if the process ends while the operator is out of reach.
pub fn write(path: &Path, saved: &SavedLeases) {
    if let Err(error) = replace(path, &saved.print()) {
        tracing::warn!(path = %path.display(), %error, "the leases cannot be saved");
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::Builder::new().prefix("new-").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_data()?;
    new.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "noreply@contoso.com");
        assert_eq!(read(&path), SavedLeases::default());
        let slot_recipients = vec![(Duration::from_millis(5), 3)];
        let saved = SavedLeases { instance: 7, slots: None, slot_recipients, ..SavedLeases::default() };
        write(&path, &saved);
        assert_eq!(read(&path), saved);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), SavedLeases::default());
    }
}
