//! Parts: tasks with a name that run until the process ends, and the flags that tell them to.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What runs. Each part gives its name when it ends.
pub(super) type Parts = JoinSet<&'static str>;

/// Starts a part.
pub(super) fn spawn(parts: &mut Parts, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        part.await;
        name
    });
}

/// Becomes true at the first SIGTERM or SIGINT. The kubelet and the container runtime may send SIGTERM again, which changes nothing;
/// a second SIGINT, from a person at a terminal, ends the process at once.
pub(super) fn until_told() -> anyhow::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        let interrupted = tokio::select! { _ = term.recv() => false, _ = int.recv() => true };
        told.send_replace(true);
        if !interrupted {
            int.recv().await;
        }
        int.recv().await;
        tracing::warn!("interrupted twice: stopping at once");
        std::process::exit(1);
    });
    Ok(stop)
}

/// Waits until a flag is true.
pub(super) async fn turns_true(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, and then nothing will turn it true.
    if flag.wait_for(|is_set| *is_set).await.is_err() {
        std::future::pending::<()>().await;
    }
}
