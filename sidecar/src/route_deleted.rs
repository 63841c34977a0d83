//! What a pod does whose MailRoute was deleted: it goes on with its last configuration, and says so.
//!
//! The operator tells it in the answer to a report. A mark in the spool directory carries it to the commands `check` and
//! `queue`, which are programs of their own, and over a restart of the container. Refuses to know how mail is sent.

use std::path::{Path, PathBuf};

/// What people read of it.
pub const NOTE: &str = "The MailRoute of this pod was deleted. The sidecar goes on with its last configuration until the pod ends, \
                        and sends what waits; new pods are refused.";

/// Name of the mark in the spool directory.
const MARK: &str = "route-deleted";

/// The mark.
#[derive(Clone, Debug)]
pub struct RouteDeleted {
    mark: PathBuf,
}

impl RouteDeleted {
    /// The mark in the spool `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { mark: directory.join(MARK) }
    }

    /// Whether the operator said so last. Blocks on the disk.
    pub fn is_noted(&self) -> bool {
        self.mark.exists()
    }

    /// The operator has just said whether the route is gone. Logs each change; a disk that refuses the mark only keeps the
    /// commands from knowing.
    pub async fn note(&self, is_deleted: bool) {
        if tokio::fs::try_exists(&self.mark).await.unwrap_or(false) == is_deleted {
            return;
        }
        let marked = if is_deleted {
            tracing::warn!("{NOTE}");
            tokio::fs::write(&self.mark, NOTE).await
        } else {
            tracing::info!("the MailRoute of this pod exists again");
            tokio::fs::remove_file(&self.mark).await
        };
        if let Err(error) = marked {
            tracing::warn!(path = %self.mark.display(), %error, "cannot record whether the route is deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_mark_follows_what_the_operator_says_and_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let deleted = RouteDeleted::new(directory.path());
        for said in [false, true, true, false] {
            deleted.note(said).await;
            assert_eq!(RouteDeleted::new(directory.path()).is_noted(), said);
        }
    }
}
