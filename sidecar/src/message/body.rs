//! One complete message: its octets, however many, in bounded memory.
//!
//! Owns where they are kept: up to [`MEMORY_BYTES`] in memory, anything larger in a file. What comes in goes to a file
//! that has no name, so that nothing is left behind however the process ends; what the spool keeps is read from its
//! file there. Refuses to know what the octets mean. Nothing that a [`Writer`] takes is durable, and no 250 may rest on
//! it alone.
//!
//! Invariants of a [`Body`]: lines end in CR LF and in no other way, dots are not doubled, and what was read once is
//! read again the same.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crc32fast::Hasher;
use rustix::io::ReadWriteFlags;

/// Octets of a message kept in memory; also the size of the pieces in which a larger one is written and read.
/// Most notifications are smaller, and a hundred sessions at once still take less than 7 MiB.
pub const MEMORY_BYTES: usize = 64 * 1024;

/// Where messages that do not fit in memory are put while they come in.
pub trait Scratch: Send + Sync {
    /// The directory of their files.
    fn directory(&self) -> &Path;
    /// Takes room for so many more octets, before they are written.
    ///
    /// # Errors
    /// When there is none.
    fn reserve(&self, octets: u64) -> io::Result<()>;
    /// Gives such room back.
    fn release(&self, octets: u64);
}

/// A directory with as much room as its volume has.
impl Scratch for PathBuf {
    fn directory(&self) -> &Path {
        self
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn release(&self, _: u64) {}
}

/// The room that a message's file takes. Given back with the message.
pub(crate) struct Claim {
    scratch: Arc<dyn Scratch>,
    octets: AtomicU64,
}

impl Claim {
    fn grow(&self, octets: usize) -> io::Result<()> {
        self.scratch.reserve(octets as u64)?;
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.scratch.release(*self.octets.get_mut());
    }
}

/// A complete message: a stamp (the header lines that were added in front), then the content as received. Cheap to
/// clone; clones share the octets.
#[derive(Clone)]
pub struct Body {
    stamp: Bytes,
    content: Content,
}

#[derive(Clone)]
pub(crate) enum Content {
    Memory(Bytes),
    /// `len` octets of a file from `start` on, and their CRC-32.
    File {
        file: Arc<File>,
        start: u64,
        len: u64,
        crc32: u32,
        /// The file's room, when it is none that is kept.
        claim: Option<Arc<Claim>>,
    },
}

impl Body {
    /// A message held in memory.
    pub fn new(stamp: impl Into<Bytes>, content: impl Into<Bytes>) -> Self {
        Self { stamp: stamp.into(), content: Content::Memory(content.into()) }
    }

    /// A message that is part of a file.
    pub(crate) fn of_file(file: File, start: u64, len: u64, crc32: u32) -> Self {
        Self {
            stamp: Bytes::new(),
            content: Content::File { file: Arc::new(file), start, len, crc32, claim: None },
        }
    }

    /// Takes over the room, in octets, that the message has taken while it came in: whoever asks gives it back.
    pub(crate) fn take_claim(&self) -> u64 {
        self.claim().map_or(0, |claim| claim.octets.swap(0, Ordering::Relaxed))
    }

    /// Leaves the room to the message again.
    pub(crate) fn put_claim(&self, octets: u64) {
        if let Some(claim) = self.claim() {
            claim.octets.fetch_add(octets, Ordering::Relaxed);
        }
    }

    fn claim(&self) -> Option<&Claim> {
        match &self.content {
            Content::File { claim, .. } => claim.as_deref(),
            Content::Memory(_) => None,
        }
    }

    /// The stamp and what follows it, for whoever copies both.
    pub(crate) fn parts(&self) -> (&[u8], &Content) {
        (&self.stamp, &self.content)
    }

    /// CRC-32 of the whole message, as it came in. Reads no file: a large message's was summed up on its way there.
    pub fn crc32(&self) -> u32 {
        let mut sum = Hasher::new();
        sum.update(&self.stamp);
        match &self.content {
            Content::Memory(bytes) => sum.update(bytes),
            Content::File { len, crc32, .. } => sum.combine(&Hasher::new_with_initial_len(*crc32, *len)),
        }
        sum.finalize()
    }

    /// Octets of the whole message.
    pub fn len(&self) -> u64 {
        let content = match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        };
        self.stamp.len() as u64 + content
    }

    /// Whether no file has to be read for it.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.content, Content::Memory(_))
    }

    /// Whether there is nothing at all, not even a stamp.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the message from its beginning; as often as needed, also several at a time.
    pub fn reader(&self) -> Reader {
        Reader { body: self.clone(), at: 0, stamped: false }
    }
}

/// Says how large it is, never what it holds: messages do not belong in logs.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Reads a [`Body`] front to back.
pub struct Reader {
    body: Body,
    at: u64,
    stamped: bool,
}

impl Reader {
    /// The next piece, never empty, at most [`MEMORY_BYTES`] long; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if !self.stamped {
            self.stamped = true;
            if !self.body.stamp.is_empty() {
                return Ok(Some(self.body.stamp.clone()));
            }
        }
        let piece = match &self.body.content {
            Content::Memory(bytes) => {
                bytes.slice(usize::try_from(self.at).map_or(bytes.len(), |at| at.min(bytes.len()))..)
            }
            Content::File { file, start, len, .. } => {
                read_piece(Arc::clone(file), start + self.at, start + len).await?
            }
        };
        self.at += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Reads what is left between `at` and `end`, at most one piece of it.
async fn read_piece(file: Arc<File>, at: u64, end: u64) -> io::Result<Bytes> {
    let wanted = usize::try_from(end - at).map_or(MEMORY_BYTES, |left| left.min(MEMORY_BYTES));
    let mut piece = vec![0; wanted];
    let cached = read_cached(&file, &mut piece, at);
    if cached == wanted {
        return Ok(piece.into());
    }
    off_thread(move || {
        file.read_exact_at(&mut piece[cached..], at + cached as u64)?;
        Ok(piece.into())
    })
    .await
}

/// Reads what the system has in memory, without waiting for the disk, and says how much that was. Most messages were written a
/// moment ago, and for them this saves two changes of thread for each piece.
fn read_cached(file: &File, piece: &mut [u8], at: u64) -> usize {
    let mut buffers = [IoSliceMut::new(piece)];
    rustix::io::preadv2(file, &mut buffers, at, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

/// Takes in a message whose size is not known yet.
pub struct Writer {
    scratch: Arc<dyn Scratch>,
    claim: Arc<Claim>,
    pending: Vec<u8>,
    file: Option<Arc<File>>,
    written: u64,
    sum: Hasher,
}

impl Writer {
    /// A writer that puts what does not fit in memory into a nameless file in `scratch`.
    pub fn new(scratch: Arc<dyn Scratch>) -> Self {
        let claim = Arc::new(Claim { scratch: Arc::clone(&scratch), octets: AtomicU64::new(0) });
        Self { scratch, claim, pending: Vec::new(), file: None, written: 0, sum: Hasher::new() }
    }

    /// Where the next octets are to be appended. [`Writer::spill`] has to follow before much is.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Moves what is in memory to the file once it is more than fits.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be made or written, as when the disk is full. The message is then lost to this writer.
    pub async fn spill(&mut self) -> io::Result<()> {
        if self.pending.len() <= MEMORY_BYTES { Ok(()) } else { self.write_pending().await }
    }

    /// The message, with `stamp` in front.
    ///
    /// # Errors
    /// When the last octets cannot be written to the file.
    pub async fn finish(mut self, stamp: impl Into<Bytes>) -> io::Result<Body> {
        if self.file.is_some() || self.pending.len() > MEMORY_BYTES {
            self.write_pending().await?;
        }
        let content = match self.file {
            Some(file) => Content::File {
                file,
                start: 0,
                len: self.written,
                crc32: self.sum.finalize(),
                claim: Some(self.claim),
            },
            None => Content::Memory(self.pending.into()),
        };
        Ok(Body { stamp: stamp.into(), content })
    }

    async fn write_pending(&mut self) -> io::Result<()> {
        self.claim.grow(self.pending.len())?;
        let (octets, at) = (std::mem::take(&mut self.pending), self.written);
        let (scratch, file) = (Arc::clone(&self.scratch), self.file.take());
        let write = move || {
            let file = file.map_or_else(|| tempfile::tempfile_in(scratch.directory()).map(Arc::new), Ok)?;
            file.write_all_at(&octets, at)?;
            Ok((file, octets))
        };
        let (file, octets) = off_thread(write).await?;
        self.sum.update(&octets);
        self.written += octets.len() as u64;
        self.file = Some(file);
        self.pending = octets;
        self.pending.clear();
        Ok(())
    }
}

/// Runs a disk operation where waiting for the disk holds up nobody else.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn contents(body: &Body) -> Vec<u8> {
        let (mut reader, mut all) = (body.reader(), Vec::new());
        while let Some(piece) = reader.next().await.unwrap() {
            assert!(!piece.is_empty() && piece.len() <= MEMORY_BYTES);
            all.extend_from_slice(&piece);
        }
        all
    }

    async fn written(message: &[u8], step: usize, directory: &Path) -> Body {
        let mut writer = Writer::new(Arc::new(directory.to_owned()));
        for piece in message.chunks(step) {
            writer.buffer().extend_from_slice(piece);
            writer.spill().await.unwrap();
            assert!(writer.pending.len() <= MEMORY_BYTES);
        }
        writer.finish("Stamp: 1\r\n").await.unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read_twice() {
        let directory = tempfile::tempdir().unwrap();
        for len in [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, 5 * MEMORY_BYTES + 7] {
            let message: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let body = written(&message, 10_000, directory.path()).await;
            let expected = [b"Stamp: 1\r\n", message.as_slice()].concat();
            assert_eq!(body.len(), expected.len() as u64);
            assert!(contents(&body).await == expected && contents(&body).await == expected, "{len} octets");
            assert_eq!(body.crc32(), crc32fast::hash(&expected), "{len} octets");
        }
    }

    #[tokio::test]
    async fn part_of_a_file_is_a_message_too() {
        let directory = tempfile::tempdir().unwrap();
        let message = [b'x'; 2 * MEMORY_BYTES + 1];
        let path = directory.path().join("file");
        std::fs::write(&path, [b"before".as_slice(), &message, b"behind"].concat()).unwrap();
        let sum = crc32fast::hash(&message);
        let body = Body::of_file(File::open(&path).unwrap(), 6, message.len() as u64, sum);
        assert!(contents(&body).await == message && body.crc32() == sum);
    }

    #[tokio::test]
    async fn a_large_message_leaves_no_name_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let body = written(&vec![b'x'; 4 * MEMORY_BYTES], 4096, directory.path()).await;
        assert!(matches!(body.content, Content::File { .. }));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_small_message_needs_no_directory() {
        let body = written(b"small", 5, Path::new("/nonexistent")).await;
        assert_eq!(contents(&body).await, b"Stamp: 1\r\nsmall");
    }

    #[tokio::test]
    async fn a_large_message_without_a_directory_is_an_error() {
        let mut writer = Writer::new(Arc::new(PathBuf::from("/nonexistent")));
        writer.buffer().resize(MEMORY_BYTES + 1, b'x');
        assert_eq!(writer.spill().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(format!("{:?}", Body::new("Subject: x\r\n", "pay slip\r\n")), "Body { len: 22, .. }");
    }
}
