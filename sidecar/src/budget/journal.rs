//! The budget's journal on disk, so that a restart does not forget what was sent.
//!
//! One file for each mailbox in the spool directory, appended to before a message is sent and again when it is settled, and
//! written anew when it is opened and when it grows long. Lines are not synced: the kernel keeps them when the process is
//! killed. When a node is lost, at most the last seconds are lost with it, and Microsoft's own count still holds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailroute_quota::client::budget::BudgetSnapshot;
use mailroute_quota::client::journal::{self, ParsedJournal};

/// Folder in the spool directory.
const FOLDER: &str = "budget";

/// A longer file is written anew, bytes.
const LONG: u64 = 64 * 1024;

/// The most that is read of a file, bytes. No file of ours is longer.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Files of other mailboxes that were not written for this long hold nothing that still counts.
const STALE: Duration = Duration::from_secs(25 * 60 * 60);

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// The last line may lack its end.
    torn: bool,
}

impl Journal {
    /// Where the journal of `subject` is.
    pub fn path(directory: &Path, subject: &str) -> PathBuf {
        directory.join(FOLDER).join(file_name(subject))
    }

    /// Reads the file; an empty budget if there is none. Lines that cannot be read are logged and left out.
    ///
    /// # Errors
    /// When there is a file and it cannot be read.
    pub fn read(path: &Path) -> io::Result<BudgetSnapshot> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BudgetSnapshot::default()),
            file => file?,
        };
        let mut octets = Vec::new();
        file.take(LONGEST).read_to_end(&mut octets)?;
        let text = String::from_utf8_lossy(&octets);
        let Some(ParsedJournal { snapshot, unread }) = journal::parse(&text) else {
            tracing::warn!(path = %path.display(), "the file is not a record of sent messages; counting starts from zero");
            return Ok(BudgetSnapshot::default());
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
    pub fn create(path: &Path, snapshot: &BudgetSnapshot) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let text = journal::print(snapshot);
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
    pub fn renew(&mut self, snapshot: &BudgetSnapshot) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use mailroute_quota::Amount;

    use super::*;

    #[test]
    fn what_is_appended_is_read_back_also_after_it_was_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = Journal::path(folder.path(), "noreply@contoso.com");
        let counted = vec![(Duration::from_secs(5), Amount::message(2))];
        let mut journal = Journal::create(&path, &BudgetSnapshot { counted, open: vec![] }).unwrap();
        journal.append("take 1 1 3\n").unwrap();
        let read = Journal::read(&path).unwrap();
        assert_eq!((read.counted.len(), &read.open[..]), (1, &[(1, Amount::message(3))][..]));
        journal.renew(&read).unwrap();
        journal.append("settle 1 6000 1 3\n").unwrap();
        let again = Journal::read(&path).unwrap();
        assert_eq!((again.counted.len(), again.open.len()), (2, 0));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_follows_a_torn_line_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = Journal::path(folder.path(), "a@b");
        let mut journal = Journal::create(&path, &BudgetSnapshot::default()).unwrap();
        journal.append("take 1 1").unwrap();
        journal.torn = true;
        journal.append("take 2 1 3\n").unwrap();
        assert_eq!(Journal::read(&path).unwrap().open, [(2, Amount::message(3))]);
    }

    #[test]
    fn no_file_and_a_foreign_one_are_an_empty_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert_eq!(Journal::read(&path).unwrap(), BudgetSnapshot::default());
        fs::write(&path, [0xff, 0, 0xfe]).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), BudgetSnapshot::default());
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
