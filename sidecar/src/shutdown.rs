//! When to stop. The kubelet sends SIGTERM to a native sidecar after the application has ended, but on a node that goes
//! down, or on a laptop, the application may still be sending: so the listener stays open while a session is.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// Time limits of a stop.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// How long no session must have been open before the listener is closed.
    pub settle: Duration,
    /// How long messages are tried once more before the rest is handed over.
    pub hand_over: Duration,
    /// How long the whole stop may take.
    pub total: Duration,
}

/// SIGTERM and SIGINT. Listened for from the beginning, so that a stop during the start is a polite one too.
///
/// The kubelet and the container runtime send SIGTERM again when they try a stop once more, or when the kubelet was
/// restarted: that is no reason to hurry. A person at a terminal who presses Ctrl-C twice means it.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts listening.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes at the first signal. A second SIGINT ends the process at once, a second SIGTERM changes nothing.
    pub async fn requested(mut self) {
        let interrupted = tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        };
        tokio::spawn(async move {
            if !interrupted {
                self.interrupt.recv().await;
            }
            self.interrupt.recv().await;
            tracing::warn!("interrupted twice: stopping at once");
            std::process::exit(1);
        });
    }
}

/// Completes when no session has been open for `grace.settle`, or after `grace.total`.
pub async fn settled(mut sessions: watch::Receiver<usize>, grace: Grace) {
    let quiet = async {
        loop {
            if sessions.wait_for(|&open| open == 0).await.is_err() {
                return;
            }
            // When a new session begins within the time, the waiting starts again. Without a listener none ever begins.
            match timeout(grace.settle, sessions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    if timeout(grace.total, quiet).await.is_err() {
        tracing::warn!(open = *sessions.borrow(), "sessions are still open; accepting no new messages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const GRACE: Grace = Grace {
        settle: Duration::from_secs(1),
        hand_over: Duration::from_secs(2),
        total: Duration::from_secs(20),
    };

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
    async fn where_nobody_listens_nothing_is_waited_for() {
        let (gone, sessions) = watch::channel(0);
        drop(gone);
        assert_eq!(waited(sessions).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_session_keeps_the_listener_open() {
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
