//! What of the leases survives a restart, as a small file beside the ledger.
//!
//! A file that cannot be read is taken as none: then this sidecar goes on like one that has never reached the operator.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailroute_route::control::Turn;
use serde::{Deserialize, Serialize};

use super::holding::Memory;
use super::ledger::Ledger;

/// No file of ours is longer, bytes.
const LONGEST: u64 = 64 * 1024;

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    life: u64,
    turn: Option<Turn>,
    /// Milliseconds since the Unix epoch, and recipients.
    taken: Vec<(u64, u64)>,
}

/// Where it is for a mailbox.
pub fn path(directory: &Path, subject: &str) -> PathBuf {
    Ledger::path(directory, subject).with_extension("leases")
}

/// What the life before left behind.
pub fn read(path: &Path) -> Memory {
    let text: Text = match load(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Text::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved leases cannot be read");
            Text::default()
        }
    };
    let taken = text.taken.into_iter().map(|(at, recipients)| (Duration::from_millis(at), recipients));
    Memory { life: text.life, turn: text.turn, taken: taken.collect() }
}

fn load(path: &Path) -> io::Result<Text> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes it anew. A failure is logged: it matters only when the process ends while the operator is away.
pub fn write(path: &Path, memory: &Memory) {
    let millis = |at: Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    let taken = memory.taken.iter().map(|&(at, recipients)| (millis(at), recipients)).collect();
    let text = Text { life: memory.life, turn: memory.turn, taken };
    if let Err(error) = replace(path, &text) {
        tracing::warn!(path = %path.display(), %error, "the leases cannot be saved");
    }
}

fn replace(path: &Path, text: &Text) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::Builder::new().prefix("new-").tempfile_in(folder)?;
    new.write_all(&serde_json::to_vec(text)?)?;
    new.as_file().sync_data()?;
    new.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "noreply@contoso.com");
        assert_eq!(read(&path), Memory::default());
        let memory = Memory { life: 7, turn: None, taken: vec![(Duration::from_millis(5), 3)] };
        write(&path, &memory);
        assert_eq!(read(&path), memory);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), Memory::default());
    }
}
