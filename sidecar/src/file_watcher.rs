//! Notices when files that the kubelet keeps get other content.
//!
//! Content is compared, by digest: the kubelet swaps symbolic links, and a secret is not kept to compare it. Refuses to
//! know what is in the files and what follows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::sync::watch;

/// The content of a file, or why it cannot be read: one that is too large and one that is empty are not the same.
type Content = Result<Vec<u8>, String>;

/// Files, with their content as it was last looked at.
pub struct FileWatcher {
    paths: Vec<PathBuf>,
    known: Vec<Content>,
}

impl FileWatcher {
    /// The files as they are now.
    pub async fn new(paths: Vec<PathBuf>) -> Self {
        let known = contents(&paths).await;
        Self { paths, known }
    }

    /// Looks at them every `period` until `stop`, and calls `changed` when one has another content than before.
    pub async fn follow(
        mut self,
        period: Duration,
        mut changed: impl FnMut(),
        mut stop: watch::Receiver<bool>,
    ) {
        let mut rounds = tokio::time::interval(period);
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                _ = stop.wait_for(|&stop| stop) => return,
            }
            let now = contents(&self.paths).await;
            if now != self.known {
                self.known = now;
                changed();
            }
        }
    }
}

async fn contents(paths: &[PathBuf]) -> Vec<Content> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        contents.push(content(path).await);
    }
    contents
}

async fn content(path: &Path) -> Content {
    let secret = crate::secret::read_file(path).await.map_err(|error| error.to_string())?;
    Ok(digest(&SHA256, secret.expose().as_bytes()).as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_content_is_noticed_and_the_same_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        std::fs::write(&one, "a").unwrap();
        let (sender, mut seen) = watch::channel(0_u32);
        let (_keep, stop) = watch::channel(false);
        let count = move || sender.send_modify(|count| *count += 1);
        let period = Duration::from_millis(2);
        let watched = FileWatcher::new(vec![one.clone(), two.clone()]).await;
        let task = tokio::spawn(watched.follow(period, count, stop));
        std::fs::write(&one, "a").unwrap();
        std::fs::write(&two, "b").unwrap();
        seen.wait_for(|&count| count == 1).await.unwrap();
        std::fs::write(directory.path().join("next"), "c").unwrap();
        std::fs::rename(directory.path().join("next"), &one).unwrap();
        seen.wait_for(|&count| count == 2).await.unwrap();
        std::fs::write(&two, "x".repeat(1 << 20)).unwrap();
        seen.wait_for(|&count| count == 3).await.unwrap();
        std::fs::write(directory.path().join("next"), "").unwrap();
        std::fs::rename(directory.path().join("next"), &two).unwrap();
        seen.wait_for(|&count| count == 4).await.unwrap();
        std::fs::remove_file(&two).unwrap();
        seen.wait_for(|&count| count == 5).await.unwrap();
        task.abort();
    }
}
