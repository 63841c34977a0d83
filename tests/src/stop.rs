//! The two signals that mean "enough", for programs that hold a cluster: they let go of it before they end.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its making on; a signal that comes between two waits is not lost.
#[derive(Debug)]
pub struct Stop {
    /// Ctrl-C.
    pub interrupt: Signal,
    /// A polite kill.
    pub terminate: Signal,
}

impl Stop {
    /// Takes both signals over from the kernel, which would end the process at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either; the exit code of a program that the signal ended, as shells count.
    pub async fn wait(&mut self) -> ExitCode {
        tokio::select! {
            _ = self.interrupt.recv() => ExitCode::from(130),
            _ = self.terminate.recv() => ExitCode::from(143),
        }
    }
}
