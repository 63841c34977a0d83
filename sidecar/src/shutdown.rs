//! When to stop. The kubelet sends SIGTERM to a native sidecar after the application has ended, but on a node that goes
//! down, or on a laptop, the application may still be sending: so the door stays open while somebody is inside.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// Time limits of a stop.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// How long no session must have been open before the door is closed.
    pub settle: Duration,
    /// How long the whole stop may take.
    pub total: Duration,
}

/// Completes at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn requested() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("asked to stop twice: stopping at once");
        std::process::exit(1);
    });
    Ok(())
}

/// Completes when no session has been open for `grace.settle`, or after `grace.total`.
pub async fn settled(mut sessions: watch::Receiver<usize>, grace: Grace) {
    let quiet = async {
        loop {
            if sessions.wait_for(|&open| open == 0).await.is_err() {
                return;
            }
            // Over when a new session begins within the time; then the waiting starts again.
            if timeout(grace.settle, sessions.changed()).await.is_err() {
                return;
            }
        }
    };
    if timeout(grace.total, quiet).await.is_err() {
        tracing::warn!(open = *sessions.borrow(), "sessions are still open; closing the door");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const GRACE: Grace = Grace { settle: Duration::from_secs(1), total: Duration::from_secs(20) };

    async fn waited(sessions: watch::Receiver<usize>) -> u64 {
        let start = clock::now();
        settled(sessions, GRACE).await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sidecar_closes_after_the_settle_time() {
        let (_keep, sessions) = watch::channel(0);
        assert_eq!(waited(sessions).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_session_keeps_the_door_open() {
        let (open, sessions) = watch::channel(1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            open.send_replace(0);
            open.closed().await;
        });
        assert_eq!(waited(sessions).await, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_without_end_does_not_hold_the_stop() {
        let (_keep, sessions) = watch::channel(1);
        assert_eq!(waited(sessions).await, 20);
    }
}
