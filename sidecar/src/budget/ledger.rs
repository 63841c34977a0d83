//! The file that remembers, so that a restart does not forget what was sent.
//!
//! One file for each mailbox in the spool directory, appended to before a message is sent and again when more is known;
//! written anew when it is opened and when it grows long. Lines are not synced: the kernel keeps them when the process
//! is killed, and when a whole node is lost it is at most the last seconds that are, against which Microsoft's own
//! count stands.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record;
use super::{Amount, Snapshot};

/// Folder in the spool directory.
const FOLDER: &str = "budget";

/// A file of this length is written anew, bytes.
const LONG: u64 = 64 * 1024;

/// No file of ours is longer; what is, is not read, bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Files of other mailboxes that were not written for so long have nothing left to say.
const STALE: Duration = Duration::from_secs(25 * 60 * 60);

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The last line may lack its end.
    torn: bool,
}

impl Ledger {
    /// Where the ledger of `subject` is.
    pub fn path(directory: &Path, subject: &str) -> PathBuf {
        directory.join(FOLDER).join(file_name(subject))
    }

    /// What the file says; nothing when there is none. Lines that cannot be read are logged and left out.
    ///
    /// # Errors
    /// When there is a file and it cannot be read.
    pub fn read(path: &Path) -> io::Result<Snapshot> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Snapshot::default()),
            file => file?,
        };
        let mut octets = Vec::new();
        file.take(LONGEST).read_to_end(&mut octets)?;
        let text = String::from_utf8_lossy(&octets);
        let Some((snapshot, unread)) = record::parse(&text) else {
            tracing::warn!(path = %path.display(), "the file is not a record of sent messages; counting starts from zero");
            return Ok(Snapshot::default());
        };
        if unread > 0 {
            tracing::warn!(path = %path.display(), unread, "some lines of the record of sent messages cannot be read");
        }
        Ok(snapshot)
    }

    /// Writes the file anew, and removes those of other mailboxes that are too old to matter.
    ///
    /// # Errors
    /// When it cannot be written. The file that was there stays as it was.
    pub fn create(path: &Path, snapshot: &Snapshot) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let text = record::print(snapshot);
        let mut new = tempfile::Builder::new().prefix("new-").tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_data()?;
        let file = new.persist(path)?;
        remove_stale(folder);
        Ok(Self { path: path.to_owned(), file, bytes: text.len() as u64, torn: false })
    }

    /// Appends lines.
    ///
    /// # Errors
    /// When they cannot be written, or only in part.
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(lines.as_bytes())?;
        self.torn = false;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Whether it is time to write it anew.
    pub const fn is_long(&self) -> bool {
        self.bytes > LONG
    }

    /// Writes it anew with what it amounts to.
    ///
    /// # Errors
    /// When it cannot be written; the file goes on as it was.
    pub fn renew(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        *self = Self::create(&self.path, snapshot)?;
        Ok(())
    }
}

/// A name that shows the subject and holds nothing that means something to a file system.
fn file_name(subject: &str) -> String {
    let mut name = String::new();
    for octet in subject.to_ascii_lowercase().bytes().take(60) {
        match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'@' | b'-' | b'_' | b'.' => name.push(char::from(octet)),
            _ => name += &format!("%{octet:02x}"),
        }
    }
    if subject.len() > 60 {
        let digest = ring::digest::digest(&ring::digest::SHA256, subject.to_ascii_lowercase().as_bytes());
        name.push('~');
        name.extend(digest.as_ref().iter().take(8).map(|octet| format!("{octet:02x}")));
    }
    name + ".ledger"
}

fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            // Not worth more than another try at the next start.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The line of a permit that was given.
pub fn taken(id: u64, amount: Amount, lines: &mut String) {
    record::Record::Take { id, amount }.print(lines);
}

/// The line of a permit that was settled.
pub fn settled(id: u64, at: Duration, amount: Amount, lines: &mut String) {
    record::Record::Settle { id, at, amount }.print(lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_back_also_after_it_was_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = Ledger::path(folder.path(), "noreply@contoso.com");
        let counted = vec![(Duration::from_secs(5), Amount::message(2))];
        let mut ledger = Ledger::create(&path, &Snapshot { counted, open: vec![] }).unwrap();
        ledger.append("take 1 1 3\n").unwrap();
        let read = Ledger::read(&path).unwrap();
        assert_eq!((read.counted.len(), &read.open[..]), (1, &[(1, Amount::message(3))][..]));
        ledger.renew(&read).unwrap();
        ledger.append("settle 1 6000 1 3\n").unwrap();
        let again = Ledger::read(&path).unwrap();
        assert_eq!((again.counted.len(), again.open.len()), (2, 0));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_follows_a_torn_line_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = Ledger::path(folder.path(), "a@b");
        let mut ledger = Ledger::create(&path, &Snapshot::default()).unwrap();
        ledger.append("take 1 1").unwrap();
        ledger.torn = true;
        ledger.append("take 2 1 3\n").unwrap();
        assert_eq!(Ledger::read(&path).unwrap().open, [(2, Amount::message(3))]);
    }

    #[test]
    fn no_file_and_a_foreign_one_are_an_empty_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert_eq!(Ledger::read(&path).unwrap(), Snapshot::default());
        fs::write(&path, [0xff, 0, 0xfe]).unwrap();
        assert_eq!(Ledger::read(&path).unwrap(), Snapshot::default());
    }

    #[test]
    fn every_mailbox_has_a_file_of_its_own_whatever_its_name() {
        assert_eq!(file_name("NoReply@Contoso.com"), "noreply@contoso.com.ledger");
        assert_eq!(file_name("../a/b@c"), "..%2fa%2fb@c.ledger");
        let long = "x".repeat(300);
        let (one, other) = (file_name(&format!("{long}@a")), file_name(&format!("{long}@b")));
        assert!(one != other && one.len() < 255);
    }
}
