//! Copying a message into its file: bounded memory, however large it is.
//!
//! Owns the way from a body to a file. A large body is copied by the kernel where the volume can, so that its octets
//! do not pass through this process again. Blocking.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use crate::message::body::{Body, Content, MEMORY_BYTES};

/// Writes `head` and the message behind it into an empty file.
///
/// # Errors
/// When the disk does not take it, or the body cannot be read.
pub(super) fn message(mut to: &File, head: &[u8], body: &Body) -> io::Result<()> {
    match body.parts() {
        (stamp, Content::Memory(content)) => to.write_all(&[head, stamp, content].concat()),
        (stamp, Content::File { file, start, len, .. }) => {
            let front = [head, stamp].concat();
            to.write_all(&front)?;
            let copied = by_kernel(file, *start, to, front.len() as u64, *len)?;
            by_hand(file, start + copied, to, front.len() as u64 + copied, len - copied)
        }
    }
}

/// Copies as much of `len` octets as the kernel can, and says how much that was. Less when the two files are on
/// volumes between which it does not copy.
fn by_kernel(from: &File, mut read: u64, to: &File, mut write: u64, len: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < len {
        let left = usize::try_from(len - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), left) {
            Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Ok(more) => copied += more as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

fn by_hand(from: &File, read: u64, to: &File, write: u64, len: u64) -> io::Result<()> {
    let mut piece = vec![0; usize::try_from(len).map_or(MEMORY_BYTES, |len| len.min(MEMORY_BYTES))];
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).map_or(piece.len(), |left| left.min(piece.len()));
        from.read_exact_at(&mut piece[..wanted], read + done)?;
        to.write_all_at(&piece[..wanted], write + done)?;
        done += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::message::body::Writer;

    async fn large(directory: &Path, content: &[u8]) -> Body {
        let mut writer = Writer::new(Arc::new(directory.to_owned()));
        for piece in content.chunks(10_000) {
            writer.buffer().extend_from_slice(piece);
            writer.spill().await.unwrap();
        }
        writer.finish("Stamp: 1\r\n").await.unwrap()
    }

    fn written(body: &Body) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        message(&file, b"head\n\n", body).unwrap();
        let mut octets = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut octets).unwrap();
        octets
    }

    #[tokio::test]
    async fn head_stamp_and_content_follow_each_other() {
        let content: Vec<u8> = (0..3 * MEMORY_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        let expected = [b"head\n\nStamp: 1\r\n", content.as_slice()].concat();
        assert!(written(&Body::new("Stamp: 1\r\n", content.clone())) == expected);
        let body = large(directory.path(), &content).await;
        assert!(!body.is_in_memory() && written(&body) == expected);
        assert!(written(&body) == expected, "a second time");
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_copy_is_copied_by_hand() {
        let content: Vec<u8> = (0..3 * MEMORY_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&content, 7).unwrap();
        by_hand(&from, 7, &to, 3, content.len() as u64).unwrap();
        let mut copied = vec![0; content.len()];
        to.read_exact_at(&mut copied, 3).unwrap();
        assert!(copied == content);
        // Writing to a file that is open for reading only is refused in a way that is no reason to go on by hand.
        let read_only = Arc::new(File::open("/proc/self/exe").unwrap());
        assert!(by_kernel(&from, 0, &read_only, 0, 5).is_err());
    }
}
