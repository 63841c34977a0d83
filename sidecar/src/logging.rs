//! Log lines: JSON for machines, text for people, on standard error.
//!
//! Only our own targets speak. Dependencies stay silent, since some of them would print requests. Mail addresses are
//! shown as far as the route says; that is seen to here, on the finished line, so that no line can escape it. How often a
//! fault that many messages meet is written is [`faults`]' to say.

pub mod faults;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use mailroute_route::file::LogAddresses;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::message::redact;

/// How much of an address is shown now. One for the process, as the log is.
static SHOWN: AtomicU8 = AtomicU8::new(LogAddresses::Full as u8);

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object on each line.
    #[default]
    Json,
    /// For reading along.
    Text,
}

/// Starts logging.
///
/// # Errors
/// When something else in the process has started it already.
pub fn start(format: Format, level: Level) -> Result<(), TryInitError> {
    let ours = Targets::new().with_target("mailroute_sidecar", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Redacting(io::stderr()));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_target(false).with_filter(ours)),
        Format::Text => Box::new(lines.with_target(false).with_filter(ours)),
    };
    tracing_subscriber::registry().with(lines).try_init()
}

/// Shows so much of the addresses in every line from now on.
pub fn show_addresses(shown: LogAddresses) {
    SHOWN.store(shown as u8, Ordering::Relaxed);
}

fn shown() -> LogAddresses {
    let shown = SHOWN.load(Ordering::Relaxed);
    [LogAddresses::Full, LogAddresses::Domain]
        .into_iter()
        .find(|&one| one as u8 == shown)
        .unwrap_or(LogAddresses::Hidden)
}

/// Writes lines, each by one call.
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(redact::line(&text, shown()).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
