//! When an application need not be waited for any longer, and what an attempt has come to by then.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, sleep_until};

use crate::clock::Instant;
use crate::outcome::AttemptResult;

/// Completes at `deadline`, or `last` after the process is about to end.
pub(super) async fn too_late(deadline: Instant, mut shutting_down: watch::Receiver<bool>, last: Duration) {
    let ending = async {
        // Where nobody can say it any more, the end is there.
        drop(shutting_down.wait_for(|&shutting_down| shutting_down).await);
        sleep(last).await;
    };
    tokio::select! {
        () = sleep_until(deadline) => {}
        () = ending => {}
    }
}

/// What an attempt came to. It is aborted when `too_late` completes, and may have ended by itself meanwhile.
pub(super) async fn ended(
    mut attempt: JoinHandle<AttemptResult>,
    too_late: impl Future<Output = ()>,
) -> Result<AttemptResult, JoinError> {
    tokio::select! {
        biased;
        ended = &mut attempt => ended,
        () = too_late => {
            attempt.abort();
            attempt.await
        }
    }
}
