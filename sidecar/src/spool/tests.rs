//! The spool on a real directory: what is kept is found again, and nothing else is.

mod damage;
mod dead_letters;
mod directory_sync;
mod receipts;
mod rewritten;
mod sharing;
mod storing;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use super::entry::tests::{sample, trouble};
use super::*;
use crate::message::body::{MEMORY_BYTES, Scratch, Writer};

const LIMITS: SpoolLimits = SpoolLimits { max_bytes: 100 * 1024 * 1024, keep_dead: 3 };

struct Scene {
    directory: TempDir,
    spool: Spool,
    recovered: Recovered,
}

impl Scene {
    async fn new() -> Self {
        Self::start(tempfile::tempdir().unwrap(), LIMITS).await
    }

    async fn start(directory: TempDir, limits: SpoolLimits) -> Self {
        let (spool, recovered) = Spool::open(directory.path(), limits).await.unwrap();
        Self { directory, spool, recovered }
    }

    /// What the next program finds.
    async fn restart(self) -> Self {
        let Self { directory, spool, .. } = self;
        drop(spool);
        Self::start(directory, LIMITS).await
    }

    fn names(&self, directory: &str) -> BTreeSet<String> {
        let files = fs::read_dir(self.directory.path().join(directory)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn file(&self, shelf: Shelf, entry: &Entry) -> PathBuf {
        self.spool.inner.layout.entry(shelf, &entry.envelope.id)
    }

    async fn stored(&self, second: i64) -> Entry {
        let entry = sample(second, &["a@b.example", "c@d.example"]);
        self.spool.store(&entry, &Progress::fresh(&entry), &small()).await.unwrap();
        entry
    }

    /// Whether nothing is left of anything but files to be written again.
    fn is_empty(&self) -> bool {
        let stock = Stock { max_bytes: LIMITS.max_bytes, ..Stock::default() };
        ["queue", "dead", "corrupt"].iter().all(|names| self.names(names).is_empty())
            && self.names("tmp").iter().all(|name| name.starts_with("spare-"))
            && Stock { max_bytes: LIMITS.max_bytes, ..self.spool.stock() } == stock
    }
}

fn small() -> Body {
    Body::new("Received: here\r\n", "Subject: pay slip\r\n\r\nHello\r\n")
}

async fn large(scratch: &Arc<dyn Scratch>, len: usize) -> Body {
    let mut writer = Writer::new(Arc::clone(scratch));
    for at in 0..len / 1000 {
        writer.buffer().extend(std::iter::repeat_n((at % 251) as u8, 1000));
        writer.spill().await.unwrap();
    }
    writer.finish("Received: here\r\n").await.unwrap()
}

async fn contents(body: &Body) -> Vec<u8> {
    let (mut reader, mut all) = (body.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

fn tried(entry: &Entry, statuses: Vec<RecipientStatus>) -> Progress {
    let next = entry.accepted + Duration::from_secs(30);
    let last = Some(trouble("451 4.3.2 try later"));
    Progress { attempts: 1, next, last, statuses, ..Progress::fresh(entry) }
}

fn later() -> Timestamp {
    Timestamp::from_second(1_900_000_000).unwrap()
}
